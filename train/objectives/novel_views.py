"""Novel views as a teacher: RayZer, which predicts the cameras, and LVSM, which is given them.

The networks are in `train.models.rayzer` and `train.models.lvsm`, the way of the frames in `train.objectives.clips`. A
few views of a clip are inputs, the others are rendered and compared with what they are: mean squared error plus how
unlike they look to a frozen network. Nothing is labelled; LVSM needs poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from brickyard.train.models.cameras import Cameras
from brickyard.train.models.lvsm import LVSMConfig, LVSMNetwork, told
from brickyard.train.models.rayzer import RayZerConfig, RayZerNetwork
from brickyard.train.objectives.clips import Clip, ClipBatch, ClipConfig, draw, join_clips, psnr, read_clip
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.objectives.perceptual import Perceptual, PerceptualConfig, load_perceptual
from brickyard.train.objectives.pose_errors import PoseErrors, disturbed
from brickyard.train.precision import float32_island

if TYPE_CHECKING:
    from brickyard.shards.stream import Choose, Sample


@dataclass(frozen=True, kw_only=True)
class RayZer(ObjectiveConfig):
    """RayZer; defaults are those published.

    Attributes:
        network: which. clips: which frames. perceptual: the second term of the loss.
    """

    name: ClassVar[str] = "rayzer"

    network: RayZerConfig = field(default_factory=RayZerConfig)
    clips: ClipConfig = field(default_factory=ClipConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)

    def build(self, device: torch.device | str = "cpu") -> RayZerObjective:
        return RayZerObjective(self, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class LVSM(ObjectiveConfig):
    """LVSM; defaults are those published for RealEstate10K.

    Attributes:
        network: which. clips: which frames. perceptual: the second term of the loss.
        pose_errors: by which the poses that are learned from are off; for experiments.
    """

    name: ClassVar[str] = "lvsm"

    network: LVSMConfig = field(default_factory=LVSMConfig)
    clips: ClipConfig = field(
        default_factory=lambda: ClipConfig(
            inputs=2, targets=6, window=(25, 192), window_end=(25, 192), ramp=0, order="sorted", split="ends"
        )
    )
    perceptual: PerceptualConfig = field(default_factory=lambda: PerceptualConfig(weight=0.5))
    pose_errors: PoseErrors = field(default_factory=PoseErrors)

    def build(self, device: torch.device | str = "cpu") -> LVSMObjective:
        return LVSMObjective(self, torch.device(device))


class NovelViews(Objective):
    """What both share: the way of the frames, and the loss. The measure of looks is frozen and no submodule."""

    posed: ClassVar[bool]
    fields = ("views/*/image",)
    needed = ("views/*/image",)

    def __init__(self, config: RayZer | LVSM, device: torch.device) -> None:
        super().__init__()
        self.size, self.clips, self.weight = config.network.size, config.clips, config.perceptual.weight
        self._frozen: tuple[Perceptual | None] = (load_perceptual(config.perceptual, device),)

    @property
    def choose(self) -> Choose:
        return self._choose

    def _choose(self, sample: Sample, rng: np.random.Generator) -> tuple[str, ...]:
        return draw(sample.header, rng, self.clips, sample.step, posed=self.posed).fields

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Clip:
        drawn = draw(sample.header, rng, self.clips, sample.step, posed=self.posed)
        return read_clip(sample, drawn, self.size, posed=self.posed)

    def collate(self, items: Sequence[Clip], device: torch.device) -> ClipBatch:
        return join_clips(items, self.size, device)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """The transformers of the network."""
        self.student.compile(*args, **kwargs)

    def loss(self, rendered: Tensor, wanted: Tensor, metrics: dict[str, float | Tensor]) -> Loss:
        """Of images (B, T, 3, H, W) in [0, 1]."""
        with float32_island(rendered.device):
            rendered, wanted = rendered.float(), wanted.float()
            errors = (rendered - wanted).square().flatten(2).mean(2)
            total = errors.mean()
            metrics = {"loss_mse": total.detach(), "psnr": psnr(errors.detach()).mean(), **metrics}
            if (measure := self._frozen[0]) is not None:
                term = measure(rendered.flatten(0, 1), wanted.flatten(0, 1))
                metrics[measure.name] = term.detach()
                total = total + self.weight * term
        return Loss(total=total, metrics=metrics)


class RayZerObjective(NovelViews):
    """Metrics beside the loss: `focal` in image widths; `baseline`, the mean distance of a camera from the canonical
    one, in the network's own unit: one that stays near 0 renders without geometry."""

    posed = False
    student: RayZerNetwork

    def __init__(self, config: RayZer, device: torch.device) -> None:
        super().__init__(config, device)
        self.student = config.network.build(device)

    def forward(self, batch: ClipBatch) -> Loss:
        inputs = self.clips.inputs
        rendered, cameras = self.student(batch.images, inputs, batch.number)
        with torch.no_grad():
            baseline = torch.linalg.vector_norm(cameras.poses[..., :3, 3], dim=-1).mean()
            focal = cameras.intrinsics[..., 0].mean()
        return self.loss(rendered, batch.images[:, inputs:], {"focal": focal, "baseline": baseline})


class LVSMObjective(NovelViews):
    posed = True
    student: LVSMNetwork

    def __init__(self, config: LVSM, device: torch.device) -> None:
        super().__init__(config, device)
        self.student, self.pose_errors = config.network.build(device), config.pose_errors

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Clip:
        clip = super().prepare(sample, rng)
        assert clip.poses is not None
        wrong = disturbed(clip.poses.numpy(), clip.key, clip.frames, self.pose_errors)
        return replace(clip, poses=torch.from_numpy(wrong))

    def forward(self, batch: ClipBatch) -> Loss:
        inputs = self.clips.inputs
        assert batch.poses is not None and batch.intrinsics is not None
        cameras: Cameras = told(batch.poses, batch.intrinsics, inputs)
        return self.loss(self.student(batch.images[:, :inputs], cameras), batch.images[:, inputs:], {})
