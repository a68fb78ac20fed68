"""Images with all that renders what they show: a scene's views in, pictures from elsewhere out.

The box of a room is that of its points; nothing else of them is used, unless a student of points looks on as well. A
clip without points has the box of what the depth images of the views that are looked at show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from brickyard.shards.errors import UnfitSceneError
from brickyard.train.clouds import Clouds, join_clouds
from brickyard.train.objectives.depth_clouds import depth_cloud, has_points
from brickyard.train.objectives.view_rays import usable_views
from brickyard.train.rendering.lifting import lifted_volume
from brickyard.train.rendering.network import SceneRenderer, encoded_rows
from brickyard.train.rendering.renderer import Filled, Renderer, RendererConfig
from brickyard.train.rendering.volume import densify
from brickyard.train.students.base import ExportedConfig, Student, StudentConfig
from brickyard.train.students.images import (
    ImageStudent,
    ImageStudentConfig,
    PicturedCloud,
    evenly_of,
    liftable_views,
)
from brickyard.train.students.registry import KINDS
from brickyard.train.transfer import send

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class ViewRenderingConfig(ExportedConfig):
    """Settings.

    Attributes:
        images: of what encodes images.
        points: of what encodes points beside them, or None. points_kind: its name in the registry of students.
        renderer: of what renders.
    """

    kind: ClassVar[str] = "view_rendering"

    images: ImageStudentConfig = field(default_factory=ImageStudentConfig)
    points: StudentConfig | None = None
    points_kind: str = ""
    renderer: RendererConfig = field(default_factory=RendererConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "points_kind", "" if self.points is None else self.points.kind)

    def build(self, device: torch.device | str = "cpu") -> ViewRenderingNetwork:
        images = self.images.build(device)
        points = None if self.points is None else self.points.build(device)
        channels = images.channels + (0 if points is None else points.channels)
        return ViewRenderingNetwork(images, points, Renderer(self.renderer, channels).to(device))

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        points: Any = KINDS[table["points_kind"]].from_table(dict(table["points"])) if table["points_kind"] else None
        return cls(
            images=ImageStudentConfig.from_table(dict(table["images"])),
            points=points,
            renderer=RendererConfig.from_table(table["renderer"]),
        )


class ViewRenderingNetwork(SceneRenderer):
    """See the module's text; the parts are used as they are, not copied."""

    config: ViewRenderingConfig

    def __init__(self, images: ImageStudent, points: Student | None, renderer: Renderer) -> None:
        super().__init__()
        looking = None if points is None else points.config
        self.config = ViewRenderingConfig(images=images.config, points=looking, renderer=renderer.config)
        self.images, self.points, self.renderer = images, points, renderer

    @property
    def fields(self) -> tuple[str, ...]:
        extra = () if self.points is None else self.points.fields
        return tuple(dict.fromkeys((*self.images.fields, "views/*/depth", *extra)))

    def read(self, sample: Sample, held_out: Sequence[int]) -> PicturedCloud:
        """All points, and views spread evenly over those that can be lifted and are not held out; of those views, the
        depth of a clip without points. Raises `UnfitSceneError`."""
        usable = [number for number in liftable_views(sample.header) if number not in set(held_out)]
        if not usable:
            raise UnfitSceneError("without the views that are held out, none is left that could be lifted")
        looked_at = evenly_of(usable, self.images.config.views)
        cloud = None if self.points is None else self.points.read(sample)
        if cloud is None and not has_points(sample.header):
            measured = set(usable_views(sample.header, "depth"))
            cloud = depth_cloud(sample, [number for number in looked_at if number in measured])
        return self.images.look(sample, looked_at, cloud)

    def forward(self, clouds: Sequence[PicturedCloud]) -> Filled:
        inputs = () if self.points is None else self.points.inputs
        shown, to_image = (send(torch.cat([getattr(c, name) for c in clouds]), self.device) for name in _OF_VIEWS)
        domains, counts = [cloud.domain for cloud in clouds], [len(cloud.images) for cloud in clouds]
        return self.fill(join_clouds(clouds, inputs, self.device), domains, shown, to_image, counts)

    def fill(
        self, clouds: Clouds, domains: Sequence[str], shown: Tensor, to_image: Tensor, counts: Sequence[int]
    ) -> Filled:
        """Scenes to render, from their joined clouds in metres and their views, one scene after another.

        Args:
            domains: of the scenes.
            shown: uint8 (V, 3, h, w). to_image: float64 (V, 3, 4), see `lifting.image_matrix`.
            counts: views of each scene.
        """
        frame, grid = self.renderer.frame(clouds.xyz, clouds.scene, clouds.batch), self.renderer.grid
        volume = lifted_volume(self.images.maps(shown).float(), to_image, counts, frame, grid)
        if self.points is not None:
            features, places = encoded_rows(self.points, self.renderer, clouds, domains)
            xyz, scene = clouds.xyz[places], clouds.scene[places]
            known = densify(features, frame.to_box(xyz, scene), scene, clouds.batch, grid)
            volume = torch.cat((volume, known), 1)
        return Filled(volume=self.renderer.network(volume), frame=frame)


_OF_VIEWS = ("images", "to_image")
