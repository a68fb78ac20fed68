"""The benchmark of a real clip without points runs, at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.ponder_clip import RATE, real_clip, settings
from tests.benchmarks.ponder_real import COLUMNS, held_out

pytestmark = pytest.mark.real


def test_a_held_out_frame_is_rendered_beside_a_warped_one(samples: Path, tmp_path: Path) -> None:
    scene = real_clip(samples / "rgbd_7scenes")
    assert len(scene.views) == 3 and scene.points is None
    row = held_out(tmp_path, scene, 2, settings(), (1, RATE))
    assert row.keys() >= COLUMNS.keys() - {"seconds"}
    assert 25 < row["covered"] < 40 and 12 < row["psnr_warped"] < 14 and row["abs_rel_warped"] < 0.1
