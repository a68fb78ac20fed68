"""Students by the kind that their student.json names; third parties add theirs by entry point, as for sources:

[project.entry-points."brickyard.students"]
my_kind = "my_package:MyConfig"           # an `ExportedConfig`
"""

from __future__ import annotations

from brickyard.shards.plugins import Registry
from brickyard.train.students.base import ExportedConfig

KINDS: Registry[type[ExportedConfig]] = Registry("brickyard.students")
"""kind -> the class of its settings."""
