"""ScaLR: a point's feature should be the frozen image network's at the pixel where the point lies. No contrast.

Source: Puy et al., "Three Pillars improving Vision Foundation Model Distillation for Lidar", CVPR 2024, and its public
code. Its three pillars are a strong teacher (DINOv2 ViT-L/14), a large student (WaffleIron, 48 layers) and several
datasets at once; the loss is the plainest there is. Both sides are scaled to unit length; `distance` says what is
averaged over pairs:

    l2        |told - seen|, as published
    cosine    1 - told . seen, which is half of its square

Images are shown whole, resized, without flips; the cloud is turned, flipped and scaled by up to a tenth. The teacher's
map is read between its cells, bilinearly with corners aligned, as if it had been enlarged to the image's size. The one
layer behind the student, to the teacher's channels, is thrown away afterwards. There are no negatives, so a batch on
several ranks is the same as on one, but for `centre`.

Memory: a pair takes the teacher's channels eight times over (four cells, their mean, what is told, gradients): 32 KiB
for 1,024 channels in float32. `max_pairs` bounds their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from brickyard.train.augment import CropConfig, CuboidConfig
from brickyard.train.models.sparse_unet import head
from brickyard.train.objectives.distillation import Distillation, DistillationObjective
from brickyard.train.objectives.objective import Loss
from brickyard.train.objectives.paired import PairedBatch
from brickyard.train.objectives.pixels import interpolate_at
from brickyard.train.precision import float32_island


@dataclass(frozen=True, kw_only=True)
class ScaLR(Distillation):
    """Settings; the defaults are the published ones, but for the networks.

    Attributes:
        distance: "l2" or "cosine", see above.
        centre: take the mean over the batch's pairs (of a rank) from what is seen. Where all features of a teacher
            share a direction, as those behind a ReLU do, to tell that one is most of the way to a small distance.
        max_pairs: pairs drawn per batch; None takes all.
    """

    name: ClassVar[str] = "scalr"

    crop: CropConfig = field(
        default_factory=lambda: CropConfig(width=448, area=(1.0, 1.0), aspect=(16 / 9, 16 / 9), flip=0.0)
    )
    cuboid: CuboidConfig = field(default_factory=lambda: CuboidConfig(extent=0.0))
    scale: float = 0.1
    distance: Literal["l2", "cosine"] = "l2"
    centre: bool = False
    max_pairs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ValueError("max_pairs must be positive")

    def build(self, device: torch.device | str = "cpu") -> ScaLRObjective:
        return ScaLRObjective(self, torch.device(device))


class ScaLRObjective(DistillationObjective):
    """See the module's text."""

    config: ScaLR

    def __init__(self, config: ScaLR, device: torch.device) -> None:
        super().__init__(config, device)
        self.point_head = head(self.student.channels, self.teacher.channels).to(device)

    def forward(self, batch: PairedBatch) -> Loss:
        features, voxels = self.student(batch.clouds)  # also without pairs: other ranks wait in its batch norms
        if not len(batch.pair_point):
            nothing = self.zero() + features.sum() * 0
            return Loss(total=nothing, metrics={"pairs": 0.0, "scenes_without_pairs": batch.empty}, usable=False)
        seen = self.teacher(batch.images.float() / 255)
        with float32_island(features.device):
            drawn = self._drawn(batch)
            crop, image, place = self.config.crop, batch.pair_image[drawn], batch.pair_pixel[drawn]
            maps = interpolate_at(seen.float(), (crop.height, crop.width), image, *place.unbind(1))
            if self.config.centre:
                maps = maps - maps.mean(0)
            told = self.point_head(features.float())[voxels.inverse[batch.pair_point[drawn]]]
            loss = mean_distance(told, maps, self.config.distance)
        return Loss(total=loss, metrics={"pairs": float(len(told)), "scenes_without_pairs": batch.empty})

    def _drawn(self, batch: PairedBatch) -> Tensor:
        """Numbers of pairs, without replacement, by a generator that depends on the scenes alone."""
        count = len(batch.pair_point)
        if self.config.max_pairs is None or count <= self.config.max_pairs:
            return torch.arange(count, device=batch.pair_point.device)
        generator = torch.Generator().manual_seed(batch.seed)
        return torch.randperm(count, generator=generator)[: self.config.max_pairs].to(batch.pair_point.device)


def mean_distance(told: Tensor, seen: Tensor, distance: Literal["l2", "cosine"]) -> Tensor:
    """Mean over the rows of both (P, C), each scaled to unit length."""
    told, seen = functional.normalize(told, dim=1), functional.normalize(seen, dim=1)
    if distance == "cosine":
        return (1 - (told * seen).sum(1)).mean()
    apart: Tensor = torch.linalg.vector_norm(told - seen, dim=1)
    return apart.mean()
