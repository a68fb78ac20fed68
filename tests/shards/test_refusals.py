"""What a curation left out, on disk: read back as written, and never believed when damaged or made with bad intent."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.errors import CorpusError
from brickyard.shards.refusals import read_refusals, write_refusals
from brickyard.shards.seal import UNSEALED, seal
from brickyard.shards.selection import read_selection
from brickyard.shards.storage import Store

NAME = "v1-out.parquet"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("refusals")
    write_refusals(Store(folder), NAME, "digest", ["a/1", "a/2"], ["guard: of the official val split", "other"])
    return (folder / NAME).read_bytes()


@given(st.dictionaries(st.text("abc/123", min_size=1), st.text(), max_size=20))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, reasons: dict[str, str]) -> None:
    store = Store(tmp_path_factory.mktemp("refusals"))
    write_refusals(store, NAME, "digest", list(reasons), list(reasons.values()))
    assert read_refusals(store, NAME) == reasons


def test_every_damaged_byte_is_noticed(tmp_path: Path, written: bytes) -> None:
    for place in range(len(written)):
        (tmp_path / NAME).write_bytes(written[:place] + bytes([written[place] ^ 16]) + written[place + 1 :])
        with pytest.raises(CorpusError, match=NAME):
            read_refusals(Store(tmp_path), NAME)
    (tmp_path / NAME).write_bytes(written[:-9])
    with pytest.raises(CorpusError, match="is damaged"):
        read_refusals(Store(tmp_path), NAME)
    with pytest.raises(CorpusError, match="does not exist"):
        read_refusals(Store(tmp_path), "none.parquet")


def sealed(table: pa.Table, note: dict[str, str]) -> bytes:
    """A whole file, of whoever made it: its seal is right."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.add_key_value_metadata(note | UNSEALED)
        writer.write_table(table)
    return bytes(seal(sink.getvalue()))


GOOD = {"key": ["a/1"], "reason": ["why"]}
NOTE = {"brickyard-refusals": '{"corpus": "x"}'}
HOSTILE = {
    "no note": (GOOD, {}),
    "a note that is none": (GOOD, {"brickyard-refusals": "[" * 10_000}),
    "another file's note": (GOOD, {"brickyard-selection": '{"corpus": "x", "about": {}}'}),
    "a note of numbers": (GOOD, {"brickyard-refusals": '{"corpus": 7}'}),
    "no reasons": ({"key": ["a/1"]}, NOTE),
    "keys that are lists": (GOOD | {"key": [["a/1"]]}, NOTE),
    "keys that are unknown": (GOOD | {"key": pa.array([None], pa.string())}, NOTE),
    "one key, two reasons": ({"key": ["a/1", "a/1"], "reason": ["why", "not"]}, NOTE),
    "far larger than its size": (GOOD | {"key": ["k"] * 3000, "reason": ["x" * 100_000] * 3000}, NOTE),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_somebody_made_with_bad_intent_is_refused(tmp_path: Path, name: str) -> None:
    columns, note = HOSTILE[name]
    (tmp_path / NAME).write_bytes(sealed(pa.table(columns), note))
    with pytest.raises(CorpusError, match=NAME):
        read_refusals(Store(tmp_path), NAME)


def test_refusals_are_no_selection_and_no_selection_is_read_for_one(tmp_path: Path, written: bytes) -> None:
    (tmp_path / NAME).write_bytes(written)
    with pytest.raises(CorpusError, match="no selection"):
        read_selection(Store(tmp_path), NAME)
