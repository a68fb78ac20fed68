"""A seal: the digest of a Parquet file inside that very file, over every byte of it.

Parquet's page checksums cover pages; its footer, which says what type a column has and where its pages lie, is covered
by nothing, and neither are the notes kept in it. A file that no manifest vouches for (the record of a part, a
selection) therefore carries 16 hex digits in its metadata: the xxh3-64 of the file with zeros in their place. Stock
readers see one more metadata entry. Costs one pass over the file, 24 GB/s.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from brickyard.shards.errors import CorpusError
from brickyard.shards.guard import open_parquet
from brickyard.shards.storage import Store, digest64

UNSEALED = {"brickyard-seal": "xxh3-64:" + 16 * "0"}
"""Metadata that a writer adds to a file before it is sealed."""

_MARK = b"xxh3-64:"
_DIGITS = 16


def write_sealed(
    table: pa.Table, note: Mapping[str, str], rows: int = 8192, *, use_dictionary: bool = True
) -> pa.Buffer:
    """A sealed Parquet file that its readers accept, with so many rows in a group.

    What compresses far better than honest tables do (one long text in every row) is refused by `shards.guard` as a bomb
    would be; it is written as it is. Raises `ValueError` for what is refused even so.
    """
    for options in (
        {"compression": "zstd", "use_dictionary": use_dictionary},
        {"compression": "none", "use_dictionary": False},
    ):
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, table.schema, write_page_checksum=True, store_schema=False, **options) as out:
            out.add_key_value_metadata({**note, **UNSEALED})
            if len(table):  # an empty row group has pages nowhere, which the guard refuses
                out.write_table(table, row_group_size=rows)
        data = seal(sink.getvalue())
        try:
            open_parquet(data.to_pybytes())
        except (pa.ArrowException, OSError, ValueError) as problem:
            refused = problem
        else:
            return data
    raise ValueError(f"a table that no reader would accept: {refused}")


def read_sealed(store: Store, name: str, most: int) -> bytes:
    """A sealed file of a store, of at most so many bytes. Raises `CorpusError` naming one that is missing, larger or
    damaged."""
    size = store.size(name)
    if size is None or size > most:
        raise CorpusError(
            f"{store.uri}/{name} " + ("does not exist" if size is None else f"has {size} bytes, too many")
        )
    data = store.read(name, whole=is_whole)
    if not is_whole(data):
        raise CorpusError(f"{store.uri}/{name} is damaged: its bytes are not the ones that were sealed")
    return data


def seal(data: pa.Buffer) -> pa.Buffer:
    """The file, written with `UNSEALED` among its metadata, with its digest filled in."""
    whole = bytearray(memoryview(data))
    start = whole.rindex(_MARK + _DIGITS * b"0") + len(_MARK)
    whole[start : start + _DIGITS] = f"{digest64(whole):016x}".encode()
    return pa.py_buffer(bytes(whole))


def is_whole(data: bytes) -> bool:
    """Whether a sealed file is, to the last bit, what was sealed; False also for a file without a seal."""
    start = data.rfind(_MARK) + len(_MARK)
    if start < len(_MARK):
        return False
    empty = bytearray(data)
    empty[start : start + _DIGITS] = _DIGITS * b"0"
    return data[start : start + _DIGITS] == f"{digest64(empty):016x}".encode()
