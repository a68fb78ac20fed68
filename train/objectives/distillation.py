"""What the objectives share in which a frozen image network teaches a network of points: settings, networks, scenes.

Points project into the images of the same moment (see `train.objectives.paired` for how scenes get here). Each
objective adds a loss.

Two things go beyond the published systems. Cameras can be left out whole (`camera_drop`), so that a student learns from
scans of which some cameras see nothing, as on a car with fewer of them; what is left out is not read. And where a
corpus was built with several sweeps, each can be a cloud of its own (`sweeps: apart`): then one superpixel of the
keyframe's image teaches what every sweep saw of it, so features may not depend on the moment. Things that move leave a
trail in earlier sweeps, whose points meet the wrong pixels: take few sweeps (three are a tenth of a second).
Superpixels of neighbouring keyframes are not linked, as a scene of a corpus holds the images of one keyframe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from brickyard.train.augment import CropConfig, CuboidConfig
from brickyard.train.objectives.objective import Objective, ObjectiveConfig
from brickyard.train.objectives.paired import PairedBatch, PairedScene, choose, collate, prepare
from brickyard.train.students.unet import UNetConfig, UNetStudent
from brickyard.train.teachers import Teacher, TeacherConfig, load_teacher

if TYPE_CHECKING:
    from brickyard.shards.stream import Choose, Sample


@dataclass(frozen=True, kw_only=True)
class Distillation(ObjectiveConfig):
    """Settings that all of them have.

    Attributes:
        student, teacher: the networks; the teacher is frozen.
        crop: of the images. cuboid: of points that are dropped.
        scale: the cloud is made larger or smaller by up to this share.
        visible_only: use only pairs that pass the depth test.
        views: use at most so many images of a scene, chosen at random each time; None uses all. Only these are read,
            except with `visible_only`.
        camera_drop: probability that a whole camera is left out, each time anew; one always stays.
        sweeps: "together": a scene is one cloud. "apart": each of its sweeps is encoded as a cloud of its own; the
            corpus must have been built with several.
    """

    student: UNetConfig = field(default_factory=UNetConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    cuboid: CuboidConfig = field(default_factory=CuboidConfig)
    scale: float = 0.0
    visible_only: bool = False
    views: int | None = None
    camera_drop: float = 0.0
    sweeps: Literal["together", "apart"] = "together"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views is not None and self.views < 1:
            raise ValueError("views must be positive")
        if not 0 <= self.camera_drop < 1 or not 0 <= self.scale < 1:
            raise ValueError("camera_drop and scale must lie in [0, 1)")

    @property
    def superpixels(self) -> bool:
        """Whether views must have superpixels."""
        return False

    @property
    def label_stride(self) -> int:
        """Of the pixels whose superpixels are looked at."""
        return 1


class DistillationObjective(Objective):
    """The networks and the way of the scenes; a loss is added by whoever extends it."""

    student: UNetStudent
    items_on_device = True
    unusable = "steps_without_pairs"

    def __init__(self, config: Distillation, device: torch.device) -> None:
        super().__init__()
        self.config = config
        superpixels = ("views/*/superpixels",) if config.superpixels else ()
        sweeps = ("points/sweep",) if config.sweeps == "apart" else ()
        self.needed = ("points/xyz", "views/*/image", "views/*/pairs", *superpixels, *sweeps)
        self.fields = (*config.student.fields, *self.needed[1:])
        self.student = UNetStudent(
            config.student, device
        )  # first, so that a seed gives the same one to every objective
        teacher = load_teacher(config.teacher, device)
        self._frozen: tuple[Teacher] = (teacher,)  # in a tuple, so that torch does not see it

    @property
    def teacher(self) -> Teacher:
        return self._frozen[0]

    @property
    def choose(self) -> Choose | None:
        some = self.config.views is not None or self.config.camera_drop > 0
        return partial(choose, config=self.config) if some and not self.config.visible_only else None

    def prepare(self, sample: Sample, rng: np.random.Generator) -> PairedScene:
        return prepare(sample, rng, self.config)

    def collate(self, items: Sequence[PairedScene], device: torch.device) -> PairedBatch:
        return collate(items, self.config.student.inputs, device)

    def zero(self) -> Tensor:
        """A loss of 0 that reaches every parameter, so that ranks that train together stay in step."""
        return torch.stack([parameter.sum() * 0 for parameter in self.parameters()]).sum()
