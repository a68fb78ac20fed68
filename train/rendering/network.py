"""A student with all that renders what it encodes: a cloud in, pictures out.

A training by rendering leaves the student behind, as any other; this is what lies beside it, for who wants to see what
the student knows of a scene (protocol `rendering`) and not for anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from brickyard.train.clouds import Cloud, Clouds, join_clouds
from brickyard.train.rendering.renderer import Filled, Renderer, RendererConfig
from brickyard.train.students.base import Exported, ExportedConfig, Student, StudentConfig
from brickyard.train.students.registry import KINDS

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class RenderingConfig(ExportedConfig):
    """Settings.

    Attributes:
        student: of what encodes. student_kind: its name in the registry of students.
        renderer: of what renders.
    """

    kind: ClassVar[str] = "rendering"

    student: StudentConfig
    student_kind: str = ""
    renderer: RendererConfig = field(default_factory=RendererConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "student_kind", self.student.kind)

    def build(self, device: torch.device | str = "cpu") -> RenderingNetwork:
        student = self.student.build(device)
        return RenderingNetwork(student, Renderer(self.renderer, student.channels).to(device))

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        student: Any = KINDS[table["student_kind"]].from_table(dict(table["student"]))
        return cls(student=student, renderer=RendererConfig.from_table(table["renderer"]))


class SceneRenderer(Exported):
    """What renders scenes, whatever of them it is shown.

    Attributes:
        renderer: of its filled volumes.
    """

    renderer: Renderer

    @property
    def fields(self) -> tuple[str, ...]:
        """What it asks of the stream."""
        raise NotImplementedError

    def read(self, sample: Sample, held_out: Sequence[int]) -> Any:
        """What it is shown of a scene, without the views that are held out; raises `UnfitSceneError`."""
        raise NotImplementedError

    def forward(self, shown: Sequence[Any]) -> Filled:
        """Scenes to render, from what `read` gave of each."""
        raise NotImplementedError


class RenderingNetwork(SceneRenderer):
    """See the module's text; the parts are used as they are, not copied."""

    config: RenderingConfig

    def __init__(self, student: Student, renderer: Renderer) -> None:
        super().__init__()
        self.config = RenderingConfig(student=student.config, renderer=renderer.config)
        self.student, self.renderer = student, renderer

    @property
    def fields(self) -> tuple[str, ...]:
        return self.student.fields

    def read(self, sample: Sample, held_out: Sequence[int]) -> Cloud:
        del held_out
        return self.student.read(sample)

    def forward(self, clouds: Sequence[Cloud]) -> Filled:
        """Scenes to render, from their clouds in metres."""
        joined = join_clouds(clouds, self.student.inputs, self.device)
        return filled(self.student, self.renderer, joined, [cloud.domain for cloud in clouds])


def filled(student: Student, renderer: Renderer, clouds: Clouds, domains: Sequence[str]) -> Filled:
    """Scenes to render, from their joined clouds in metres.

    A room is encoded with its middle above the origin and its lowest point at height 0, wherever it lies: as it was in
    training, the voxels of its grid included.
    """
    features, chosen = encoded_rows(student, renderer, clouds, domains)
    frame = renderer.frame(clouds.xyz, clouds.scene, clouds.batch)
    return renderer.fill(features, clouds.xyz[chosen], clouds.scene[chosen], frame)


def encoded_rows(student: Student, renderer: Renderer, clouds: Clouds, domains: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(features of the student's voxels (V, C), the point that stands for each, int64 (V,))."""
    shown = clouds.centred() if renderer.config.range is None else clouds
    rows = student.read_out(*student.encode_joined(shown, domains))
    return rows.features, rows.representative
