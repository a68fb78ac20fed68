"""PonderV2 from images: what a network knows of a few pictures of a scene must do to render others.

Some views of a scene are looked at, others are rendered: a network of images encodes the former, its features are
lifted into the volume (`train.rendering.lifting`), and from there on all is as in `train.objectives.ponder`. What is
rendered is never looked at. The network of images is what is exported. With `points`, a student of points fills the
volume as well; it is kept beside. A clip without points has the box of what its drawn depth images show.

Source: Zhu et al., "PonderV2", T-PAMI 2025, arXiv 2310.08586 (multi-view input).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from brickyard.shards.errors import UnfitSceneError
from brickyard.train.objectives.depth_clouds import depth_cloud, has_points
from brickyard.train.objectives.objective import Loss
from brickyard.train.objectives.ponder import Ponder, PonderObjective
from brickyard.train.objectives.posed import PosedBatch, PosedScene, collate, prepare_views
from brickyard.train.objectives.view_rays import usable_views
from brickyard.train.rendering.lifting import lift
from brickyard.train.rendering.views import ViewRenderingNetwork
from brickyard.train.students.base import Exported, Student
from brickyard.train.students.images import ImageStudent, ImageStudentConfig, liftable_views
from brickyard.train.transfer import send

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Choose, Sample


@dataclass(frozen=True, kw_only=True)
class PonderViews(Ponder):
    """Settings, beside those of `ponder`.

    Attributes:
        images: the network of images; its `views` of a scene are looked at, drawn each time.
        points: whether the student of points looks on.
    """

    name: ClassVar[str] = "ponder_views"

    images: ImageStudentConfig = field(default_factory=ImageStudentConfig)
    points: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_ratio and not self.points:
            raise ValueError("mask_ratio hides points: without `points` there are none to be hidden")

    @property
    def scene_fields(self) -> tuple[str, ...]:
        """What is read of a scene besides its views."""
        return self.student.fields if self.points else ("points/xyz",)

    def build(self, device: torch.device | str = "cpu") -> PonderViewsObjective:
        return PonderViewsObjective(self, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class LookingScene(PosedScene):
    """A scene with rays, and S views that are looked at.

    Attributes:
        shown: uint8 (S, 3, h, w).
        to_image: float64 (S, 3, 4), see `lifting.image_matrix`; of the moved scene.
    """

    shown: Tensor
    to_image: Tensor


@dataclass(frozen=True, kw_only=True)
class LookingBatch(PosedBatch):
    """As `LookingScene`, all scenes joined.

    Attributes:
        looked_at: views of each scene.
    """

    shown: Tensor
    to_image: Tensor
    looked_at: tuple[int, ...]


class PonderViewsObjective(PonderObjective):
    """See the module's text."""

    config: PonderViews
    student: ImageStudent

    def __init__(self, config: PonderViews, device: torch.device) -> None:
        super().__init__(config, device)
        self.fields = (*config.scene_fields, "views/*/image", *(f"views/*/{part}" for part in config.read_fields))

    def build_encoders(self, device: torch.device) -> int:
        self.student = self.config.images.build(device)
        self.points: Student | None = self.config.student.build(device) if self.config.points else None
        return self.student.channels + (self.points.channels if self.points is not None else 0)

    @property
    def companions(self) -> dict[str, Exported]:
        network = ViewRenderingNetwork(self.student, self.points, self.renderer)
        return {"rendering": network} | ({} if self.points is None else {"points": self.points})

    @property
    def choose(self) -> Choose:
        return partial(choose, config=self.config)

    def prepare(self, sample: Sample, rng: np.random.Generator) -> LookingScene:
        rendered, looked_at = drawn(sample.header, rng, self.config)
        cloud = None if self.points is None else self.points.read(sample)
        if cloud is None and not has_points(sample.header):
            cloud = depth_cloud(sample, sorted((*rendered, *looked_at)))
        seen = self.student.look(sample, looked_at, cloud)
        posed = prepare_views(sample, seen, rendered, rng, self.config)
        to_image = seen.to_image @ torch.from_numpy(np.linalg.inv(posed.move))
        if not bool(lift(torch.zeros(len(to_image), 1, 1, 1), to_image, posed.cloud.xyz).views.any()):
            raise UnfitSceneError(
                f"none of the {len(looked_at)} views that were drawn to be looked at sees a point of what is rendered"
            )
        return LookingScene(**vars(posed), shown=seen.images, to_image=to_image)

    def collate(self, items: Sequence[PosedScene], device: torch.device) -> LookingBatch:
        looking = [item for item in items if isinstance(item, LookingScene)]
        posed = collate(items, self.config.student.inputs if self.config.points else (), device)
        return LookingBatch(
            **vars(posed),
            shown=send(torch.cat([item.shown for item in looking]), device),
            to_image=send(torch.cat([item.to_image for item in looking]), device),
            looked_at=tuple(len(item.shown) for item in looking),
        )

    def forward(self, batch: PosedBatch) -> Loss:
        assert isinstance(batch, LookingBatch)
        network = ViewRenderingNetwork(self.student, self.points, self.renderer)
        shown = (batch.shown, batch.to_image, batch.looked_at)
        loss = self.rendering_loss(network.fill(self._masked(batch), batch.domains, *shown), batch)
        return replace(loss, metrics={**loss.metrics, "views_looked_at": float(sum(batch.looked_at))})


def choose(sample: Sample, rng: np.random.Generator, config: PonderViews) -> tuple[str, ...]:
    """The fields of a scene that `prepare` will read; raises `UnfitSceneError`."""
    rendered, looked_at = drawn(sample.header, rng, config)
    boxed = () if config.points or has_points(sample.header) else ("depth",)
    looking = (f"views/{number}/{part}" for number in looked_at for part in ("image", *boxed))
    return (*config.scene_fields, *looking, *(f"views/{v}/{part}" for v in rendered for part in config.read_fields))


def drawn(header: SceneHeader, rng: np.random.Generator, config: PonderViews) -> tuple[list[int], list[int]]:
    """(views to render, views to look at), none of them both.

    Raises:
        UnfitSceneError: there is none for one of the two.
    """
    usable, liftable = usable_views(header, config.rays.source), set(liftable_views(header))
    order = [usable[place] for place in rng.permutation(len(usable))]
    looked_at = [number for number in order if number in liftable][: min(config.images.views, len(order) - 1)]
    if not looked_at:
        raise UnfitSceneError(
            f"of its {len(header.views)} views {len(usable)} could be rendered and {len(liftable)} looked at: two are"
            " needed, one of them with the lens of a pinhole"
        )
    rendered = [number for number in order if number not in set(looked_at)][: config.rays.views]
    return rendered, looked_at
