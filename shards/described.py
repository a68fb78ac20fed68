"""The layer `described`: figures and descriptors of the scenes of a corpus that was built without them, or with fewer.

It has no fields, only rows: its index has the columns `figures`, `hashes`, `embedding`, `signature` and `place`, which
stand over those of the corpus. Killed, it is run again and goes on; when the corpus is built anew it is refused until
it is written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from brickyard.shards.convert import summary_of
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.encode import FORMAT_VERSION, EncodedScene
from brickyard.shards.errors import CorpusError
from brickyard.shards.index import DESCRIPTORS, FIGURES
from brickyard.shards.layers import Progress, commit_layer, layer_store, open_layer

LAYER = "described"
COLUMNS = tuple(field.name for field in (FIGURES, *DESCRIPTORS))
Columns = Mapping[str, Any]


def write_described(
    corpus: Corpus,
    describe: Callable[[int], Columns],
    *,
    provenance: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Describe every scene and commit the layer; returns its manifest.

    Args:
        describe: row -> value of each of `COLUMNS`; its figures are added to those of the corpus.
        provenance: what made it, as for `write_layer`.

    Raises:
        CorpusError: the folder holds what something else made, or another process writes there.
    """

    def made(row: int) -> EncodedScene:
        columns, summary = describe(row), summary_of(corpus, row)
        figures = dict(summary[FIGURES.name] or []) | dict(columns[FIGURES.name] or [])
        header = json.dumps({"format": FORMAT_VERSION, "fields": {}}, separators=(",", ":")).encode()
        entries = {**summary, **columns, FIGURES.name: sorted(figures.items()) or None}
        return EncodedScene(corpus.header(row).identity, header, {}, entries)

    return commit_layer(corpus, LAYER, made, provenance=provenance, progress=progress)


def described(corpus: Corpus) -> pa.Table:
    """The index with the columns of the layer, where there is one that is committed; in the order of the index. Scenes
    that came after the layer was written have those of the index.

    Raises:
        CorpusError: the layer is damaged, or of another corpus.
    """
    if not layer_store(corpus.store, LAYER).exists(MANIFEST):
        return corpus.index
    layer = open_layer(corpus, LAYER)
    found = [layer.find(key) for key in corpus.keys]  # None for what the corpus has grown by since
    rows = pa.array([len(layer) + row if other is None else other for row, other in enumerate(found)], pa.int64())
    table = corpus.index
    for name in COLUMNS:
        place = table.schema.get_field_index(name)
        both = [one.index.column(name).combine_chunks() for one in (layer, corpus)]
        table = table.set_column(place, table.schema.field(name), pa.concat_arrays(both).take(rows))
    return table


def layer_digest(corpus: Corpus) -> str | None:
    """Digest of the layer, None without one: a selection that was made with it says so."""
    if not layer_store(corpus.store, LAYER).exists(MANIFEST):
        return None
    return str(open_layer(corpus, LAYER).manifest["digest"])


def numbers(table: pa.Table, column: str, declared: Container[str] = ()) -> pa.ChunkedArray | pa.Array:
    """A column of numbers of the index, or a figure, null where unknown.

    Args:
        declared: figures that are all null where no scene has one.

    Raises:
        CorpusError: an unknown name.
    """
    numeric = [f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    if column in numeric:
        return table.column(column)
    figures = table.column(FIGURES.name).combine_chunks()
    names = sorted(pc.unique(figures.keys).to_pylist())
    if column in names:
        return pc.map_lookup(figures, column, "first")
    if column in declared:
        return pa.nulls(len(table), pa.float64())
    raise CorpusError(f"no number {column!r} in the index; there are {', '.join([*numeric, *names])}")


def vectors(table: pa.Table, column: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(float32 (N, D), known bool (N,)) of `embedding` or `signature`, float64 of `place`; null rows are zeros. Raises
    `CorpusError` where lengths differ, or a number is none."""
    lists = table.column(column).combine_chunks()
    known = np.asarray(lists.is_valid(), bool)
    lengths = np.unique(np.asarray(pc.list_value_length(lists).drop_null()))
    if len(lengths) > 1:
        raise CorpusError(f"{column} of some scenes is shorter than of others: describe the corpus again")
    width = int(lengths[0]) if len(lengths) else 0
    found = np.zeros((len(table), width), np.float64 if column == "place" else np.float32)
    if width:
        found[known] = np.asarray(lists.drop_null().flatten()).reshape(-1, width)
    if not np.isfinite(found).all():
        raise CorpusError(f"{column} of some scenes holds what is no number: describe the corpus again")
    return found, known
