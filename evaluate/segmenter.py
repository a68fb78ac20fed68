"""A student with a classifier on top: what the supervised protocols train.

    linear     the student's rows, all levels side by side, and one linear layer; the student is frozen
    decoder    a point transformer's frozen encoder, the decoder of `train.models.point_decoder`, a linear layer
    finetune   the same with nothing frozen; the encoder's blocks learn slowly. A sparse U-Net, which has a decoder of
               its own, gets a linear layer

The decoder and the linear layer begin at random, from the protocol's seed. Beside the classes the linear layer may have
outputs that no label asks for: the classifiers of SLidR have one for points without a label, which takes its share of
the softmax in the loss and is never predicted.

A trained segmenter is exported like a student (kind "segmenter"), so `train.students.export.load_exported` gives it
back, whole, to whoever wants predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import nn

from brickyard.shards.errors import RecipeError
from brickyard.train.clouds import Cloud, Clouds, join_clouds
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.students.base import Exported, ExportedConfig, Rows, Student, StudentConfig
from brickyard.train.students.registry import KINDS

Kind = Literal["linear", "decoder", "finetune"]
Frozen = Literal["eval", "train"]


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(ExportedConfig):
    """What a segmenter is made of.

    Attributes:
        student: settings of the student. student_kind: its name in the registry of students.
        classes: their names, in the order of the outputs.
        trained: what of it is trained.
        decoder: sizes of the decoder, where there is one.
        spare: outputs beside the classes.
        frozen_mode: in which a frozen student is while the rest is trained: "eval", or "train", where blocks are left
            out at random (drop path) as in training; batch norms keep their statistics in both.
    """

    kind: ClassVar[str] = "segmenter"

    student: StudentConfig
    student_kind: str = ""
    classes: tuple[str, ...]
    trained: Kind = "linear"
    decoder: PointDecoderConfig = field(default_factory=PointDecoderConfig)
    spare: int = 0
    frozen_mode: Frozen = "eval"

    def __post_init__(self) -> None:
        if self.spare < 0 or self.frozen_mode not in get_args(Frozen):
            raise ValueError("spare must not be negative, frozen_mode must be eval or train")
        object.__setattr__(self, "student_kind", self.student.kind)

    def build(self, device: torch.device | str = "cpu") -> Segmenter:
        return Segmenter(self.student.build(device), self)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        student = KINDS[table["student_kind"]].from_table(dict(table["student"]))
        decoder: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table["decoder"].items()}
        read = {"student": student, "classes": tuple(table["classes"]), "decoder": PointDecoderConfig(**decoder)}
        return cls(**{**table, **read})


class Segmenter(Exported):
    """See the module's text.

    Args:
        student: its own copy, which it may train.
        config: everything else.

    Raises:
        RecipeError: a decoder probe of a student without levels, or a decoder that does not fit the encoder.
    """

    config: SegmenterConfig

    def __init__(self, student: Student, config: SegmenterConfig) -> None:
        super().__init__()
        kind, decoder = config.trained, config.decoder
        self.student, self.config, self.kind, self.decoder = student, config, kind, None
        if kind == "decoder" and student.has_decoder:
            raise RecipeError(
                "a decoder probe trains a decoder on a frozen encoder, but this student was pretrained together with"
                ' its decoder; take "linear" (all of it frozen) or "finetune" (all of it trained)'
            )
        if kind != "linear" and not student.has_decoder:
            self.decoder = student.new_decoder(decoder)
        width: Any = student.channels if self.decoder is None else self.decoder.channels
        self.linear = nn.Linear(width, len(config.classes) + config.spare, device=student.device)
        student.requires_grad_(self.trains_encoder)

    @property
    def trains_encoder(self) -> bool:
        """Whether the student's own weights change."""
        return self.kind == "finetune"

    def train(self, mode: bool = True) -> Segmenter:
        """As in torch, but a frozen student follows `frozen_mode`, and its batch norms keep their statistics."""
        super().train(mode)
        if not self.trains_encoder:
            self.student.train(mode and self.config.frozen_mode == "train")
            for module in self.student.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> Rows:
        """Rows whose features are logits, float32 (V, classes + spare).

        Args:
            clouds: in the metres of the scene, on the student's device. domains: of its scenes.
            turn: see `Student.encode`.
        """
        with nullcontext() if self.trains_encoder else torch.no_grad():
            encoded, cells = self.student.encode_joined(clouds, domains, turn)
            rows = self.student.read_out(encoded, cells) if self.decoder is None else None
        if rows is None:
            assert self.decoder is not None
            rows = Rows(features=self.decoder(encoded), inverse=cells.inverse, representative=cells.representative)
        return replace(rows, features=self.linear(rows.features).float())

    def classify(self, clouds: Sequence[Cloud], turn: int = 0) -> Rows:
        """`forward` of clouds from the stream, for the classes alone; see `evaluate.fragments`."""
        joined = join_clouds(clouds, self.student.inputs, self.student.device)
        rows: Rows = self(joined, [cloud.domain for cloud in clouds], turn)
        return replace(rows, features=rows.features[:, : len(self.config.classes)])

    def is_slow(self, parameter: str) -> bool:
        """Whether a parameter, by its name here, learns slowly in fine-tuning: a point transformer's blocks, or all of
        a U-Net."""
        inner = parameter.removeprefix("student.")
        return inner != parameter and self.student.in_block(inner)


def adapted(student: Student, *, grid: float | None, domain: str) -> Student:
    """A copy of the student for a protocol: a point transformer joins all its levels, and its cells have an edge of
    `grid` metres in scenes of this domain, where that is given. (A U-Net keeps the voxels it was trained with.)"""
    config = student.config.adapted(grid=grid, domain=domain)
    with torch.random.fork_rng(devices=[]):
        copy: Student = config.build(student.device)
    copy.load_state_dict(student.state_dict())
    return copy
