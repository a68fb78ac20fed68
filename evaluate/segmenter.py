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
from torch import Tensor, nn

from brickyard.shards.errors import RecipeError
from brickyard.train.clouds import Cloud, Clouds, join_clouds
from brickyard.train.models.point_decoder import PointDecoder, PointDecoderConfig
from brickyard.train.models.point_transformer import block_of
from brickyard.train.point_student import PointStudent, PointStudentConfig
from brickyard.train.student import Rows, Student, UNetStudent, build_student
from brickyard.train.voxels import representatives

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
        if not isinstance(student, PointStudent | UNetStudent):
            raise RecipeError(f"no classifier is known for a {type(student).__name__}")
        if isinstance(student, PointStudent):
            if kind != "linear":
                self.decoder = _decoder(student, decoder)
        elif kind == "decoder":
            raise RecipeError(
                "a decoder probe trains a decoder on a frozen encoder, but a sparse U-Net was pretrained together with"
                ' its decoder; take "linear" (all of it frozen) or "finetune" (all of it trained)'
            )
        width = student.channels if self.decoder is None else self.decoder.channels
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
            encoded, inverse, chosen = self._encode(clouds, domains, turn)
        if self.decoder is not None:
            features = self.decoder(encoded)
        else:
            features = encoded if isinstance(encoded, Tensor) else encoded.upcast(len(encoded.levels) - 1)
        return Rows(features=self.linear(features).float(), inverse=inverse, representative=chosen)

    def _encode(self, clouds: Clouds, domains: Sequence[str], turn: int) -> tuple[Any, Tensor, Tensor]:
        student = self.student
        if isinstance(student, UNetStudent):
            features, voxels = student(clouds, turn)
            return features, voxels.inverse, voxels.representative
        assert isinstance(student, PointStudent)
        factors = torch.tensor([student.config.scale.get(d, 1.0) for d in domains], device=clouds.xyz.device)
        clouds = replace(clouds, xyz=clouds.xyz * factors[clouds.scene][:, None]).centred()
        cells = clouds.cells(student.config.size)
        inverse, chosen = representatives(clouds.cell_codes(cells), turn)
        return student(clouds.take(chosen), cells=cells[chosen]), inverse, chosen

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
        inner = name.removeprefix("student.network.")
        if inner == name:
            return False
        student = self.student
        return not isinstance(student, PointStudent) or block_of(inner, student.network.config) is not None


def _decoder(student: PointStudent, config: PointDecoderConfig) -> PointDecoder:
    stages = len(student.network.config.channels)
    if len(config.channels) != stages - 1:
        raise RecipeError(
            f"the decoder has {len(config.channels)} stages, but one for an encoder of {stages} has {stages - 1}: set"
            " `decoder` in the protocol's settings"
        )
    return PointDecoder(config, student.network.config, student.device)


def adapted(student: Student, *, grid: float | None, domain: str) -> Student:
    """A copy of the student for a protocol: a point transformer joins all its levels, and its cells have an edge of
    `grid` metres in scenes of this domain, where that is given. (A U-Net keeps the voxels it was trained with.)"""
    config = student.config
    if isinstance(config, PointStudentConfig):
        size = config.size if grid is None else grid * config.scale.get(domain, 1.0)
        config = replace(config, upcast=None, size=size)
    with torch.random.fork_rng(devices=[]):
        copy = build_student(config, student.device)
    copy.load_state_dict(student.state_dict())
    return copy


def voxel_size(student: Student, domain: str) -> float:
    """Edge of a voxel in metres of the scene; of a cylindrical one, along the distance."""
    if isinstance(student.config, PointStudentConfig):
        return float(student.config.size / student.config.scale.get(domain, 1.0))
    return float(student.config.voxels.size[0])
