"""Training objectives: what is asked of the stream, how a batch is made of it, and the loss.

    settings = CONFIGS["stslidr"](...)           # a frozen dataclass
    objective = settings.build("cuda")           # an `Objective`
    stream = Stream(corpus, objective.fields, choose=objective.choose, prepare=objective.prepare, ...)
    loss = objective(objective.collate(items, device))

To add one: a config class that has `name` and `build`, and an entry point, here or in a package of your own:

    [project.entry-points."brickyard.objectives"]
    my_objective = "my_package:MyObjective"
"""

from __future__ import annotations

from brickyard.shards.plugins import Registry
from brickyard.train.objectives.image_to_lidar import PPKT, SLidR, STSLidR
from brickyard.train.objectives.novel_views import LVSM, RayZer
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.objectives.ponder import Ponder
from brickyard.train.objectives.scalr import ScaLR
from brickyard.train.objectives.sonata import Sonata

CONFIGS: Registry[type[ObjectiveConfig]] = Registry("brickyard.objectives")
"""name in a recipe -> its settings."""

__all__ = [
    "CONFIGS", "LVSM", "PPKT", "Loss", "Objective", "ObjectiveConfig", "Ponder", "RayZer", "SLidR", "STSLidR", "ScaLR",
    "Sonata",
]  # fmt: skip
