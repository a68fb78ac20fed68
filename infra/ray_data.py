"""A corpus as a Ray dataset: metadata and chosen fields of every scene, verified, one row a scene.

    rows = read_corpus("s3://bucket/corpus", fields=("points/xyz", "views/0/image"))

For analysis and batch inference. To train, use `shards.stream`: it keeps the order exact, resumes, reuses its memory,
and is several times faster. Columns are plain Arrow, never Ray's tensor extension types (whose metadata once was code)
nor lists (which Ray turns into a Python object for every number): an array is its bytes, beside its shape and dtype,
and `array(row, field)` puts them together without a copy.

Cost: a task reads a run of neighbouring scenes; a block holds about 64 MB of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from brickyard.shards.codecs import Pairs, Quantised
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.storage import Store

BLOCK_BYTES = 64 << 20
_GROWTH = 3
"""Decoded bytes for a stored one, roughly; Ray plans its memory by it."""


def read_corpus(
    root: str | os.PathLike[str],
    *,
    fields: Sequence[str] = (),
    rows: Sequence[int] | NDArray[np.int64] | None = None,
    parallelism: int = -1,
) -> ray.data.Dataset:
    """The scenes of a corpus, in the order of its index.

    Args:
        root: of the corpus; every node must be able to read it.
        fields: names or patterns ("points/*"). An array becomes three columns, "<field>", "<field>.shape" and
            "<field>.dtype", for the function `array`; quantised ones are float32; correspondences are three arrays
            ("<field>.point" and so on); images are binaries as shipped. A scene without a field has null there.
        rows: of the index; all by default.
        parallelism: read tasks; Ray decides by default.

    Raises:
        CorpusError: there is no such corpus, or no such field in it. Damage found while reading ends Ray's job with a
            `CorruptDataError` that names shard, scene and field.
    """
    return ray.data.read_datasource(
        CorpusDatasource(root, fields=fields, rows=rows), override_num_blocks=None if parallelism < 1 else parallelism
    )


def array(row: Mapping[str, Any], field: str) -> NDArray[Any]:
    """The array of a field of a row, in its shape; read-only."""
    return np.frombuffer(row[field], row[f"{field}.dtype"]).reshape(tuple(row[f"{field}.shape"]))


class CorpusDatasource(Datasource):  # type: ignore[misc]
    """For `ray.data.read_datasource`; arguments as those of `read_corpus`."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fields: Sequence[str] = (),
        rows: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__()
        self._corpus = Corpus.open(root)
        self._rows = np.arange(len(self._corpus)) if rows is None else np.sort(np.asarray(rows, np.int64))
        names = sorted({name for row in self._rows.tolist() for name in self._corpus.addresses(row)})
        if idle := [pattern for pattern in fields if not any(fnmatchcase(name, pattern) for name in names)]:
            raise CorpusError(f"no scene of {self._corpus.store.uri} has a field {idle[0]!r}; there are {names}")
        self._fields = [name for name in names if any(fnmatchcase(name, pattern) for pattern in fields)]

    def get_name(self) -> str:
        return "Brickyard"

    def _bytes(self, rows: NDArray[np.int64]) -> int:
        sizes = 0
        for row in rows.tolist():
            places = self._corpus.addresses(row)
            sizes += 1000 + sum(places[name].length for name in self._fields if name in places)
        return _GROWTH * sizes

    def estimate_inmemory_data_size(self) -> int:
        return self._bytes(self._rows)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        parts = np.array_split(self._rows, max(1, min(parallelism, len(self._rows))))
        return [
            ReadTask(
                _reader(self._corpus.store, part, self._fields, per_task_row_limit),
                BlockMetadata(num_rows=len(part), size_bytes=self._bytes(part), input_files=None, exec_stats=None),
            )
            for part in parts
            if len(part)
        ]


def _reader(
    store: Store, rows: NDArray[np.int64], fields: Sequence[str], limit: int | None
) -> Callable[[], Iterator[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        """Blocks; runs in a worker of Ray, which opens the corpus for itself."""
        corpus = Corpus.open(store)
        block: list[pa.Table] = []
        for row in rows[:limit].tolist():
            block.append(_row(corpus, row, fields))
            if sum(table.nbytes for table in block) > BLOCK_BYTES:
                yield pa.concat_tables(block, promote_options="permissive")
                block = []
        if block:
            yield pa.concat_tables(block, promote_options="permissive")

    return read


def _row(corpus: Corpus, row: int, fields: Sequence[str]) -> pa.Table:
    """A table of one row."""
    index = corpus.index.slice(row, 1).drop_columns(["shard", "blobs"])
    columns: dict[str, pa.Array] = {name: index.column(name).combine_chunks() for name in index.column_names}
    header, places = corpus.header(row), corpus.addresses(row)
    for field in fields:
        if field not in header.fields:
            continue
        value = corpus.read_field(row, header, field, places)
        if isinstance(value, Pairs):
            for name, part in value._asdict().items():
                columns |= _array_columns(f"{field}.{name}", part)
        elif isinstance(value, Quantised):
            columns |= _array_columns(field, value.dequantise())
        elif isinstance(value, np.ndarray):
            columns |= _array_columns(field, value)
        else:
            columns[field] = pa.array([bytes(value)], pa.large_binary())
    return pa.table(columns)


def _array_columns(name: str, value: NDArray[Any]) -> dict[str, pa.Array]:
    return {
        name: pa.array([value.tobytes()], pa.large_binary()),
        f"{name}.shape": pa.array([list(value.shape)], pa.list_(pa.int64())),
        f"{name}.dtype": pa.array([value.dtype.str]),
    }
