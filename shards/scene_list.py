"""A list of scenes: a text file with one name a line, which is a scene's id, its whole key, or its sequence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError

_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class SceneList:
    """Attributes: name: of the file, for messages. names: of scenes or sequences."""

    name: str
    names: frozenset[str]

    def mask(self, corpus: Corpus) -> NDArray[np.bool_]:
        """bool (N,): the scenes of a corpus that are on the list.

        Raises:
            CorpusError: none of them is, so it must be the list of something else.
        """
        columns = (corpus.index.column(name).to_pylist() for name in ("scene_id", "sequence"))
        named = zip(corpus.keys, *columns, strict=True)
        mask = np.array([not self.names.isdisjoint(row) for row in named], bool)
        if not mask.any():
            raise CorpusError(
                f"none of the {len(self.names)} names of {self.name} is a scene or a sequence of {corpus.store.uri};"
                f" its first one is {corpus.keys[0] if len(corpus) else 'nowhere, it is empty'}"
            )
        return mask


def read_scene_list(path: Path) -> SceneList:
    """The list in a file; empty lines do not count. Raises `CorpusError` where it is none."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CorpusError(f"{path} has more than {_MAX_BYTES >> 20} MiB, which no list of scenes has")
        names = frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as problem:
        raise CorpusError(f"{path} cannot be read as a list of scenes: {problem}") from problem
    if not names:
        raise CorpusError(f"{path} lists no scene")
    return SceneList(path.name, names)
