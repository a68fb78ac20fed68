"""The folder of a submission: whole, read again, scored by the tool's rules, and always the same bytes."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.evaluate.conventions import tool_counts, tool_miou
from brickyard.evaluate.predictions import submission
from brickyard.evaluate.predictions.semantickitti import SemanticKittiWriter
from brickyard.evaluate.predictions.submission import Submission
from brickyard.evaluate.predictions.targets import TARGETS
from brickyard.evaluate.predictions.writer import Answer
from brickyard.ingest.waymo.wire import Message
from brickyard.shards.errors import BrickyardError
from brickyard.shards.taxonomy import taxonomy
from tests.evaluate.predictions.answers import answer
from tests.evaluate.predictions.test_writers import ABOUT


def truths(target: str, answers: list[Answer]) -> dict[str, Any]:
    """Mostly what was predicted, some of it another class, some unknown."""
    rng = np.random.default_rng(5)
    classes = len(taxonomy(TARGETS[target].taxonomy).classes)
    found = {}
    for one in answers:
        drawn = rng.integers(-1, classes, len(one.classes))
        found[one.identity.key] = np.where(rng.random(len(drawn)) < 0.6, one.classes, drawn)
    return found


def written(target: str, out: Path, about: dict[str, Any] | None = None, *, known: bool = True) -> dict[str, Any]:
    answers = [answer(target, number) for number in (2, 0, 1)]
    truth = truths(target, answers) if known else {}
    made = Submission(out, TARGETS[target]("val", about), "val", truth.get)
    for one in answers:
        made.add(one)
    return made.finish()


@pytest.mark.parametrize("target", TARGETS)
def test_scores_are_those_of_the_tools_convention(target: str, tmp_path: Path) -> None:
    result = written(target, tmp_path / "out")
    answers = [answer(target, number) for number in (2, 0, 1)]
    truth, writer = truths(target, answers), TARGETS[target]
    names = taxonomy(writer.taxonomy).classes
    counts = np.sum([tool_counts(writer.tool, truth[a.identity.key], a.classes, len(names)) for a in answers], axis=0)
    assert result["scores"]["tool_miou"] == tool_miou(writer.tool, counts)
    assert (result["files"], result["points"]) == (3, sum(len(a.classes) for a in answers))
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == result
    with (tmp_path / "out" / "confusion.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["", *names] and [[int(v) for v in row[1:]] for row in rows] == counts[:, :-1].tolist()
    with (tmp_path / "out" / "classes.csv").open(newline="") as file:
        table = {row["class"]: row for row in csv.DictReader(file)}
    assert list(table) == [*names, "mean"]
    assert float(table["mean"]["iou"]) == pytest.approx(result["scores"]["miou"], abs=1e-6)
    first = table[names[0]]
    assert int(first["hits"]) / int(first["union"]) == pytest.approx(float(first["iou"]), abs=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_answers_give_the_same_bytes(target: str, tmp_path: Path) -> None:
    names = [written(target, tmp_path / out, known=False)["packed"] for out in ("one", "two")]
    one, two = ((tmp_path / out / name).read_bytes() for out, name in zip(("one", "two"), names, strict=True))
    assert one == two
    assert not (tmp_path / "one" / "confusion.csv").exists()


def test_the_zip_has_folders_and_no_top_folder(tmp_path: Path) -> None:
    written("semantickitti", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert archive.namelist() == [
            "sequences/", "sequences/11/", "sequences/11/predictions/",
            *(f"sequences/11/predictions/{number:06d}.label" for number in range(3)),
        ]  # fmt: skip
        assert archive.testzip() is None and archive.infolist()[0].is_dir()
    written("scannet", tmp_path / "rooms")
    with zipfile.ZipFile(tmp_path / "rooms" / "submission.zip") as archive:
        assert archive.namelist() == [f"scene070{number}_00.txt" for number in range(3)]


def test_a_waymo_submission_wraps_the_frames(tmp_path: Path) -> None:
    result = written("waymo", tmp_path / "out", ABOUT)
    assert result["packed"] == "submission.bin"
    data = (tmp_path / "out" / "submission.bin").read_bytes()
    whole = Message(memoryview(data))
    assert bytes(whole.data(1)) == b"a@b.org" and bytes(whole.data(2)) == b"Bricks"
    assert [bytes(one) for one in whole._all(3, 2)] == [b"A", "Bé".encode()]
    assert (whole.integer(7), whole.integer(8), whole.integer(9)) == (2, 200, 0)
    assert bytes(whole.data(10)) == (tmp_path / "out" / "predictions.bin").read_bytes()
    assert len(whole.message(10, "SegmentationFrameList").messages(1, "SegmentationFrame")) == 3


def test_files_that_changed_places_are_seen(tmp_path: Path) -> None:
    class Shifting(SemanticKittiWriter):
        def unpack(self, out: Path, files: Sequence[str]) -> Iterator[bytes]:
            return iter([*list(super().unpack(out, files))[1:], b""])

    made = Submission(tmp_path / "kitti", Shifting("val"), "val", lambda key: None)
    for number in range(2):
        made.add(answer("semantickitti", number))
    with pytest.raises(BrickyardError, match="does not hold what was predicted for kitti_odometry/11/000000"):
        made.finish()
    assert not (tmp_path / "kitti" / submission.RECORD).exists()


def test_nothing_and_twice_and_full_folders_are_refused(tmp_path: Path) -> None:
    made = Submission(tmp_path / "out", TARGETS["scannet"]("val"), "val", lambda key: None)
    with pytest.raises(BrickyardError, match="no scene was answered"):
        made.finish()
    made.add(answer("scannet"))
    with pytest.raises(BrickyardError, match=r"have the same file, scene0700_00\.txt"):
        made.add(answer("scannet"))
    with pytest.raises(BrickyardError, match="is not empty"):
        Submission(tmp_path / "out", TARGETS["scannet"]("val"), "val", lambda key: None)
