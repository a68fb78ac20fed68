from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.ingest.clips import ClipOptions, cut, thin
from brickyard.shards.errors import RecipeError


@given(count=st.integers(0, 500), frames=st.integers(3, 100), overlap=st.integers(0, 99))
def test_clips_cover_the_sequence_evenly(count: int, frames: int, overlap: int) -> None:
    if overlap >= frames:
        with pytest.raises(RecipeError, match="overlap"):
            ClipOptions(frames=frames, overlap=overlap)
        return
    clips = cut(range(count), ClipOptions(frames=frames, overlap=overlap))
    if count < 2:
        assert clips == []
        return
    assert all(2 <= len(clip) <= frames for clip in clips)
    assert max(map(len, clips)) - min(map(len, clips)) <= 1
    assert clips[0][0] == 0
    assert clips[-1][-1] == count - 1
    for one, two in pairwise(clips):
        assert one == list(range(one[0], one[-1] + 1))
        assert one[len(one) - overlap :] == two[:overlap]
        assert two[overlap] == one[-1] + 1


def test_thinning_keeps_a_regular_rate_whatever_the_jitter() -> None:
    jitter = [0, 0.004, -0.004, 0.003, -0.002]
    times = [number / 12 + jitter[number % 5] for number in range(120)]
    assert thin(times, None) == thin(times, 12.0) == thin(times, 50.0) == list(range(120))
    assert thin(times, 6.0) == list(range(0, 120, 2))
    assert len(thin(times, 5.0)) == 50


def test_thinning_does_not_catch_up_after_a_gap() -> None:
    times = [0.0, 0.1, 0.2, 5.0, 5.1, 5.2, 5.3]
    assert thin(times, 5.0) == [0, 2, 3, 5]
    assert thin([], 5.0) == []


def test_options_that_make_no_clip_are_refused() -> None:
    for wrong in ({"frames": 2}, {"overlap": 96}, {"overlap": -1}, {"rate_hz": 0.0}, {"rate_hz": float("nan")}):
        with pytest.raises(RecipeError):
            ClipOptions(**wrong)  # type: ignore[arg-type]
