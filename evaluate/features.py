"""Features of a frozen student over the scenes of a corpus: every scene goes through the network once.

The probes (linear, nearest neighbours, geometry) read the same features, so an `Encoder` keeps what it has computed
while its memory lasts and computes the rest again. What it gives of a scene are the rows of the student and, for its
points, labels and the geometry that a shortcut would know: the height above the floor, and the normal where there is
one.

Two students are baselines. `random_student` is the network a run started from. `RawStudent` is no network at all: its
features are what the scene brings itself, colour, height and so on, on the same cells as the student it stands beside;
what a linear layer reads from those nobody has to learn.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brickyard.evaluate.labels import label_field, read_labels, row_labels
from brickyard.evaluate.splits import DataConfig, LabelledPoints
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.stream import Stream
from brickyard.train.clouds import MODALITIES, Cloud, Clouds, Input, channels, point_features, read_cloud
from brickyard.train.students.base import Cells, Exported, Rows, Student

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample

N_co = TypeVar("N_co", bound=Exported, covariant=True)

FLOOR = 0.01
"""Share of a scene's points that may lie below its floor."""


@dataclass(frozen=True, kw_only=True)
class EncodedScene:
    """A scene of V rows and N points.

    Attributes:
        key: of the scene.
        rows: of the student.
        labels: int64 (N,).
        xyz: float32 (N, 3), metres, or None where targets were not asked for.
        height: float32 (N,), metres above the floor (the height above which all but 1 % of the points lie), or None.
        normal: float32 (N, 3), or None where there is none.
    """

    key: str
    rows: Rows
    labels: Tensor
    xyz: Tensor | None = None
    height: Tensor | None = None
    normal: Tensor | None = None

    def to(self, device: torch.device) -> EncodedScene:
        """The same on another device."""
        moved: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, rows=self.rows.to(device), **moved)

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return sum(v.nbytes for part in (vars(self), vars(self.rows)) for v in part.values() if isinstance(v, Tensor))


class Encoder:
    """A frozen student and the scenes it has seen.

    Args:
        student: in evaluation mode; it is used as it is.
        taxonomy: of the labels.
        threads: of the stream.
        keep_gib: memory for scenes that are kept.
        targets: whether `xyz`, `height` and `normal` are read too.
    """

    def __init__(
        self,
        student: Student,
        corpus: Corpus,
        taxonomy: str,
        *,
        threads: int = 2,
        keep_gib: float = 0.0,
        targets: bool = False,
    ) -> None:
        self.student, self.corpus, self.taxonomy, self.targets = student, corpus, taxonomy, targets
        self._threads, self._left = threads, keep_gib * 2**30
        self._kept: dict[int, EncodedScene] = {}

    def scenes(self, rows: NDArray[np.int64]) -> Iterator[EncodedScene]:
        """The scenes in the order of `rows`, on the student's device."""
        missing = [row for row in rows.tolist() if row not in self._kept]
        fresh = self._encode(missing)
        for row in rows.tolist():
            if row in self._kept:
                yield self._kept[row].to(self.student.device)
                continue
            scene = next(fresh)
            if scene.bytes <= self._left:
                self._left -= scene.bytes
                self._kept[row] = scene.to(torch.device("cpu"))
            yield scene
        fresh.close()

    def _encode(self, rows: Sequence[int]) -> Generator[EncodedScene, None, None]:
        if not rows:
            return
        fields = (*self.student.fields, label_field(self.taxonomy), *(("points/normal",) if self.targets else ()))
        stream = Stream(
            self.corpus,
            fields,
            batch=1,
            rows=rows,
            threads=self._threads,
            prepare=self._prepare,
            epochs=1,
            shuffle=False,
        )
        device = self.student.device
        for items in stream:
            for cloud, labels, targets in items:
                with torch.no_grad():
                    encoded = self.student.encode([cloud])
                scene = EncodedScene(key=cloud.key, rows=encoded, labels=labels, **targets)
                yield scene.to(device)

    def _prepare(self, sample: Sample, rng: np.random.Generator) -> tuple[Cloud, Tensor, dict[str, Tensor]]:
        del rng
        cloud, labels = self.student.read(sample), read_labels(sample, self.taxonomy)
        if not self.targets:
            return cloud, labels, {}
        shape = read_cloud(sample, ("xyz", "normal", "valid"))
        targets = {"xyz": shape.xyz, "height": shape.xyz[:, 2] - floor_of(shape.xyz)}
        if "normal" in shape.values:
            targets["normal"] = shape.values["normal"]
        return cloud, labels, targets


def training_set(
    encoder: Encoder,
    config: DataConfig,
    rows: NDArray[np.int64],
    *,
    voxels_per_scene: int | None,
    seed: int,
    cache_gib: float,
) -> tuple[Tensor, Tensor]:
    """Features and labels of the labelled voxels of all training scenes."""
    features, labels, size = [], [], 0
    generator = torch.Generator().manual_seed(seed)
    kept = LabelledPoints(config)
    for scene in encoder.scenes(rows):
        label = row_labels(scene, kept)
        chosen = (label != UNLABELLED).nonzero().squeeze(1)
        if voxels_per_scene is not None:
            order = torch.randperm(len(chosen), generator=generator)[:voxels_per_scene]
            chosen = chosen[order.to(chosen.device)]
        features.append(scene.rows.features[chosen])
        labels.append(label[chosen])
        size += features[-1].nbytes
        if size > cache_gib * 2**30:
            raise RecipeError(
                f"training features exceed {cache_gib} GiB; raise cache_gib or lower scenes or voxels_per_scene"
            )
    joined = torch.cat(features)
    if not len(joined):
        raise RecipeError(f"no point of split {config.train_split!r} has a label of {config.taxonomy!r}")
    return joined, torch.cat(labels)


def floor_of(xyz: Tensor) -> float:
    """The height above which all but 1 % of the points lie, metres."""
    return float(xyz[:, 2].kthvalue(1 + int(FLOOR * (len(xyz) - 1))).values) if len(xyz) else 0.0


class _Builds(Protocol[N_co]):
    """Settings that make a network, see `train.students.base.ExportedConfig`."""

    def build(self, device: torch.device | str = "cpu") -> N_co: ...


def random_student(config: _Builds[N_co], seed: int, device: torch.device | str = "cpu") -> N_co:
    """The student (or other network) that a training run with this seed starts from.

    Torch's random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build(device)


def frozen(student: Student, corpus: Corpus, rows: NDArray[np.int64], *, measure: bool, threads: int = 2) -> Student:
    """A copy in evaluation mode; with `measure`, its batch norms know the scenes in `rows` (see `calibrate`)."""
    student = copy.deepcopy(student).eval()
    if measure:
        calibrate(student, corpus, rows, threads=threads)
    return student.requires_grad_(False)


def calibrate(student: Student, corpus: Corpus, rows: NDArray[np.int64], *, threads: int = 2, batch: int = 4) -> None:
    """Set the running statistics of every batch norm, in place, to their mean over batches of the scenes in `rows`."""
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    if not norms:
        return

    def prepare(sample: Sample, rng: np.random.Generator) -> Cloud:
        del rng
        return student.read(sample)

    stream = Stream(
        corpus, student.fields, batch=batch, rows=rows, threads=threads, prepare=prepare, epochs=1, shuffle=False
    )
    student.train()
    with torch.no_grad():
        for items in stream:
            student.encode(items)
    student.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class RawStudent(Student):
    """No network: the inputs themselves as features, on the cells of another student.

    Args:
        like: the student whose cells are used.
        inputs: what is taken; see `raw_inputs`. "height" is counted from the scene's lowest point.
    """

    def __init__(self, like: Student, inputs: Sequence[Input]) -> None:
        super().__init__()
        self.config, self.channels, self._inputs = like.config, channels(inputs), tuple(inputs)
        self._like = [like]  # in a list: it is no part of this one
        self.place = nn.Parameter(torch.zeros(1, device=like.device), requires_grad=False)

    @property
    def inputs(self) -> tuple[Input, ...]:
        return self._inputs

    def encode_joined(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> tuple[Tensor, Cells]:
        cells = self._like[0].cells(clouds, domains, turn)
        return point_features(clouds.centred(), self.inputs)[cells.representative], cells

    def read_out(self, encoded: Tensor, cells: Cells) -> Rows:
        return Rows(features=encoded, inverse=cells.inverse, representative=cells.representative)


def raw_inputs(corpus: Corpus, rows: NDArray[np.int64]) -> tuple[Input, ...]:
    """Height, and of colour, normal and intensity those that every scene of `rows` has."""
    names = set(MODALITIES)
    for row in rows.tolist():
        names &= {field.removeprefix("points/") for field in corpus.addresses(row)}
    if "intensity" in names and any(
        (corpus.header(row).points or {}).get("intensity_unit") not in ("unit", "byte") for row in rows[:1].tolist()
    ):
        names.discard("intensity")
    known: tuple[Input, ...] = ("color", "normal", "intensity")
    return ("height", *(name for name in known if name in names))
