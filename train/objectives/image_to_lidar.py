"""PPKT, SLidR and ST-SLidR: a frozen image network teaches a sparse 3D network, by contrast, without labels.

Points project into the images of the same moment. Both sides are embedded in one space; the embedding of what is seen
through some pixels should match the embedding of those pixels and no other. The three systems differ in two things:

  unit of contrast   a point and its pixel (PPKT, arXiv 2104.04687), or the points and pixels of a superpixel
                     (SLidR, CVPR 2022, arXiv 2203.16258)
  negatives          all others, or (ST-SLidR, CVPR 2023, arXiv 2301.05709) only those unlike the anchor

so they are one class with three sets of defaults. The trained part is the student, a linear layer behind it, and a 1x1
convolution behind the teacher. The published systems do not test occlusion; `visible_only` keeps the visible pairs.

Further settings that nobody published: exclusion by a threshold of each anchor's own (`weighting: adaptive`, see
`objectives.alike`), anchors that are balanced by the size of their cluster, and negatives of all ranks.

Cost per scene on one CPU core, six 480 x 270 images cropped to 112 x 208 and a `tiny` student: about 15 ms to decode
and crop, 80 ms for the teacher, 130 ms for the student. `views` and `pixel_stride` are there to cut the image side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.train.models.sparse_unet import head
from brickyard.train.objectives import contrastive
from brickyard.train.objectives.alike import find_alike, find_thresholds
from brickyard.train.objectives.distillation import Distillation, DistillationObjective
from brickyard.train.objectives.gathered import Shares
from brickyard.train.objectives.objective import Loss
from brickyard.train.objectives.paired import PairedBatch
from brickyard.train.objectives.pixels import interpolate_at
from brickyard.train.precision import float32_island
from brickyard.train.teachers import TeacherConfig
from brickyard.train.transfer import send
from brickyard.train.voxels import runs

Weighting = Literal["none", "similarity", "neighbours", "adaptive"]
_VOTES = 1 << 15
"""Features of teacher's cells gathered at a time: 256 MiB of a ResNet-50's."""


@dataclass(frozen=True, kw_only=True)
class ImageToLidar(Distillation):
    """Settings shared by the three systems; the classes below give their defaults.

    Attributes:
        unit: what is contrasted, "superpixel" or "point".
        weighting: of negatives: "none"; "similarity" (logits times 1 - similarity); "neighbours" (the most similar
            `neighbour_share` of each row are no negatives); "adaptive" (those that the anchor finds alike are none).
        exclusion: what a negative of weight 0 means, see `contrastive.row_losses`.
        alike_deviations: how far above chance a similarity must be for two units to be alike (see `objectives.alike`).
        balance: of anchors: "votes" is ST-SLidR's; "effective" and "clusters" go by the number of anchors that each
            finds alike, see `contrastive.balance_by_size`.
        gather_negatives: negatives of all ranks instead of a rank's own, so that the loss does not depend on the number
            of ranks.
        temperature: of the softmax.
        dimensions: of the common space.
        max_pairs: pairs drawn per batch where the unit is a point.
        pixel_stride: resolution of the pixel embeddings: 1 is the crop's own, as published; 4 costs a sixteenth.
    """

    unit: Literal["superpixel", "point"] = "superpixel"
    weighting: Weighting = "none"
    exclusion: contrastive.Exclusion = "masked"
    neighbour_share: float = 0.01
    alike_deviations: float = 1.5
    balance: contrastive.Balance = "none"
    gather_negatives: bool = False
    temperature: float = 0.07
    dimensions: int = 64
    max_pairs: int = 4096
    pixel_stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0 or self.dimensions < 1 or self.max_pairs < 1:
            raise ValueError("temperature, dimensions and max_pairs must be positive")
        if not 0 < self.neighbour_share < 1:
            raise ValueError("neighbour_share must lie between 0 and 1")
        if self.alike_deviations < 0:
            raise ValueError("alike_deviations must not be negative")
        if self.pixel_stride < 1 or self.crop.height % self.pixel_stride or self.crop.width % self.pixel_stride:
            raise ValueError("pixel_stride must divide the crop's height and width")

    @property
    def superpixels(self) -> bool:
        return self.unit == "superpixel"

    @property
    def label_stride(self) -> int:
        return self.pixel_stride

    @property
    def needs_descriptors(self) -> bool:
        """Whether units are compared by the teacher's own features."""
        return self.weighting != "none" or self.balance != "none"

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
    weighting: Weighting = "neighbours"
    balance: contrastive.Balance = "votes"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is contrasted.

    Attributes:
        keys: (K, D), of points. queries: (M, D), of pixels.
        target: int64 (K,), the query of each key; None where they belong to each other row by row.
        descriptors: (M, C), the teacher's features of the queries, where they are needed.
    """

    keys: Tensor
    queries: Tensor
    target: Tensor | None
    descriptors: Tensor | None


class ImageToLidarObjective(DistillationObjective):
    """See the module's text."""

    config: ImageToLidar

    def __init__(self, config: ImageToLidar, device: torch.device) -> None:
        super().__init__(config, device)
        self.point_head = head(self.student.channels, config.dimensions).to(device)
        self.pixel_head = nn.Conv2d(self.teacher.channels, config.dimensions, 1).to(device)

    def forward(self, batch: PairedBatch) -> Loss:
        features, voxels = self.student(batch.clouds)  # also without pairs: other ranks wait in its batch norms
        seen = self.teacher(batch.images.float() / 255) if len(batch.pair_point) else None
        with float32_island(features.device):
            if seen is None:
                rows = self._no_rows(self.zero() + features.sum() * 0)
            else:
                rows = self._rows(batch, features, voxels.inverse, seen.float())
            loss, units = contrast(rows, self.config)
        metrics = {"rows": float(len(rows.keys)), "scenes_without_pairs": batch.empty}
        return Loss(total=loss, metrics=metrics, usable=units > 1)

    def _embed_pixels(self, seen: Tensor) -> Tensor:
        """(B, D, h, w) unit vectors at the resolution of the crop / pixel_stride."""
        embedded = functional.interpolate(
            self.pixel_head(seen), size=self._pixel_size, mode="bilinear", align_corners=True
        )
        return functional.normalize(embedded, dim=1)

    @property
    def _pixel_size(self) -> tuple[int, int]:
        crop, stride = self.config.crop, self.config.pixel_stride
        return crop.height // stride, crop.width // stride

    def _rows(self, batch: PairedBatch, features: Tensor, inverse: Tensor, seen: Tensor) -> Rows:
        points = functional.normalize(self.point_head(features.float()), dim=1)[inverse[batch.pair_point]]
        if self.config.unit == "superpixel":
            return self._superpixel_rows(batch, points, self._embed_pixels(seen), seen)
        # A CPU rounds the two otherwise, and its trainings stay what they were; it has the memory.
        pixels = None if seen.device.type == "cuda" else self._embed_pixels(seen)
        return self._point_rows(batch, points, pixels, seen)

    def _no_rows(self, zero: Tensor) -> Rows:
        """Of a batch without pairs; `zero` leads to every parameter."""
        nothing = zero + zero.new_zeros(0, self.config.dimensions)
        described = zero.new_zeros(0, self.teacher.channels) if self.config.needs_descriptors else None
        return Rows(keys=nothing, queries=nothing, target=None, descriptors=described)

    def _point_rows(self, batch: PairedBatch, points: Tensor, pixels: Tensor | None, seen: Tensor) -> Rows:
        """Rows of PPKT: some pairs, drawn without replacement by a generator that depends on the scenes alone.

        Without `pixels`, the embeddings of all, only those that are drawn are made.
        """
        generator = torch.Generator().manual_seed(batch.seed)
        drawn = send(torch.randperm(len(points), generator=generator)[: self.config.max_pairs], points.device)
        image, place = batch.pair_image[drawn], batch.pair_pixel[drawn]
        row, column = (place // self.config.pixel_stride).unbind(1)
        descriptors = None
        if self.config.needs_descriptors:
            factor = self.teacher.stride
            descriptors = seen[image, :, place[:, 0] // factor, place[:, 1] // factor]
        if pixels is None:
            embedded = interpolate_at(self.pixel_head(seen), self._pixel_size, image, row, column)
            queries = functional.normalize(embedded, dim=1)
        else:
            queries = pixels[image, :, row, column]
        return Rows(keys=points[drawn], queries=queries, target=None, descriptors=descriptors)

    def _superpixel_rows(self, batch: PairedBatch, points: Tensor, pixels: Tensor, seen: Tensor) -> Rows:
        """Rows of SLidR: the superpixels with at least one point (others have no number in the batch)."""
        groups = batch.superpixels
        keys, target = self._superpoints(batch, points)
        stride = self.config.pixel_stride
        labels = batch.labels[:, stride // 2 :: stride, stride // 2 :: stride]
        place = torch.nonzero_static(labels >= 0, size=batch.labelled).unbind(1)
        group = labels[place].long()
        queries, area = contrastive.pool(pixels.permute(0, 2, 3, 1)[place], group, groups)
        keep, descriptors = area > 0, None
        if self.config.needs_descriptors:
            descriptors = describe(seen, labels, place, area)
            keep = keep & contrastive.described(descriptors)
        kept = keep.nonzero()[:, 0]
        if target is None:
            keys = keys[kept]
        else:
            keys, target = keys[keep[target]], (keep.cumsum(0) - 1)[target[keep[target]]]
        descriptors = None if descriptors is None else descriptors[kept]
        return Rows(keys=keys, queries=queries[kept], target=target, descriptors=descriptors)

    def _superpoints(self, batch: PairedBatch, points: Tensor) -> tuple[Tensor, Tensor | None]:
        """(means of the points of each superpixel, None), or, where sweeps are apart, (means of those of each
        superpixel and sweep, the superpixel)."""
        if self.config.sweeps == "together":
            return contrastive.pool(points, batch.pair_superpixel, batch.superpixels)[0], None
        sweep, sweeps = batch.clouds.scene[batch.pair_point], batch.clouds.batch
        pairs, group = torch.unique(batch.pair_superpixel * sweeps + sweep, return_inverse=True)
        return contrastive.pool(points, group, len(pairs))[0], pairs // sweeps


def describe(seen: Tensor, labels: Tensor, place: tuple[Tensor, ...], area: Tensor) -> Tensor:
    """Mean teacher feature of each superpixel, (groups, C).

    Every pixel takes the feature of the teacher's cell it lies in. (Published: the label image is reduced to the
    teacher's resolution instead, which loses superpixels smaller than a cell.)

    Args:
        seen: (images, C, h, w), the teacher's features.
        labels: integers (images, H, W), superpixels. place: those that are labelled, three int64 (P,).
        area: int64 (groups,), pixels of each superpixel.
    """
    images, channels, height, width = seen.shape
    image, row, column = place
    row, column = row * height // labels.shape[1], column * width // labels.shape[2]
    cells, cell = images * height * width, (image * height + row) * width + column
    votes, _ = (labels[place].long() * cells + cell).sort()
    run, begins = runs(votes)
    begin = torch.nonzero_static(begins, size=int(run[-1]) + 1)[:, 0]
    count = functional.pad(begin, (0, 1), value=len(votes)).diff().to(seen.dtype)
    owner, cell = votes[begin] // cells, votes[begin] % cells
    flat, sums = seen.permute(0, 2, 3, 1).reshape(-1, channels), seen.new_zeros(len(area), channels)
    for start in range(0, len(begin), _VOTES):
        part = slice(start, start + _VOTES)
        sums.index_add_(0, owner[part], flat[cell[part]] * count[part, None])
    return sums / (area[:, None] + 1e-6)


def contrast(rows: Rows, config: ImageToLidar) -> tuple[Tensor, int]:
    """(loss of the keys of this rank, units among all negatives).

    With negatives of all ranks, the mean of the losses over ranks is the loss of one rank that has all rows.
    """
    shares = Shares.of(len(rows.queries), rows.queries.device, gather=config.gather_negatives)
    if shares.total == 0:
        return (rows.keys.sum() + rows.queries.sum()) * 0, 0
    own = torch.arange(len(rows.queries), device=rows.queries.device) + shares.start
    queries = shares.all(rows.queries)
    weights, anchors = _tolerance(rows.descriptors, own, shares, config)
    if rows.target is not None:
        own = own[rows.target]
        weights = None if weights is None else weights[rows.target]
        anchors = None if anchors is None else anchors[rows.target]
    losses = contrastive.row_losses(
        rows.keys, queries, own, config.temperature, weights=weights, exclusion=config.exclusion
    )
    if anchors is None:
        total, of = losses.sum(), shares.sum(losses.new_full((), float(len(losses))))
    else:
        total, of = (losses * anchors).sum(), shares.sum(anchors.sum())
    return total / of * shares.world, shares.total


def _tolerance(
    descriptors: Tensor | None, own: Tensor, shares: Shares, config: ImageToLidar
) -> tuple[Tensor | None, Tensor | None]:
    """(weights of all negatives, weights of the anchors) of this rank's units, None where all are one."""
    if descriptors is None:
        return None, None
    similar = contrastive.similarity(descriptors, shares.all(descriptors) if shares.world > 1 else None)
    sized = config.balance in ("effective", "clusters")
    alike = weights = anchors = None
    if config.weighting == "adaptive" or sized:
        thresholds = find_thresholds(similar, config.alike_deviations)
        alike = find_alike(similar, thresholds, own, shares.all(thresholds[:, None])[:, 0])
    if config.weighting == "similarity":
        weights = contrastive.similarity_weights(similar, own)
    elif config.weighting == "neighbours":
        weights = contrastive.neighbour_weights(similar, config.neighbour_share, own)
    elif config.weighting == "adaptive" and alike is not None:
        weights = contrastive.adaptive_weights(alike, own)
    if config.balance == "votes":
        votes = shares.all(contrastive.votes(similar)[:, None])[:, 0]
        anchors = contrastive.balance_by_votes(votes)[own]
    elif config.balance != "none" and alike is not None:
        anchors = contrastive.balance_by_size(alike.sum(1), shares.total, config.balance)
    return weights, anchors
