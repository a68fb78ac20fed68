"""What an image network knows, as a further term of Sonata: its features of a patch are to be told from the points.

The term joins two ideas of the field, self-distillation of points and distillation from images (Concerto, NeurIPS 2025,
arXiv 2510.23607): of the first, masked view of a scene, the features of all points that project into one cell of the
image network's feature map are averaged and projected linearly; 1 - cosine to that cell's feature is the loss. Points
that are hidden in an image do not count. A scene without images takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import BrickyardError
from brickyard.train.augment import CropConfig, crop_image, inside, move_pixels, random_box
from brickyard.train.models.point_transformer import Encoded
from brickyard.train.precision import float32_island
from brickyard.train.teachers import Teacher, TeacherConfig, load_teacher
from brickyard.train.views.views import Views

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Sample

FIELDS = ("views/*/image", "views/*/pairs")


@dataclass(frozen=True, kw_only=True)
class ImageTerm:
    """Settings.

    Attributes:
        teacher: the image network, frozen.
        weight: of the term beside the others.
        crop: of the images.
        views: images of a scene, chosen at random each time, at most; only these are read.
        upcast: levels joined to the coarsest one for it.
    """

    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    weight: float = 1.0
    crop: CropConfig = field(default_factory=lambda: CropConfig(flip=0.0))
    views: int = 4
    upcast: int = 2

    def __post_init__(self) -> None:
        if self.weight < 0 or self.views < 1 or self.upcast < 0:
            raise ValueError("weight and upcast must not be negative, views must be positive")


@dataclass(frozen=True, kw_only=True)
class ScenePictures:
    """Cropped images of a scene, uint8 (V, 3, h, w), and the points seen in them.

    Attributes:
        point, image: int64 (P,). pixel: int64 (P, 2), (row, column) in the crop.
    """

    images: Tensor
    point: Tensor
    image: Tensor
    pixel: Tensor


def draw_views(header: SceneHeader, rng: np.random.Generator, config: ImageTerm) -> list[int]:
    """Numbers of the views to learn from, of those that have pairs."""
    every = range(len(header.views))
    usable = [v for v in every if all(f"views/{v}/{part}" in header.fields for part in ("image", "pairs"))]
    return [int(number) for number in rng.permutation(usable)[: config.views]]


def fields_of(numbers: Sequence[int]) -> tuple[str, ...]:
    """Those of some views that `prepare_pictures` reads."""
    return tuple(pattern.replace("*", str(number)) for number in numbers for pattern in FIELDS)


def prepare_pictures(
    sample: Sample, numbers: Sequence[int], rng: np.random.Generator, config: ImageTerm
) -> ScenePictures:
    """Some images of a scene, cropped; inside a stream's `prepare`."""
    images, points, pixels = [], [], []
    for number in numbers:
        pairs, header = sample[f"views/{number}/pairs"], sample.header.view(number)
        seen, place = pairs.point[pairs.visible], pairs.pixel[pairs.visible]
        box = random_box(header.width, header.height, place, config.crop, rng)
        flip = bool(rng.random() < config.crop.flip)
        kept = inside(place, box)
        if not kept.any():
            continue
        data, size = bytes(sample[f"views/{number}/image"]), (header.width, header.height)
        try:
            images.append(crop_image(data, size, box, config.crop, flip=flip))
        except BrickyardError as problem:
            raise BrickyardError(f"scene {sample.key}, view {header.name}: {problem}") from problem
        points.append(seen[kept].astype(np.int64))
        pixels.append(move_pixels(place[kept], box, config.crop, flip=flip)[:, ::-1].astype(np.int64))
    shape = (0, 3, config.crop.height, config.crop.width)
    return ScenePictures(
        images=torch.from_numpy(np.stack(images) if images else np.empty(shape, np.uint8)),
        point=torch.from_numpy(np.concatenate([np.empty(0, np.int64), *points])),
        image=torch.arange(len(images)).repeat_interleave(torch.tensor([len(p) for p in points], dtype=torch.int64)),
        pixel=torch.from_numpy(np.concatenate([np.empty((0, 2), np.int64), *pixels])),
    )


def join_pictures(scenes: Sequence[ScenePictures], points: Sequence[int], device: torch.device) -> ScenePictures:
    """Those of several scenes on a device, points and images numbered through; `points` are in each scene."""
    starts = np.cumsum([0, *points])[:-1]
    images = np.cumsum([0, *(len(scene.images) for scene in scenes)])[:-1]
    return ScenePictures(
        images=torch.cat([scene.images for scene in scenes]).to(device, non_blocking=True),
        point=torch.cat([s.point + int(start) for s, start in zip(scenes, starts, strict=True)]).to(device),
        image=torch.cat([s.image + int(start) for s, start in zip(scenes, images, strict=True)]).to(device),
        pixel=torch.cat([scene.pixel for scene in scenes]).to(device),
    )


class ImagePredictor(nn.Module):
    """The term: a linear layer from point features to those of a frozen image network.

    Args:
        config: settings.
        channels: of the point features.
        device: of both networks.
    """

    def __init__(self, config: ImageTerm, channels: int, device: torch.device) -> None:
        super().__init__()
        self.config = config
        teacher = load_teacher(config.teacher, device, size=(config.crop.height, config.crop.width))
        self._frozen: tuple[Teacher] = (teacher,)  # in a tuple, so that torch does not see it
        self.linear = nn.Linear(channels, teacher.channels).to(device)

    def forward(self, encoded: Encoded, views: Views, pictures: ScenePictures) -> tuple[Tensor, Tensor]:
        """(loss, number of patches that were told); 0 where no point of a first view is in any image."""
        level = encoded.levels[len(encoded.levels) - 1 - self.config.upcast]
        features = encoded.upcast(self.config.upcast)[: sum(level.counts[: views.scenes])]
        row, pair = rows_of(encoded, self.config.upcast, views, pictures.point)
        if not len(row):
            nothing = features.new_zeros(())
            return nothing, nothing
        teacher = self._frozen[0]
        seen = teacher(pictures.images.float() / 255)
        height, width = seen.shape[-2:]
        down = pictures.pixel[pair] // teacher.stride
        cell = (pictures.image[pair] * height + down[:, 0]) * width + down[:, 1]
        patches, owner, sizes = torch.unique(cell, return_inverse=True, return_counts=True)
        target = seen.permute(0, 2, 3, 1).reshape(-1, seen.shape[1])[patches].float()
        with float32_island(cell.device):
            sums = features.new_zeros(len(patches), features.shape[1], dtype=torch.float32)
            told = self.linear(sums.index_add(0, owner, features[row].float()) / sizes[:, None])
            loss = 1 - functional.cosine_similarity(told, target, dim=1)
        return loss.mean(), torch.tensor(float(len(patches)), device=loss.device)


def rows_of(encoded: Encoded, upcast: int, views: Views, points: Tensor) -> tuple[Tensor, Tensor]:
    """(rows of the up-cast level, places in `points`) of those points that the first global views show.

    Args:
        points: int64 (P,), points of the joined scenes; one that was thinned away is shown by its cell's.
    """
    first = sum(views.clouds.counts[: views.scenes])
    shown = views.chosen.new_full((int(views.cell.max()) + 1,), -1)
    shown[views.chosen[:first]] = torch.arange(first, device=points.device)
    place = shown[views.cell[points]]
    pair = (place >= 0).nonzero()[:, 0]
    row = place[pair]
    for level in encoded.levels[1 : len(encoded.levels) - upcast]:
        assert level.children is not None
        row = level.children.inverse[row]
    return row, pair
