"""A student with a classifier on top: what the supervised protocols train.

    linear     the student's rows, all levels side by side, and one linear layer; the student is frozen
    decoder    a point transformer's frozen encoder, the decoder of `train.models.point_decoder`, a linear layer
    finetune   the same with nothing frozen; the encoder's blocks learn slowly. A sparse U-Net, which has a decoder of
               its own, gets a linear layer

The decoder and the linear layer begin at random, from the protocol's seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from brickyard.shards.errors import RecipeError
from brickyard.train.clouds import Cloud, Clouds, join_clouds
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.students.base import Rows, Student

Kind = Literal["linear", "decoder", "finetune"]


class Segmenter(nn.Module):
    """See the module's text.

    Args:
        student: its own copy, which it may train.
        classes: their number.
        kind: what is trained.
        decoder: sizes of the decoder.

    Raises:
        RecipeError: a decoder probe of a student without levels, or a decoder that does not fit the encoder.
    """

    def __init__(self, student: Student, classes: int, kind: Kind, decoder: PointDecoderConfig) -> None:
        super().__init__()
        self.student, self.kind, self.decoder = student, kind, None
        if kind == "decoder" and student.has_decoder:
            raise RecipeError(
                "a decoder probe trains a decoder on a frozen encoder, but this student was pretrained together with"
                ' its decoder; take "linear" (all of it frozen) or "finetune" (all of it trained)'
            )
        if kind != "linear" and not student.has_decoder:
            self.decoder = student.new_decoder(decoder)
        width: Any = student.channels if self.decoder is None else self.decoder.channels
        self.linear = nn.Linear(width, classes, device=student.device)
        student.requires_grad_(self.trains_encoder)

    @property
    def trains_encoder(self) -> bool:
        """Whether the student's own weights change."""
        return self.kind == "finetune"

    def train(self, mode: bool = True) -> Segmenter:
        """As in torch, but what is frozen stays in evaluation mode (drop path, statistics of batch norms)."""
        super().train(mode)
        if not self.trains_encoder:
            self.student.eval()
        return self

    def forward(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> Rows:
        """Rows whose features are logits, float32 (V, classes).

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
        """`forward` of clouds from the stream; see `evaluate.fragments`."""
        joined = join_clouds(clouds, self.student.inputs, self.student.device)
        rows: Rows = self(joined, [cloud.domain for cloud in clouds], turn)
        return rows

    def groups(self, encoder_rate: float) -> Iterator[tuple[float, list[nn.Parameter]]]:
        """(factor on the learning rate, trained parameters): a point transformer's blocks, or all of a U-Net, learn at
        `encoder_rate`, everything else at 1."""
        slow: list[nn.Parameter] = []
        fast: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                (slow if self._is_slow(name) else fast).append(parameter)
        for rate, parameters in ((1.0, fast), (encoder_rate, slow)):
            if parameters:
                yield rate, parameters

    def _is_slow(self, name: str) -> bool:
        inner = name.removeprefix("student.")
        return inner != name and self.student.in_block(inner)


def adapted(student: Student, *, grid: float | None, domain: str) -> Student:
    """A copy of the student for a protocol: a point transformer joins all its levels, and its cells have an edge of
    `grid` metres in scenes of this domain, where that is given. (A U-Net keeps the voxels it was trained with.)"""
    config = student.config.adapted(grid=grid, domain=domain)
    with torch.random.fork_rng(devices=[]):
        copy: Student = config.build(student.device)
    copy.load_state_dict(student.state_dict())
    return copy
