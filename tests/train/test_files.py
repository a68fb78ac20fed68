"""What a run leaves is what was written, or it is refused: digests, and students that were exported."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from brickyard.shards.errors import BrickyardError
from brickyard.train.files import check_digests, write_digests
from brickyard.train.students.export import export_student, load_student
from brickyard.train.students.unet import UNetConfig

FILES = ("student.safetensors", "student.json")


@pytest.fixture
def final(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    export_student(UNetConfig(network="tiny").build(), tmp_path)
    return tmp_path


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    write_digests(tmp_path, ["a"])
    table = json.loads((tmp_path / "digests.json").read_text())
    assert table == {"a": {"bytes": 0, "xxh3_128": "99aa06d3014798d86001c324468d497f"}}  # of nothing, as published
    check_digests(tmp_path, ["a"], hint="h", required=True)
    with pytest.raises(BrickyardError, match=r"digests\.json knows no b: h"):
        check_digests(tmp_path, ["b"], hint="h")
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(BrickyardError, match="a is damaged: it is not the file that was written: h"):
        check_digests(tmp_path, ["a"], hint="h")
    (tmp_path / "a").unlink()
    with pytest.raises(BrickyardError, match="a cannot be read: No such file or directory: h"):
        check_digests(tmp_path, ["a"], hint="h")


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_student_is_refused(final: Path, name: str) -> None:
    good = (final / name).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x40
    for damaged in (b"", b"5", good[: len(good) // 2], bytes(flipped)):
        (final / name).write_bytes(damaged)
        with pytest.raises(BrickyardError, match=f"{name} .*`brickyard train` exports it anew"):
            load_student(final)
    (final / name).unlink()
    with pytest.raises(BrickyardError, match=name):
        load_student(final)
    (final / name).write_bytes(good)
    load_student(final)


def test_a_student_without_digests_is_taken_with_a_warning(final: Path) -> None:
    """As older versions exported it; and what cannot be a student is one sentence all the same."""
    (final / "digests.json").unlink()
    with pytest.warns(UserWarning, match="older versions wrote none"):
        load_student(final)
    settings = json.loads((final / "student.json").read_text())
    for changed in (
        {"voxels": None},
        {"network": 5},
        {"inputs": [7]},
        {"inputs": 7},
        {"kind": "x"},
        {"network": "base"},
    ):
        (final / "student.json").write_text(json.dumps(settings | changed))
        with pytest.raises(BrickyardError), pytest.warns(UserWarning):
            load_student(final)
    (final / "student.json").write_text(json.dumps(settings))
    (final / "student.safetensors").write_bytes((final / "student.safetensors").read_bytes()[:1000])
    with pytest.raises(BrickyardError, match="no usable student"), pytest.warns(UserWarning):
        load_student(final)


def test_a_student_takes_the_place_of_another(final: Path) -> None:
    torch.manual_seed(1)
    export_student(UNetConfig(network="tiny").build(), final)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_student(final)
    assert sorted(path.name for path in final.iterdir()) == ["digests.json", *sorted(FILES)]
