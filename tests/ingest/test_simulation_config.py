"""Sizes of simulated worlds: what cannot be is refused by its name, before anything is written."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.infra.cli import main
from brickyard.infra.config import load_file
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.errors import RecipeError
from brickyard.shards.storage import Store

DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(SimulationConfig)}
NAMES = st.sampled_from(sorted(DEFAULTS))


@given(NAMES, st.integers(-(10**9), -1) | st.floats(max_value=-1e-9) | st.just(math.nan) | st.just(math.inf))
def test_nothing_is_negative_or_no_number(name: str, value: float) -> None:
    default = DEFAULTS[name]
    if isinstance(default, bool) or (isinstance(default, int) and not isinstance(value, int)):
        return
    wrong: Any = (value, 64) if isinstance(default, tuple) else value if isinstance(default, int) else float(value)
    with pytest.raises(RecipeError, match=f"simulation: {name} must be"):
        SimulationConfig(**{name: wrong})


@given(NAMES)
def test_defaults_and_their_neighbours_are_taken(name: str) -> None:
    default = DEFAULTS[name]
    if isinstance(default, tuple):
        SimulationConfig(**{name: (default[0] + 2, default[1] + 2)})
    elif isinstance(default, float):
        SimulationConfig(**{name: default * 1.01})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"video_size": [65, 48]}, "video_size must be even"),
        ({"video_size": [64, 0]}, "video_size must be two sides of 8 to"),
        ({"nuscenes_scenes": 11}, "nuscenes_scenes must be 1 to 10"),
        ({"scannet_rooms": 0}, "scannet_rooms must be 1 to"),
        ({"scannet_spacing": 0.0}, "scannet_spacing must be 0.001 to"),
    ],
)
def test_the_command_says_what_is_wrong(
    settings: dict[str, Any], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sizes.yaml").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    with pytest.raises(RecipeError, match=problem):
        load_file(tmp_path / "sizes.yaml", SimulationConfig)
    assert main(["simulate", "--out", str(tmp_path / "raw"), "--config", str(tmp_path / "sizes.yaml")]) == 2
    assert problem in capsys.readouterr().err and not (tmp_path / "raw").exists()


def test_walks_of_the_split_val(tmp_path: Path) -> None:
    small = {"video_frames": 6, "video_size": (64, 48)}
    simulate(tmp_path / "a", datasets=["video"], config=SimulationConfig(video_val_walks=1, **small))  # type: ignore[arg-type]
    simulate(tmp_path / "b", datasets=["video"], config=SimulationConfig(**small))  # type: ignore[arg-type]
    source = find_source("video")
    found = [ref for ref in source.plan(Store(tmp_path / "a/video"), source.options()) if isinstance(ref, SceneRef)]
    assert {ref.split for ref in found} == {"train", "val"}
    ours, theirs = (np.load(tmp_path / name / "truth/video/walk0000/depth.npy") for name in "ab")
    np.testing.assert_array_equal(ours, theirs, err_msg="more walks change no other")
    one, other = (np.load(tmp_path / "a/truth/video" / name / "depth.npy") for name in ("walk0000", "walk1000"))
    assert not np.array_equal(one, other)
