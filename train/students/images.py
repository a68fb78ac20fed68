"""A network of images as a student: what it says of the images in which a point is seen, at the points.

The images of a scene are encoded one by one, and points take the mean and variance of the features where views see them
(`train.rendering.lifting`): nothing of a point is used but its place. So every protocol that reads frozen features
judges it as it does networks of points. A training needs no points at all (see `train.objectives.ponder_views`).

The network (`train.students.image_networks`) has lateral and top-down paths to a quarter of the resolution (Lin
et al., "Feature Pyramid Networks", CVPR 2017, arXiv 1612.03144).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import RecipeError, UnfitSceneError
from brickyard.train.clouds import Cloud, Clouds, join_clouds, read_cloud
from brickyard.train.objectives.view_rays import read_image
from brickyard.train.rendering.lifting import image_matrix, is_pinhole, lift
from brickyard.train.students.base import Cells, Rows, Student, StudentConfig
from brickyard.train.students.image_networks import NAMES, image_network
from brickyard.train.teachers.teacher import IMAGENET
from brickyard.train.transfer import send
from brickyard.train.voxels import VoxelConfig, voxelise

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class ImageStudentConfig(StudentConfig):
    """Settings.

    Attributes:
        network: name in `image_networks.NAMES`.
        channels: of the maps; a point gets twice as many.
        size: (height, width) to which whole images are resized, multiples of 32.
        views: images of a scene, at most.
        voxel: edge of the voxels whose points are looked up together when it is judged, metres.
        weights: a ResNet's file or a ConvNeXt's folder, as for teachers; None begins afresh.
    """

    kind: ClassVar[str] = "images"

    network: str = "resnet50"
    channels: int = 64
    size: tuple[int, int] = (224, 320)
    views: int = 8
    voxel: float = 0.05
    weights: Path | None = None

    def __post_init__(self) -> None:
        if self.network not in NAMES:
            raise ValueError(f"network must be one of {', '.join(NAMES)}, found {self.network!r}")
        if min(self.channels, self.views) < 1 or self.voxel <= 0:
            raise ValueError("channels, views and voxel must be positive")
        if min(self.size) < 32 or any(side % 32 for side in self.size):
            raise ValueError(f"size must be multiples of 32, found {self.size[0]} x {self.size[1]}")

    @property
    def fields(self) -> tuple[str, ...]:
        return ("points/xyz", "views/*/image")

    def build(self, device: torch.device | str = "cpu") -> ImageStudent:
        return ImageStudent(self).to(device)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        return cls(**{**table, "inputs": tuple(table["inputs"]), "size": tuple(table["size"])})

    def voxel_size(self, domain: str) -> float:
        return self.voxel


@dataclass(frozen=True, kw_only=True)
class PicturedCloud(Cloud):
    """A cloud with images of it.

    Attributes:
        images: uint8 (V, 3, h, w).
        to_image: float64 (V, 3, 4), see `image_matrix`.
    """

    images: Tensor
    to_image: Tensor


class ImageStudent(Student):
    """See the module's text."""

    config: ImageStudentConfig
    has_decoder: ClassVar[bool] = True

    def __init__(self, config: ImageStudentConfig) -> None:
        super().__init__()
        self.config, self.channels = replace(config, weights=None), 2 * config.channels
        self.network = image_network(config.network, config.weights)
        self.laterals = nn.ModuleList(nn.Conv2d(width, config.channels, 1) for width in self.network.widths)
        self.smooth = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        self.mean: Tensor
        self.deviation: Tensor
        for name, value in zip(("mean", "deviation"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.config.fields

    def maps(self, images: Tensor) -> Tensor:
        """Features (V, channels, h / 4, w / 4) of images uint8 (V, 3, h, w)."""
        levels = self.network.levels((images.float() / 255 - self.mean) / self.deviation)
        out: Tensor | None = None
        for lateral, level in zip(reversed(self.laterals), reversed(levels), strict=True):
            told = lateral(level)
            out = told if out is None else told + functional.interpolate(out, size=told.shape[-2:], mode="nearest")
        smoothed: Tensor = self.smooth(out)
        return smoothed

    def read(self, sample: Sample) -> PicturedCloud:
        """All points, and images spread evenly over those that can be lifted; raises `UnfitSceneError` without any."""
        usable = liftable_views(sample.header)
        if not usable:
            raise UnfitSceneError("none of its views has an image, a finite pose and the lens of a pinhole")
        return self.look(sample, evenly_of(usable, self.config.views))

    def look(self, sample: Sample, numbers: Sequence[int], cloud: Cloud | None = None) -> PicturedCloud:
        """All points (or a cloud that was read), and these views; raises `ImageError` for a damaged image."""
        cloud, (height, width) = read_cloud(sample, ()) if cloud is None else cloud, self.config.size
        images, matrices = [], []
        for number in numbers:
            image = Image.fromarray(read_image(sample, number, min(height, width)))
            small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
            images.append(torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))))
            matrices.append(torch.from_numpy(image_matrix(sample.header.view(number))))
        return PicturedCloud(**vars(cloud), images=torch.stack(images), to_image=torch.stack(matrices))

    def encode(self, clouds: Sequence[Cloud], turn: int = 0) -> Rows:
        joined = join_clouds(clouds, (), self.device)
        cells = self.cells(joined, [cloud.domain for cloud in clouds], turn)
        places, scene = joined.xyz[cells.representative], joined.scene[cells.representative]
        features = []
        for number, cloud in enumerate(clouds):
            if not isinstance(cloud, PicturedCloud):
                raise RecipeError(f"{cloud.key}: a student of images is judged on scenes as they are, with their views")
            maps, matrix = self.maps(send(cloud.images, self.device)), send(cloud.to_image, self.device)
            features.append(lift(maps, matrix, places[scene == number]).features)
        return Rows(features=torch.cat(features), inverse=cells.inverse, representative=cells.representative)

    def encode_joined(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> tuple[Any, Cells]:
        raise RecipeError("a student of images knows nothing of points without their images: probe it frozen")

    def cells(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> Cells:
        nothing, grid = (
            clouds.xyz.new_zeros(len(clouds.xyz), 0),
            VoxelConfig(kind="cartesian", size=(self.config.voxel,) * 3),
        )
        voxels = voxelise(clouds.xyz, nothing, clouds.scene, clouds.batch, grid, turn=turn)
        return Cells(inverse=voxels.inverse, representative=voxels.representative)


def evenly_of(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers, spread evenly over them."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[place] for place in dict.fromkeys(places.tolist())]


def liftable_views(header: SceneHeader) -> list[int]:
    """Numbers of the views that have an image, a finite pose and the lens of a pinhole."""
    found = []
    for number, entry in enumerate(header.views):
        pose = entry["scene_from_camera"]
        known = f"views/{number}/image" in header.fields and pose is not None and np.isfinite(pose).all()
        if known and is_pinhole(header.view(number)):
            found.append(number)
    return found
