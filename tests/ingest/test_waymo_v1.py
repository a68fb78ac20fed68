"""Waymo v1: checksums, the wire format, planning by headers, truncation and damage."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.ingest.waymo_toy as toy
from brickyard.ingest.source import Missing, SceneRef
from brickyard.ingest.waymo import v1
from brickyard.ingest.waymo.tfrecord import crc32c, masked_crc
from brickyard.ingest.waymo.wire import Message, WireError, inflate, unpack_varints
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store
from tests.ingest.waymo_reading import planned, refs


def test_crc_vector() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9000), st.integers(0, 1 << 32))
def test_crc_of_any_length(length: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(length)
    assert masked_crc(data) == toy.slow_crc(data)


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1)))
def test_packed_integers(values: list[int]) -> None:
    packed = b"".join(toy.varint(value) for value in values)
    assert unpack_varints(packed).tolist() == [value & (1 << 64) - 1 for value in values]
    for data in (toy.put(3, packed), toy.repeat(3, values)):
        assert Message(memoryview(data)).integers(3).tolist() == values


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        unpack_varints(data)
    with contextlib.suppress(WireError):
        message = Message(memoryview(data))
        for decode in (message.doubles, message.integers, message.floats, message.integer, message.double):
            for field in range(4):
                with contextlib.suppress(WireError):
                    decode(field)


def test_packed_doubles_and_bombs() -> None:
    values = [0.5, -2.25]
    assert Message(memoryview(toy.put(2, np.array(values).tobytes()))).doubles(2).tolist() == values
    assert Message(memoryview(toy.repeat(2, values))).doubles(2).tolist() == values
    with pytest.raises(WireError, match="more than 1000 bytes"):
        inflate(memoryview(toy.zlib.compress(bytes(1 << 20))), 1000, "bomb")


def test_plan_v1_reads_only_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write_v1(tmp_path, [toy.toy_frame(n) for n in range(3)])
    lengths = []
    original = Store.read_range
    monkeypatch.setattr(
        Store, "read_range", lambda s, n, o, count: (lengths.append(count), original(s, n, o, count))[1]
    )
    assert len(refs("v1", tmp_path)) == 3 and lengths == [12, 12, 12]


def test_truncated_segment(tmp_path: Path) -> None:
    file = toy.write_v1(tmp_path, [toy.toy_frame(n) for n in range(3)])
    whole = file.read_bytes()
    last = refs("v1", tmp_path)[-1]
    for size in (len(whole) - 1, last.details["offset"] + 5):
        file.write_bytes(whole[:size])
        items = planned("v1", tmp_path)
        assert [type(item) for item in items] == [SceneRef, SceneRef, Missing]
        assert isinstance(items[2], Missing) and "truncated" in items[2].reason and items[2].scene_id == last.scene_id
    with pytest.raises(RawDataError, match="file ends after"):
        v1.read(last)
    file.write_bytes(b"")
    assert isinstance(planned("v1", tmp_path)[0], Missing)


def test_bad_checksums(tmp_path: Path) -> None:
    file = toy.write_v1(tmp_path, [toy.toy_frame(n) for n in range(3)])
    whole, items = file.read_bytes(), refs("v1", tmp_path)
    offset, length = items[1].details["offset"], items[1].details["length"]

    def flip(place: int) -> None:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])

    for place in (offset + 12 + length // 2, offset + 12 + length + 2):
        flip(place)
        with pytest.raises(RawDataError, match="bad checksum of the record's payload") as caught:
            v1.read(items[1])
        assert caught.value.offset == offset
        v1.read(items[2])  # the others are still there
    flip(offset + 1)
    with pytest.raises(RawDataError, match="its header has a bad checksum"):
        v1.read(items[1])
    found = planned("v1", tmp_path)
    assert [type(item) for item in found] == [SceneRef, Missing] and "later frames cannot be found" in found[1].reason
