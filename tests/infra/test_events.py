"""The log of a build and what is told from it: progress, costs, refusals; killed, stopped and damaged logs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from brickyard.infra import events
from brickyard.infra.build_page import build_page
from brickyard.infra.cli import main
from brickyard.infra.estimate import read_rates
from brickyard.infra.events import EventLog, read_runs
from brickyard.infra.plan import task_memory
from brickyard.infra.story import measured_rates, progress, read_story, slowest, stages, workers
from brickyard.shards.errors import CorpusError, RecipeError
from brickyard.shards.storage import Store
from tests.infra.test_build import RECIPE, write_kitti

BEGIN = {"recipe": "r", "scenes": 10, "tasks": 5, "todo": 4, "scenes_todo": 8, "bytes_todo": 8000, "missing": 0}


def task(number: int, **more: Any) -> dict[str, Any]:
    return {
        "task": number, "dataset": "kitti_object", "scenes": 2, "planned": 2, "quarantined": [], "bytes_in": 2000,
        "bytes_out": 500, "seconds": 4.0, "memory_declared": 1 << 30, "host": "a", "process": 7 + number % 2,
        "began": time.time() - 4, "ended": time.time(), "stages": {"read": 1.0, "encode": 3.0},
        "slowest": [[f"kitti_object/{number:06d}", 3.0 + number]], "memory_bytes": (512 << 20) + 8000,
    } | more  # fmt: skip


def raw(tmp_path: Path, *, broken: bool = False) -> Path:
    write_kitti(tmp_path / "raw", 6)
    if broken:
        (tmp_path / "raw/training/calib/000002.txt").write_text("P2: 1 2 three")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_a_build_tells_its_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = raw(tmp_path, broken=True)
    assert main(["build", f"{home}/recipe.yaml", "--out", f"{home}/c", "--in-process", "--allow-quarantined", "1"]) == 0
    story = read_story(Store(home / "c"))
    assert story.finished and story.now.state == "finished" and len(story.runs) == 1
    assert {t["task"] for t in story.now.tasks} == {0, 1, 2} and len(workers(story.tasks)) == 1
    assert set(stages(story.tasks)["kitti_object"]) == {"read", "superpixels", "correspondences", "encode", "write"}
    for made in story.tasks:
        assert 0 < sum(made["stages"].values()) <= made["seconds"] * 1.05
        assert made["memory_bytes"] > 20 << 20
    assert {key for key, _ in slowest(story.tasks, 9)} == {f"kitti_object/training/{n:06d}" for n in range(6)}
    capsys.readouterr()
    assert main(["status", f"{home}/c"]) == 0
    said = capsys.readouterr().out
    assert "test: is finished" in said and "6 of 6 scenes" in said and "1 quarantined" in said
    assert "calib/000002.txt" in said
    assert main(["report", f"{home}/c", "--out", f"{home}/page.html", "--price", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = (home / "page.html").read_text()
    assert "calib/000002.txt" in page and page.count("<rect") == 3 and "a core-hour" in page
    assert "<script" not in page and found["datasets"]["kitti_object"]["scenes"] == 5
    size = sum(t["bytes_in"] for t in story.tasks)
    assert found["rates"]["kitti_object"]["bytes_out"] == sum(t["bytes_out"] for t in story.tasks) / size


def test_the_costs_of_a_build_feed_the_next_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = raw(tmp_path)
    assert main(["build", f"{home}/recipe.yaml", "--out", f"{home}/c", "--in-process"]) == 0
    known = read_rates(f"{home}/c")["kitti_object"]
    assert set(known) == {"seconds", "bytes_out", "memory"}
    capsys.readouterr()
    assert main(["plan", f"{home}/recipe.yaml", "--samples", "0", "--rates", f"{home}/c", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["core_seconds"] == pytest.approx(known["seconds"] * plan["bytes_in"])
    (home / "none").mkdir()
    with pytest.raises((RecipeError, CorpusError, OSError)):
        read_rates(f"{home}/none")
    again = ["build", f"{home}/recipe.yaml", "--out", f"{home}/d", "--in-process", "--rates", f"{home}/c"]
    assert main(again) == 0


def test_memory_that_was_measured_is_declared_with_a_margin() -> None:
    assert task_memory(100 << 20, 2.0) - task_memory(0) == 250 << 20
    assert task_memory(100 << 20) - task_memory(0) == 300 << 20


def test_a_run_without_an_end_is_running_then_silent(tmp_path: Path) -> None:
    log = EventLog(Store(tmp_path))
    log.add("begin", now=True, **BEGIN)
    for number in range(2):
        log.add("task", now=True, **task(number, quarantined=[["kitti_object/9", "is damaged"]] if number else []))
    story = read_story(Store(tmp_path))
    assert story.now.state == "running" and not story.finished
    found = progress(story.now)
    assert (found["done"], found["total"], found["quarantined"]) == (6, 10, 1)
    assert found["seconds_left"] is not None and found["share_of_bytes"] == 0.5
    assert read_story(Store(tmp_path), now=time.time() + 100).now.state == "silent"
    log.add("stopped", now=True, reason="interrupted")
    stopped = read_story(Store(tmp_path)).now
    assert (stopped.state, stopped.reason, progress(stopped)["seconds_left"]) == ("stopped", "interrupted", None)


def test_runs_are_told_together_and_the_last_result_counts(tmp_path: Path) -> None:
    for seconds in (4.0, 1.0):
        log = EventLog(Store(tmp_path))
        log.add("begin", now=True, **BEGIN)
        log.add("task", now=True, **task(3, seconds=seconds))
        time.sleep(1.1)  # runs are ordered by the second they began in
    story = read_story(Store(tmp_path))
    assert len(story.runs) == 2
    assert [made["seconds"] for made in story.tasks] == [1.0]
    assert measured_rates(story.tasks) == {"kitti_object": {"seconds": 1 / 2000, "bytes_out": 0.25, "memory": 4.0}}


def test_long_logs_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_PIECE_BYTES", 2000)
    log = EventLog(Store(tmp_path))
    log.add("begin", **BEGIN)
    for number in range(40):
        log.add("task", **task(number))
    log.add("end", now=True)
    assert len(list(tmp_path.rglob("*.jsonl"))) > 5
    assert [made["task"] for made in read_story(Store(tmp_path)).now.tasks] == list(range(40))


def test_what_is_no_event_is_left_out(tmp_path: Path) -> None:
    log = EventLog(Store(tmp_path))
    log.add("begin", now=True, **BEGIN)
    log.add("task", now=True, **task(1))
    (piece,) = tmp_path.rglob("*.jsonl")
    whole = piece.read_bytes()
    strange = [b"\xff\xfe", b"[1]", b"{}", b'{"event": "task", "time": 5}', b'{"event": 3, "time": 5}', b"{" * 3000]
    strange += [b'{"event": "task", "time": NaN}', b'{"event": "alive", "time": -1}', whole.splitlines()[1][:50]]
    piece.write_bytes(whole + b"\n".join(strange))
    assert len(read_story(Store(tmp_path)).now.tasks) == 1
    (tmp_path / "log" / "other").mkdir()
    (tmp_path / "log" / "other" / "00000.jsonl").write_bytes(b'{"event": "begin", "time": 1}')
    (tmp_path / "log" / "notes.txt").write_text("mine")
    assert [len(run.tasks) for run in read_story(Store(tmp_path)).runs] == [1]
    assert len(read_runs(Store(tmp_path))) == 2
    build_page(read_story(Store(tmp_path)), "<b>name</b>")


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = raw(tmp_path)
    whole = Store.write

    def refuse(self: Store, name: str, data: Any) -> None:
        if name.startswith("log/"):
            raise OSError(28, "No space left on device")
        whole(self, name, data)

    monkeypatch.setattr(Store, "write", refuse)
    assert main(["build", f"{home}/recipe.yaml", "--out", f"{home}/c", "--in-process"]) == 0
    assert main(["status", f"{home}/c"]) == 1


def test_a_folder_without_a_log_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 1
    assert "holds no log of a build" in capsys.readouterr().err


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    log = EventLog(Store(tmp_path))
    log.add("begin", now=True, **(BEGIN | {"recipe": "<script>"}))
    evil = '"><script>alert(1)</script>'
    log.add("task", now=True, **task(1, dataset=evil, host=evil, stages={evil: 1.0}, slowest=[[evil, 2.0]],
                                     quarantined=[[evil, evil]]))  # fmt: skip
    page = build_page(read_story(Store(tmp_path)), evil).decode()
    assert "<script" not in page
