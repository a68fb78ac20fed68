"""PonderV2: what a network knows of a cloud must do to render the pictures that were taken of it.

A few points of a scene are encoded, their features are spread into a dense volume, and the rays of posed views are
rendered from it (`train.rendering`). The loss is the error of depth and colour along these rays, with three terms on
the signed distances that are behind them. Source: Zhu et al., "PonderV2", T-PAMI 2025, arXiv 2310.08586, and its public
code.

What the published indoor system renders besides are labels of images, by which it is supervised in part. Here
`semantics` are "none", or the "features" of a frozen image network, rendered by cosine: no labels. "labels" renders the
classes of label images (`taxonomy`), by cross-entropy; that is supervised, and no pretraining without labels.

Rooms are rendered as a whole, at most points dropped; driving scans within a range, blocks of points masked (see the
recipes). Cost: rays times samples decide, see `train.rendering.render`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.taxonomy import taxonomy, taxonomy_names
from brickyard.train.clouds import Clouds
from brickyard.train.objectives.moves import MoveConfig
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.objectives.pixels import interpolate_at
from brickyard.train.objectives.posed import PosedBatch, PosedScene, choose, collate, prepare
from brickyard.train.objectives.view_rays import RaysConfig
from brickyard.train.precision import float32_island
from brickyard.train.rendering.losses import RenderingLossConfig, Seen, rendering_losses, weighted
from brickyard.train.rendering.network import RenderingNetwork, filled
from brickyard.train.rendering.rays import intersect
from brickyard.train.rendering.render import Rendered
from brickyard.train.rendering.renderer import Filled, Renderer, RendererConfig, box_rays
from brickyard.train.students.base import Exported, Student
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.teachers import Teacher, TeacherConfig, load_teacher
from brickyard.train.transfer import send
from brickyard.train.views.masks import mask_cubes
from brickyard.train.views.noise import derive, for_points
from brickyard.train.voxels import VoxelConfig

if TYPE_CHECKING:
    from brickyard.shards.stream import Choose, Sample


def _student() -> UNetConfig:
    return UNetConfig(
        network="spunet",
        inputs=("color", "normal"),
        voxels=VoxelConfig(kind="cartesian", size=(0.02, 0.02, 0.02)),
        intensity="unit",
    )


@dataclass(frozen=True, kw_only=True)
class Ponder(ObjectiveConfig):
    """Settings; the defaults are those published for rooms, without labels.

    Attributes:
        student: what is trained; a sparse U-Net or a point transformer.
        renderer: what it is trained with. Colours are rendered where `losses.color` has a weight.
        rays, moves: which rays, and how scenes are moved.
        losses: weights of the terms.
        dropout: share of the points that are left out.
        mask_ratio: share of the cubes with an edge of `mask_size` metres whose points lose all but their place to a
            learned token.
        semantics: "none"; "features" of the teacher; or "labels" of the views, of a `taxonomy`: supervised by people.
            Views without label images are rendered without that term.
        teacher: the image network. teacher_size: (height, width) to which it gets whole images resized.
        semantic_weight: of 1 - cosine between rendered and seen features, or of the cross-entropy of classes.
    """

    name: ClassVar[str] = "ponder"

    student: UNetConfig | PointStudentConfig = field(default_factory=_student)
    renderer: RendererConfig = field(default_factory=RendererConfig)
    rays: RaysConfig = field(default_factory=RaysConfig)
    moves: MoveConfig = field(default_factory=MoveConfig)
    losses: RenderingLossConfig = field(default_factory=RenderingLossConfig)
    dropout: float = 0.8
    mask_ratio: float = 0.0
    mask_size: float = 0.16
    semantics: Literal["none", "features", "labels"] = "none"
    taxonomy: str | None = None
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    teacher_size: tuple[int, int] = (224, 320)
    semantic_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.semantics == "labels") != (self.taxonomy is not None):
            raise ValueError('semantics "labels" needs a taxonomy, that of the label images, and nothing else does')
        if self.taxonomy is not None and self.taxonomy not in taxonomy_names():
            raise ValueError(f"no taxonomy {self.taxonomy!r}; there are {', '.join(taxonomy_names())}")
        if not 0 <= self.dropout < 1 or not 0 <= self.mask_ratio < 1 or self.mask_size <= 0:
            raise ValueError("dropout and mask_ratio must lie in [0, 1), mask_size must be positive")
        if min(self.teacher_size) < 1 or self.semantic_weight < 0:
            raise ValueError("teacher_size must be positive, semantic_weight not negative")

    @property
    def teaches(self) -> bool:
        """Whether an image network does."""
        return self.semantics == "features"

    @property
    def label_field(self) -> str | None:
        """Of a view, where its labels are rendered."""
        return None if self.taxonomy is None else f"semantic.{self.taxonomy}"

    @property
    def view_fields(self) -> tuple[str, ...]:
        """What must be there of a view."""
        return (self.rays.source, *(("image",) if self.losses.color or self.teaches else ()))

    @property
    def read_fields(self) -> tuple[str, ...]:
        """What is read of a view, and what is read where it is there."""
        return self.view_fields if self.label_field is None else (*self.view_fields, self.label_field)

    def build(self, device: torch.device | str = "cpu") -> PonderObjective:
        return PonderObjective(self, torch.device(device))


class PonderObjective(Objective):
    """See the module's text."""

    student: Student
    items_on_device = True
    unusable = "steps_without_rays"

    def __init__(self, config: Ponder, device: torch.device) -> None:
        super().__init__()
        self.config = config
        self.needed = ("points/xyz", *(f"views/*/{part}" for part in config.view_fields))
        self.fields = (*config.student.fields, *(f"views/*/{part}" for part in config.read_fields))
        self._frozen: tuple[Teacher, ...] = ()  # in a tuple, so that torch does not see it
        renderer = replace(config.renderer, color=config.losses.color > 0, features=0)
        channels = self.build_encoders(device)  # first, so that a seed gives the same student to every objective
        if config.teaches:
            self._frozen = (load_teacher(config.teacher, device, size=config.teacher_size),)
            renderer = replace(renderer, features=self._frozen[0].channels)
        if config.taxonomy is not None:
            renderer = replace(renderer, features=len(taxonomy(config.taxonomy).classes))
        self.renderer = Renderer(renderer, channels).to(device)
        self.tokens = nn.ParameterDict()
        if config.mask_ratio:
            widths = {"color": 3, "normal": 3, "intensity": 1}
            for name in (name for name in widths if name in config.student.inputs):
                self.tokens[name] = nn.Parameter(nn.init.trunc_normal_(torch.empty(widths[name]), std=0.02).to(device))

    def build_encoders(self, device: torch.device) -> int:
        """Set the student, and whatever else fills the volume; returns the channels of what it is filled from."""
        self.student = self.config.student.build(device)
        return self.student.channels

    @property
    def companions(self) -> dict[str, Exported]:
        return {"rendering": RenderingNetwork(self.student, self.renderer)}

    @property
    def choose(self) -> Choose:
        return partial(choose, config=self.config)

    def prepare(self, sample: Sample, rng: np.random.Generator) -> PosedScene:
        return prepare(sample, self.student.read(sample), rng, self.config)

    def collate(self, items: Sequence[PosedScene], device: torch.device) -> PosedBatch:
        return collate(items, self.config.student.inputs, device)

    def forward(self, batch: PosedBatch) -> Loss:
        scenes = filled(self.student, self.renderer, self._masked(batch), batch.domains)
        return self.rendering_loss(scenes, batch)

    def rendering_loss(self, scenes: Filled, batch: PosedBatch) -> Loss:
        """What rendering the batch's rays from filled volumes costs."""
        counts: dict[str, float | Tensor] = {"views": float(batch.views), "views_left_out": float(batch.left_out)}
        counts["rays"] = float(len(batch.eyes))
        with float32_island(batch.eyes.device):
            rays, distance = box_rays(batch.eyes, batch.seen, scenes.frame, batch.counts)
            grid, near = self.renderer.grid, self.renderer.config.sampling.near
            if not bool(intersect(rays, grid.low, grid.high, near=near)[2].any()):
                nothing = torch.stack([value.sum() * 0 for value in (*self.parameters(), scenes.volume)]).sum()
                return Loss(total=nothing, metrics=counts, usable=False)
            rendered = self.renderer.render(scenes, rays, _seeds(batch, batch.eyes.device))
            seen = Seen(depth=distance, color=batch.color if self.config.losses.color else None)
            terms = rendering_losses(rendered, seen, self.config.losses)
            total = weighted(terms, self.config.losses)
            if self._frozen or self.config.taxonomy is not None:
                terms["semantics"] = self._semantics(rendered, batch)
                total = total + self.config.semantic_weight * terms["semantics"]
        metrics: dict[str, float | Tensor] = {f"loss_{name}": term.detach() for name, term in terms.items()}
        metrics["depth_error"] = _error_in_metres(rendered, distance, rays.unit)
        return Loss(total=total, metrics=metrics | counts)

    def _masked(self, batch: PosedBatch) -> Clouds:
        """The clouds as the student sees them."""
        clouds = batch.clouds
        if not self.config.mask_ratio:
            return clouds
        masked = mask_cubes(clouds, self.config.mask_size, self.config.mask_ratio, derive(batch.seeds, "mask"))
        values = dict(clouds.values)
        for name, token in self.tokens.items():
            hidden = masked & clouds.valid[name][clouds.scene]
            values[name] = torch.where(hidden[:, None], token, values[name])
        return replace(clouds, values=values)

    def _semantics(self, rendered: Rendered, batch: PosedBatch) -> Tensor:
        """Mean of 1 - cosine, or of the cross-entropy of classes, over the rays that hit (and have a label)."""
        assert rendered.features is not None
        if self.config.taxonomy is not None:
            known = rendered.hits[batch.label[rendered.hits] >= 0]
            summed = functional.cross_entropy(rendered.features[known], batch.label[known], reduction="sum")
            return summed / max(1, len(known))
        seen = self._frozen[0](batch.images.float() / 255).float()
        told = rendered.features[rendered.hits]
        wanted = interpolate_at(seen, self.config.teacher_size, batch.image, *batch.place.unbind(1))[rendered.hits]
        return (1 - functional.cosine_similarity(told, wanted, dim=1)).mean()


def _seeds(batch: PosedBatch, device: torch.device) -> Tensor:
    """int64 (R,): one for each ray, by its scene and its number there."""
    counts = torch.tensor(batch.counts)
    scene = torch.repeat_interleave(counts)
    number = torch.arange(len(scene)) - (counts.cumsum(0) - counts)[scene]
    return for_points(batch.seeds, "ray", send(scene, device), send(number, device))


def _error_in_metres(rendered: Rendered, distance: Tensor, unit: Tensor) -> Tensor:
    """Mean error along the rays that hit."""
    return ((rendered.depth - distance).abs() / unit)[rendered.hits].detach().mean()
