"""PPKT, SLidR and ST-SLidR: a frozen image network teaches a sparse 3D network, by contrast, without labels.

Points project into the images of the same moment. Both sides are embedded in one space; the embedding of what is seen
through some pixels should match the embedding of those pixels and no other. The three systems differ in two things:

  unit of contrast   a point and its pixel (PPKT, arXiv 2104.04687), or the points and pixels of a superpixel
                     (SLidR, CVPR 2022, arXiv 2203.16258)
  negatives          all others, or (ST-SLidR, CVPR 2023, arXiv 2301.05709) only those unlike the anchor

so they are one class with three sets of defaults. The trained part is the student, a linear layer behind it, and a 1x1
convolution behind the teacher. The published systems do not test occlusion; `visible_only` keeps the visible pairs.

Cost per scene on one CPU core, six 480 x 270 images cropped to 112 x 208 and a `tiny` student: about 15 ms to decode
and crop, 80 ms for the teacher, 130 ms for the student. `views` and `pixel_stride` are there to cut the image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.train.augment import CropConfig, CuboidConfig
from brickyard.train.models.sparse_unet import head
from brickyard.train.objectives import contrastive
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.objectives.paired import PairedBatch, PairedScene, choose, collate, prepare
from brickyard.train.precision import float32_island
from brickyard.train.students.unet import UNetConfig, UNetStudent
from brickyard.train.teachers import Teacher, TeacherConfig, load_teacher

if TYPE_CHECKING:
    from brickyard.shards.stream import Choose, Sample


@dataclass(frozen=True, kw_only=True)
class ImageToLidar(ObjectiveConfig):
    """Settings shared by the three systems; the classes below give their defaults.

    Attributes:
        unit: what is contrasted, "superpixel" or "point".
        weighting: of negatives: "none"; "similarity" (logits times 1 - similarity); "neighbours" (the most similar
            `neighbour_share` of each row are no negatives).
        exclusion: what a negative of weight 0 means, see `contrastive.info_nce`.
        balance: ST-SLidR's class balancing of anchors.
        temperature: of the softmax.
        dimensions: of the common space.
        max_pairs: pairs drawn per batch where the unit is a point.
        visible_only: use only pairs that pass the depth test.
        views: use at most so many images of a scene, chosen at random each time; None uses all. Only these are read,
            except with `visible_only`.
        pixel_stride: resolution of the pixel embeddings: 1 is the crop's own, as published; 4 costs a sixteenth.
    """

    student: UNetConfig = field(default_factory=UNetConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    cuboid: CuboidConfig = field(default_factory=CuboidConfig)
    unit: Literal["superpixel", "point"] = "superpixel"
    weighting: Literal["none", "similarity", "neighbours"] = "none"
    exclusion: contrastive.Exclusion = "masked"
    neighbour_share: float = 0.01
    balance: bool = False
    temperature: float = 0.07
    dimensions: int = 64
    max_pairs: int = 4096
    visible_only: bool = False
    views: int | None = None
    pixel_stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0 or self.dimensions < 1 or self.max_pairs < 1:
            raise ValueError("temperature, dimensions and max_pairs must be positive")
        if not 0 < self.neighbour_share < 1:
            raise ValueError("neighbour_share must lie between 0 and 1")
        if self.views is not None and self.views < 1:
            raise ValueError("views must be positive")
        if self.pixel_stride < 1 or self.crop.height % self.pixel_stride or self.crop.width % self.pixel_stride:
            raise ValueError("pixel_stride must divide the crop's height and width")

    def build(self, device: torch.device | str = "cpu") -> ImageToLidarObjective:
        return ImageToLidarObjective(self, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class PPKT(ImageToLidar):
    """Points against pixels; the published teacher is a ResNet-50 of stride 32."""

    name: ClassVar[str] = "ppkt"
    unit: Literal["superpixel", "point"] = "point"
    teacher: TeacherConfig = field(default_factory=lambda: TeacherConfig(output_stride=32))


@dataclass(frozen=True, kw_only=True)
class SLidR(ImageToLidar):
    """Superpoints against superpixels."""

    name: ClassVar[str] = "slidr"


@dataclass(frozen=True, kw_only=True)
class STSLidR(ImageToLidar):
    """SLidR with semantically tolerant negatives and balanced anchors (the released main model)."""

    name: ClassVar[str] = "stslidr"
    weighting: Literal["none", "similarity", "neighbours"] = "neighbours"
    balance: bool = True


class ImageToLidarObjective(Objective):
    """See the module's text."""

    unusable = "steps_without_pairs"

    def __init__(self, config: ImageToLidar, device: torch.device) -> None:
        super().__init__()
        self.config = config
        superpixels = ("views/*/superpixels",) if config.unit == "superpixel" else ()
        self.needed = ("points/xyz", "views/*/image", "views/*/pairs", *superpixels)
        self.fields = (*config.student.fields, *self.needed[1:])
        self.student = UNetStudent(
            config.student, device
        )  # first, so that a seed gives the same one to every objective
        teacher = load_teacher(config.teacher, device, size=(config.crop.height, config.crop.width))
        self._frozen: tuple[Teacher] = (teacher,)  # in a tuple, so that torch does not see it
        self.point_head = head(self.student.channels, config.dimensions).to(device)
        self.pixel_head = nn.Conv2d(teacher.channels, config.dimensions, 1).to(device)

    @property
    def teacher(self) -> Teacher:
        return self._frozen[0]

    @property
    def choose(self) -> Choose | None:
        return None if self.config.views is None or self.config.visible_only else partial(choose, config=self.config)

    def prepare(self, sample: Sample, rng: np.random.Generator) -> PairedScene:
        return prepare(sample, rng, self.config)

    def collate(self, items: Sequence[PairedScene], device: torch.device) -> PairedBatch:
        return collate(items, self.config.student.inputs, device)

    def forward(self, batch: PairedBatch) -> Loss:
        features, voxels = self.student(batch.clouds)  # also without pairs: other ranks wait in its batch norms
        if not len(batch.pair_point):
            nothing = self._zero() + features.sum() * 0
            return Loss(total=nothing, metrics={"rows": 0.0, "scenes_without_pairs": batch.empty}, usable=False)
        seen = self.teacher(batch.images.float() / 255)
        with float32_island(features.device):
            points = functional.normalize(self.point_head(features.float()), dim=1)
            points, seen = points[voxels.inverse[batch.pair_point]], seen.float()
            pixels = self._embed_pixels(seen)
            if self.config.unit == "point":
                keys, queries, descriptors = self._point_rows(batch, points, pixels, seen)
            else:
                keys, queries, descriptors = self._superpixel_rows(batch, points, pixels, seen)
            loss, metrics = self._contrast(keys, queries, descriptors)
        return Loss(total=loss, metrics=metrics | {"scenes_without_pairs": batch.empty}, usable=len(keys) > 1)

    def _embed_pixels(self, seen: Tensor) -> Tensor:
        """(B, D, h, w) unit vectors at the resolution of the crop / pixel_stride."""
        crop, stride = self.config.crop, self.config.pixel_stride
        size = (crop.height // stride, crop.width // stride)
        embedded = functional.interpolate(self.pixel_head(seen), size=size, mode="bilinear", align_corners=True)
        return functional.normalize(embedded, dim=1)

    def _point_rows(
        self, batch: PairedBatch, points: Tensor, pixels: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of PPKT: some pairs, drawn without replacement by a generator that depends on the scenes alone."""
        generator = torch.Generator().manual_seed(batch.seed)
        drawn = torch.randperm(len(points), generator=generator)[: self.config.max_pairs].to(points.device)
        image, place = batch.pair_image[drawn], batch.pair_pixel[drawn]
        row, column = (place // self.config.pixel_stride).unbind(1)
        descriptors = None
        if self._needs_descriptors:
            factor = self.teacher.stride
            descriptors = seen[image, :, place[:, 0] // factor, place[:, 1] // factor]
        return points[drawn], pixels[image, :, row, column], descriptors

    def _superpixel_rows(
        self, batch: PairedBatch, points: Tensor, pixels: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of SLidR: the superpixels with at least one point (others have no number in the batch)."""
        groups = batch.superpixels
        keys, _ = contrastive.pool(points, batch.pair_superpixel, groups)
        stride = self.config.pixel_stride
        labels = batch.labels[:, stride // 2 :: stride, stride // 2 :: stride]
        labelled = labels >= 0
        group = labels[labelled]
        queries, area = contrastive.pool(pixels.permute(0, 2, 3, 1)[labelled], group, groups)
        keep = area > 0
        descriptors = None
        if self._needs_descriptors:
            descriptors = self._describe(seen, labelled, group, groups)
            keep = keep & contrastive.described(descriptors)
            descriptors = descriptors[keep]
        return keys[keep], queries[keep], descriptors

    def _describe(self, seen: Tensor, labelled: Tensor, group: Tensor, groups: int) -> Tensor:
        """Mean teacher feature of each superpixel, (groups, C).

        Every pixel takes the feature of the teacher's cell it lies in. (Published: the label image is reduced to the
        teacher's resolution instead, which loses superpixels smaller than a cell.)
        """
        images, channels, height, width = seen.shape
        image, row, column = labelled.nonzero(as_tuple=True)
        row, column = row * height // labelled.shape[1], column * width // labelled.shape[2]
        cell = (image * height + row) * width + column
        votes, inverse = torch.unique(group * (images * height * width) + cell, return_inverse=True)
        count = torch.bincount(inverse).to(seen.dtype)
        cell, owner = votes % (images * height * width), votes // (images * height * width)
        flat = seen.permute(0, 2, 3, 1).reshape(-1, channels)
        sums = flat.new_zeros(groups, channels).index_add(0, owner, flat[cell] * count[:, None])
        return sums / (torch.bincount(group, minlength=groups)[:, None] + 1e-6)

    def _contrast(self, keys: Tensor, queries: Tensor, descriptors: Tensor | None) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        weights = anchors = None
        if descriptors is not None:
            similar = contrastive.similarity(descriptors)
            if config.weighting == "similarity":
                weights = contrastive.similarity_weights(similar)
            elif config.weighting == "neighbours":
                weights = contrastive.neighbour_weights(similar, config.neighbour_share)
            anchors = contrastive.balance_weights(similar) if config.balance else None
        loss = contrastive.info_nce(
            keys,
            queries,
            config.temperature,
            weights=weights,
            exclusion=config.exclusion,
            anchor_weights=anchors,
        )
        return loss, {"rows": float(len(keys))}

    @property
    def _needs_descriptors(self) -> bool:
        return self.config.weighting != "none" or self.config.balance

    def _zero(self) -> Tensor:
        """A loss of 0 that reaches every parameter, so that ranks that train together stay in step."""
        return torch.stack([parameter.sum() * 0 for parameter in self.parameters()]).sum()
