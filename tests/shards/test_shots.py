"""Shots of synthetic footage: cuts are found at their frame, and nothing else is taken for one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from brickyard.shards.shots import SIDE, find_shots, motion

Small = NDArray[np.uint8]


def _footage(count: int, seed: int, speed: float = 0.3, noise: float = 2.0) -> Small:
    """A smooth landscape seen through a moving window, as small pictures, with sensor noise."""
    rng = np.random.default_rng(seed)
    phase, wave = rng.uniform(0, 6, (3, 2, 4)), rng.uniform(0.1, 0.6, (3, 2, 4))
    frames = np.empty((count, SIDE, SIDE, 3))
    y, x = np.mgrid[:SIDE, :SIDE]
    for frame in range(count):
        for channel in range(3):
            a, b = wave[channel], phase[channel]
            value = sum(
                np.sin(a[0, k] * (x + speed * frame) + b[0, k]) * np.cos(a[1, k] * y + b[1, k]) for k in range(4)
            )
            frames[frame, ..., channel] = 128 + 50 * value
    return np.clip(frames + rng.normal(0, noise, frames.shape), 0, 255).astype(np.uint8)


@given(lengths=st.lists(st.integers(3, 40), min_size=1, max_size=5), seed=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_every_cut_is_found_at_its_frame(lengths: list[int], seed: int) -> None:
    small = np.concatenate([_footage(length, 1000 * seed + k) for k, length in enumerate(lengths)])
    edges = np.cumsum([0, *lengths]).tolist()
    assert find_shots(small) == list(pairwise(edges))


@pytest.mark.parametrize("speed", [0.0, 0.5, 2.0, 4.0])
def test_a_pan_is_one_shot_however_fast(speed: float) -> None:
    for seed in range(10):
        assert find_shots(_footage(60, seed, speed)) == [(0, 60)]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length: int) -> None:
    small = _footage(30, 3)
    small[12 : 12 + length] = np.minimum(small[12 : 12 + length].astype(int) + 120, 255)
    assert find_shots(small) == [(0, 30)]


def test_a_cut_beside_a_flash_is_found() -> None:
    small = np.concatenate([_footage(20, 4), _footage(20, 5)])
    small[12] = np.minimum(small[12].astype(int) + 120, 255)
    assert find_shots(small) == [(0, 20), (20, 40)]


def test_a_fade_through_black_ends_a_shot_and_black_belongs_to_none() -> None:
    small = _footage(60, 6).astype(float)
    ramp = np.concatenate([np.ones(20), np.linspace(1, 0, 10), np.zeros(6), np.linspace(0, 1, 10), np.ones(14)])
    (first, last), (again, end) = find_shots((small * ramp[:, None, None, None]).astype(np.uint8))
    assert first == 0 and 25 <= last <= 30 and 36 <= again <= 41 and end == 60


def test_no_frames_and_black_frames_make_no_shot() -> None:
    assert find_shots(np.zeros((0, SIDE, SIDE, 3), np.uint8)) == []
    assert find_shots(np.zeros((9, SIDE, SIDE, 3), np.uint8)) == []
    assert find_shots(_footage(1, 0)) == [(0, 1)]


def test_motion_tells_a_still_from_a_slow_pan() -> None:
    assert motion(_footage(40, 7, speed=0.0)) < 1
    assert motion(_footage(40, 7, speed=0.1)) > 5
