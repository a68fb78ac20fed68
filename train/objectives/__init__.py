"""Training objectives: what is asked of the stream, how a batch is made of it, and the loss.

    settings = CONFIGS["stslidr"](...)           # a frozen dataclass
    objective = settings.build("cuda")           # an `Objective`
    stream = Stream(corpus, objective.fields, prepare=objective.prepare, ...)
    loss = objective(objective.collate(items, device))

To add one: a file with a config class that has `build`, and a line in `CONFIGS`.
"""

from __future__ import annotations

from brickyard.train.objectives.image_to_lidar import PPKT, SLidR, STSLidR
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.objectives.sonata import Sonata

CONFIGS: dict[str, type[ObjectiveConfig]] = {"ppkt": PPKT, "slidr": SLidR, "stslidr": STSLidR, "sonata": Sonata}
"""name in a recipe -> its settings."""

__all__ = ["CONFIGS", "PPKT", "Loss", "Objective", "ObjectiveConfig", "SLidR", "STSLidR", "Sonata"]
