"""Lost blocks: found wherever they begin, told from ordinary zeros by their length."""

import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from brickyard.ingest.blank import PAGE, SECTOR, blank_records, zero_runs


def naive_runs(data, least):
    runs, start = [], None
    for place, byte in enumerate([*data, 1]):
        if byte == 0 and start is None:
            start = place
        elif byte != 0 and start is not None:
            if place - start >= least:
                runs.append((start, place))
            start = None
    return runs


pieces = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 90)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(pieces, st.integers(16, 70), st.integers(0, 90), st.integers(1, 20))
def test_runs_and_records_equal_a_loop_over_the_bytes(pieces, least, tail, size):
    data = b"".join(bytes(zeros) + b"\x07" * others for zeros, others in pieces) + bytes(tail)
    expected = naive_runs(data, least)
    assert zero_runs(data, least).tolist() == [list(run) for run in expected]
    data = data[: len(data) // size * size]
    expected = naive_runs(data, least)
    touched = [any(a < (i + 1) * size and b > i * size for a, b in expected) for i in range(len(data) // size)]
    assert blank_records(data, size, least).tolist() == touched


@pytest.mark.parametrize("place", [0, 1, 4096, 4099, 12_345, 60_000 - 4096])
def test_a_lost_page_takes_every_record_it_touches_and_no_other(place):
    records = np.random.default_rng(0).uniform(0.5, 50, (3750, 4)).astype("<f4")
    raw = bytearray(records.tobytes().replace(b"\0", b"\1"))
    raw[place : place + PAGE] = bytes(PAGE)
    assert np.flatnonzero(blank_records(bytes(raw), 16)).tolist() == list(range(place // 16, -(-(place + PAGE) // 16)))


def test_records_without_return_here_and_there_are_no_lost_block():
    records = np.ones((1000, 4), "<f4")
    records[100:131] = 0  # 31 records of 16 bytes: less than a sector
    records[::7] = 0
    assert not blank_records(records, 16).any()
    records[100:132] = 0
    assert blank_records(records, 16)[100:132].all() and SECTOR == 32 * 16


def test_an_array_may_be_empty_all_zero_or_unaligned():
    assert blank_records(b"", 16).shape == (0,)
    assert blank_records(np.zeros((64, 4), "<f4"), 16).all()
    assert not blank_records(np.zeros((4, 4), "<f4"), 16).any()
    odd = np.frombuffer(b"x" + bytes(1600), np.uint8)[1:]
    assert blank_records(odd, 16).all()


def test_half_a_record_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="no whole number of records"):
        blank_records(bytes(17), 16)
    with pytest.raises(ValueError, match="16 is the least"):
        zero_runs(bytes(17), 8)


@pytest.mark.parametrize("kind", ["floats", "small numbers"])
def test_a_byte_costs_less_than_a_nanosecond(kind):
    rng = np.random.default_rng(0)
    size = 2 << 20
    data = rng.normal(size=size).astype("<f4") if kind == "floats" else rng.integers(0, 20, size).astype("<u4")
    best = min(_seconds(data) for _ in range(5))
    assert best < 1e-9 * data.nbytes, f"{best / data.nbytes * 1e9:.3f} ns a byte"


def _seconds(data):
    start = time.thread_time()
    blank_records(data, 4)
    return time.thread_time() - start
