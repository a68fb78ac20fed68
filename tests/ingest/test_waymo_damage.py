"""Waymo files against thousands of mutations, in both releases, as frames and as clips.

A record's checksum keeps damage away from the parser, so v1 is run twice: as it is, and with a reader that believes the
checksum of every payload, as if the damage had been there when it was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import tests.ingest.waymo_toy as toy
from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.source import SceneRef
from brickyard.ingest.waymo import v1, v2
from brickyard.ingest.waymo.frame import Options
from brickyard.shards.scene import Scene
from tests.ingest.mutation import assert_survives

CAMERAS = ("FRONT", "SIDE_LEFT")


def read_unchecked(ref: SceneRef) -> Scene:
    """A frame or clip whose payload checksums are not looked at; it runs in a process of its own."""
    v1.masked_crc = lambda data: _Anything()  # type: ignore[attr-defined]
    return v1.read(ref)


class _Anything:
    """A checksum that equals every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], toy.ToyFrame]:
    """Frames of a few pixels: most bytes are structure."""
    monkeypatch.setattr(toy, "SHAPES", {1: (6, 2), 2: (2, 2), 3: (2, 2), 4: (2, 2), 5: (2, 2)})
    monkeypatch.setattr(toy, "SIZE", (16, 8))
    jpegs = {number: toy.jpeg(number, (16, 8)) for number in (1, 4)}
    monkeypatch.setattr(toy, "jpeg", lambda number: jpegs[number])
    monkeypatch.setattr(toy, "slow_crc", v1.masked_crc)
    return toy.toy_frame


def test_damaged_records(tmp_path: Path, small: Callable[[int], toy.ToyFrame]) -> None:
    file = toy.write_v1(tmp_path, [small(0), small(1)])
    path, options = str(file.relative_to(tmp_path)), Options(cameras=CAMERAS)
    found = assert_survives(v1.SOURCE, tmp_path, [path], options=options, count=500)
    assert found.errors > 200 and found.scenes > 50  # what lies in the other record harms none
    assert found.errors_with_place == found.errors


@pytest.mark.parametrize("clips", [None, ClipOptions(frames=3)], ids=["frames", "clips"])
def test_damaged_messages(tmp_path: Path, small: Callable[[int], toy.ToyFrame], clips: ClipOptions | None) -> None:
    file = toy.write_v1(tmp_path, [small(0), small(1)] if clips else [small(0)])
    options = Options(cameras=CAMERAS, clips=clips)
    source, count = replace(v1.SOURCE, read=read_unchecked), 500 if clips else 2000
    found = assert_survives(source, tmp_path, [str(file.relative_to(tmp_path))], options=options, count=count)
    assert found.errors > count / 6 and found.scenes > count / 6, found


@pytest.mark.parametrize("clips", [None, ClipOptions(frames=3)], ids=["frames", "clips"])
def test_damaged_components(tmp_path: Path, small: Callable[[int], toy.ToyFrame], clips: ClipOptions | None) -> None:
    root = toy.write_v2(tmp_path, [small(0), small(1)] if clips else [small(0)], compression="none")
    names = ["camera_image", "camera_calibration"] if clips else sorted(folder.name for folder in root.iterdir())
    paths = [str((root / name / f"{toy.SEGMENT}.parquet").relative_to(tmp_path)) for name in names]
    options = Options(cameras=CAMERAS, clips=clips)
    found = assert_survives(v2.SOURCE, tmp_path, paths, options=options, count=500 if clips else 2000)
    assert found.errors > 150 and found.scenes > 50, found
