"""What is predicted for a scene, and what a writer for an official server does with it.

A writer gives every scene one file below the root of what is handed in, and reads it again the way the official tool
does. Before that, an answer is held against the raw file: the server counts its points, so a scene from which a reader
left points out, or a piece that was cut out of one, has no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.predictions.archive import read_members, write_zip
from brickyard.evaluate.predictions.inverse import Inverse, inverse
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.scene import Identity
from brickyard.shards.taxonomy import taxonomy

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The classes of one scene.

    Attributes:
        identity: of the scene.
        classes: integers (N,) of the writer's taxonomy, in the order of the raw file.
        raw_points: how many the raw file holds, as itself says.
        dropped: what the reader left out, for messages.
        part: whether the scene is a piece of a larger one.
        token: of nuScenes' sample_data, which names the file.
        measured: of Waymo, bool (H, W) for both returns of the top lidar: which pixels are points. Row by row, those of
            the first return and then those of the second are the raw points.
    """

    identity: Identity
    classes: NDArray[Any]
    raw_points: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    part: bool = False
    token: str = ""
    measured: tuple[Mask, ...] = ()


class Writer:
    """One target. Subclasses set the attributes and give names and bytes.

    Args:
        folder: set of the benchmark in its own words, where the files' names hold it.
        about: what the server asks beside the predictions, as `fields` says.

    Attributes:
        name: of the target.
        datasets: of which it takes scenes.
        taxonomy: of the classes.
        tool: by whose convention it is scored (see `evaluate.conventions`).
        official: set -> how many files the server waits for.
        fields: what may stand in `about` -> its type.
        scene_id: what the ids of its scenes look like, a regular expression; they become names of files.
    """

    name: ClassVar[str]
    datasets: ClassVar[tuple[str, ...]]
    taxonomy: ClassVar[str]
    tool: ClassVar[str]
    official: ClassVar[Mapping[str, int]] = MappingProxyType({})
    fields: ClassVar[Mapping[str, type]] = MappingProxyType({})
    scene_id: ClassVar[str]

    def __init__(self, folder: str, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.about = folder, dict(about or {})
        for key, value in self.about.items():
            wanted = self.fields.get(key)
            if wanted is None or type(value) is not wanted:
                known = ", ".join(f"{k} ({t.__name__})" for k, t in self.fields.items()) or "nothing"
                raise RecipeError(f"{self.name}: the server asks no {key} of {value!r}; it asks {known}")

    @property
    def packed(self) -> str:
        """Name of what is handed in."""
        return "submission.zip"

    @property
    def inverse(self) -> Inverse:
        return inverse(self.taxonomy)

    def check(self, answer: Answer) -> None:
        """Raise `BrickyardError` where an answer is none to the raw file of its scene."""
        identity, count = answer.identity, len(answer.classes)
        if answer.part:
            raise BrickyardError(f"{identity.key} is a piece of a larger scene: build without chunks to predict it")
        if identity.dataset not in self.datasets or not re.fullmatch(self.scene_id, identity.scene_id):
            raise BrickyardError(
                f"{identity.key} is no scene of {' or '.join(self.datasets)} in its own layout, which {self.name} takes"
            )
        if count != answer.raw_points:
            left = ", ".join(f"{number} {reason}" for reason, number in answer.dropped.items())
            raise BrickyardError(
                f"{identity.key}: {count} points of the corpus for {answer.raw_points} of the raw file, and"
                f" {self.name} wants an answer for each"
                + (f"; the reader noted: {left}" if left else "; were other points or options chosen in the build?")
            )
        classes = len(taxonomy(self.taxonomy).classes)
        if answer.classes.ndim != 1 or answer.classes.dtype.kind not in "iu":
            raise BrickyardError(f"{identity.key}: predictions must be integers (N,), found {answer.classes.dtype}")
        if count and not 0 <= answer.classes.min() <= answer.classes.max() < classes:
            raise BrickyardError(
                f"{identity.key}: classes {answer.classes.min()}..{answer.classes.max()}, of {self.taxonomy} there are"
                f" 0..{classes - 1}"
            )

    def file(self, answer: Answer) -> str:
        """Name of its file below the root, with forward slashes."""
        raise NotImplementedError

    def encode(self, answer: Answer) -> bytes:
        """Bytes of its file."""
        raise NotImplementedError

    def decode(self, data: bytes) -> NDArray[np.int64]:
        """Classes (N,) as the official tool reads them from a file, UNLABELLED for ids that it does not know."""
        raise NotImplementedError

    def more(self) -> Mapping[str, bytes]:
        """Files that belong to no scene."""
        return {}

    def pack(self, root: Path, files: Sequence[str], out: Path) -> None:
        """Make what is handed in of the files below `root`."""
        write_zip(out, root, files)

    def unpack(self, out: Path, files: Sequence[str]) -> Iterator[bytes]:
        """The bytes of files in what `pack` made, in their order."""
        return read_members(out, files)
