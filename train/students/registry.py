"""Students by the kind that their student.json names; third parties add theirs by entry point, as for sources:

[project.entry-points."brickyard.students"]
my_kind = "my_package:MyConfig"           # an `ExportedConfig`
"""

from __future__ import annotations

from brickyard.shards.plugins import find_plugin, plugin_names
from brickyard.train.students.base import ExportedConfig

GROUP = "brickyard.students"


def student_kinds() -> list[str]:
    """All kinds that are installed."""
    return plugin_names(GROUP)


def student_config(kind: str) -> type[ExportedConfig]:
    """The class of a kind's settings; raises KeyError where nothing of that name is installed."""
    found: type[ExportedConfig] = find_plugin(GROUP, kind)
    return found
