"""A scene that hangs, dies, leaves or lies costs itself and nothing else; the machine's trouble is not the scene's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brickyard.infra import supervisor
from brickyard.infra.plan import Plan, make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.infra.supervisor import dismiss, run_watched
from brickyard.infra.task import Job, reason, run_task
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import BrickyardError, CorpusError
from brickyard.shards.parts import read_part
from brickyard.shards.storage import Store
from tests.infra.misbehaving import install, recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(install(tmp_path / "plugin")))
    monkeypatch.setattr(supervisor, "GRACE_S", 0.3)
    yield tmp_path
    dismiss()


def planned(home: Path, *what: str, timeout_s: float = 1.0) -> tuple[Job, Plan]:
    path = home / "recipe.yaml"
    path.write_text(recipe(*what, timeout_s=timeout_s))
    loaded, folder = load_recipe(path)
    plan = make_plan(loaded, folder)
    return Job.of(loaded, Store(home / "corpus").uri, plan.fingerprint), plan


def outcome(home: Path, *what: str) -> tuple[int, dict[str, str]]:
    """(scenes in the shard, reasons of the others) of a task with these scenes."""
    job, plan = planned(home, *what)
    result = run_watched(job, 0, plan.tasks[0], {})
    assert result is not None
    return result.part.scenes, {q.key.partition("-")[2]: q.reason for q in result.part.quarantined}


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_scenes_that_take_no_end_are_ended(home: Path) -> None:
    scenes, reasons = outcome(home, "good", "native", "sleep", "swallow", "alarm", "stop", "good")
    assert scenes == 2
    assert sorted(reasons) == ["alarm", "native", "sleep", "stop", "swallow"]
    assert all(text.startswith("took longer than 1 s") for text in reasons.values())
    assert "could not be interrupted" in reasons["native"]
    assert "could not be interrupted" not in reasons["sleep"]
    assert "had its process stopped" in reasons["stop"]


def test_scenes_that_end_their_process_are_named(home: Path) -> None:
    scenes, reasons = outcome(home, "good", "leave", "exit", "interrupt", "abort", "elsewhere", "unpicklable", "good")
    assert scenes == 3
    assert "exit code 0" in reasons["leave"]
    assert "SIGABRT" in reasons["abort"]
    assert "SystemExit" in reasons["exit"]
    assert "KeyboardInterrupt" in reasons["interrupt"]
    assert "Unpicklable in read" in reasons["unpicklable"]
    assert not list(home.glob("**/core"))


def test_lasting_trouble_with_one_scene_is_the_scenes_own(home: Path) -> None:
    scenes, reasons = outcome(home, "vanished", "good", "memory")
    assert scenes == 1
    assert "FileNotFoundError" in reasons["vanished"] and "'vanished.bin'" in reasons["vanished"]
    assert str(home) not in reasons["vanished"]
    assert "MemoryError" in reasons["memory"]


def test_trouble_that_passes_leaves_no_trace(home: Path) -> None:
    assert outcome(home, "flicker", "killed_once") == (2, {})


def test_trouble_of_the_machine_fails_the_task_and_commits_nothing(home: Path) -> None:
    job, plan = planned(home, "good", "full")
    with pytest.raises(BrickyardError, match=r"001-full.*No space left.*run the same command again"):
        run_watched(job, 0, plan.tasks[0], {})
    assert read_part(Store(job.out), 0, job.build(plan.tasks[0])) is None
    job, plan = planned(home, "stale")
    with pytest.raises(BrickyardError, match=r"Stale file handle.*no fault of the scene"):
        run_task(job, 0, plan.tasks[0], {})
    job, plan = planned(home, "vanished")
    gone = [SceneRef(**{**vars(ref), "root": str(home / "unmounted")}) for ref in plan.tasks[0]]
    with pytest.raises(BrickyardError, match="no fault of the scene"):
        run_watched(job, 0, gone, {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_stopped_takes_its_worker_with_it(home: Path, number: signal.Signals) -> None:
    """Though a scene holds the interpreter's lock and does not listen."""
    (home / "recipe.yaml").write_text(recipe("native", timeout_s=600))
    path = os.pathsep.join([str(home / "plugin"), str(ROOT)])
    build = subprocess.Popen(
        [sys.executable, "-m", "brickyard.infra.cli", "build", "recipe.yaml", "--out", "corpus", "--in-process"],
        cwd=home, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until((home / "process").exists)
    worker = Path("/proc") / (home / "process").read_text()
    assert worker.exists()
    build.send_signal(number)
    _, text = build.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert build.returncode == 1
        assert "interrupted; run the same command again" in text
    until(lambda: not worker.exists() or " Z " in (worker / "stat").read_text())


def test_a_supervisor_that_stays_stopped_is_given_up(home: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.infra.test_job_watched import planned, run_watched
job, plan = planned(Path(sys.argv[1]), "good", "sleep", timeout_s=600)
print("begun", flush=True)
run_watched(job, 0, plan.tasks[0], {}, 0.4)
"""
    path = os.pathsep.join([str(home / "plugin"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home)], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: any(b"infra.worker" in command(child) for child in children.read_text().split()))
    process.send_signal(signal.SIGSTOP)
    assert process.wait(60) == -signal.SIGKILL


def command(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_reasons_are_the_same_in_every_build() -> None:
    ref = SceneRef(dataset="d", scene_id="s", split="train", sequence="q", root="/data/raw/", files={})
    with tempfile.NamedTemporaryFile() as file:
        passing = file.name
    problem = ValueError(f"<Reader object at 0x7f237aa381d0> of /data/raw/a/b.bin via {passing}.png: magic 0x1234abcd")
    assert reason(problem, ref) == (
        "unexpected ValueError: <Reader object> of a/b.bin via a temporary file.png: magic 0x1234abcd"
    )
    assert reason(CorpusError("as it is")) == "as it is"
    assert len(reason(ValueError("x" * 10**6))) < 2100

    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError("no text")

    assert "KeyError" in reason(Mute())
