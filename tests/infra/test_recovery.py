"""What can go wrong around a build besides a kill: racing builds, vanished files, wrong clocks, full disks, memory."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brickyard.infra import job as job_module
from brickyard.infra import on_ray, supervisor
from brickyard.infra.cli import main
from brickyard.infra.job import run_build
from brickyard.infra.plan import make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.infra.supervisor import NeedsRoom, dismiss, run_watched
from brickyard.infra.task import run_task
from brickyard.shards.build import BUILD, finish_build, start_build
from brickyard.shards.convert import convert
from brickyard.shards.errors import BrickyardError, CorpusError
from brickyard.shards.lock import only_writer
from brickyard.shards.storage import Store
from tests.faults import faults
from tests.infra.test_build import files, write_kitti
from tests.infra.test_job_watched import home as home  # noqa: PLC0414  with the plugin of scenes that misbehave
from tests.infra.test_job_watched import planned
from tests.worlds import toy_corpus

ROOT = Path(__file__).parents[2]
RECIPE = """
name: test
sources: [{dataset: kitti_object, root: raw}]
curate: {superpixels: null}
shards: {max_scenes: 2}
"""

RACE = """
import os, sys
from pathlib import Path
from tests.kill_matrix import object_store, tree
from tests.kill_scenarios import build, look, make_material

def race(place, which):
    # Two builds that begin at the same moment; their exit codes, 0 or 3 for an error of ours.
    children = []
    for plan in which:
        if (child := os.fork()) == 0:
            try:
                build(place, plan)
                os._exit(0)
            except Exception as problem:
                print(f"{type(problem).__name__}: {problem}", flush=True)
                os._exit(3)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

def finish(place):
    if (child := os.fork()) == 0:
        build(place)
        os._exit(0 if tree(place) == tree(str(home / "given")) else 5)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

home = Path(sys.argv[1])
make_material(home)
place = str(home / "race")
Path(place).mkdir()
print("local", race(place, ["raw", "raw"]), finish(place))
with object_store() as remote:
    print("remote", race(remote("race"), ["raw", "raw"]), finish(remote("race")))
"""


@pytest.fixture
def kitti(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Raw data and a recipe; tasks run in this process."""
    write_kitti(tmp_path / "raw", 4)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr(job_module, "run_watched", run_task)
    return tmp_path


def build(folder: Path, out: str = "corpus", **options: Any) -> None:
    recipe, root = load_recipe(folder / "recipe.yaml")
    run_build(recipe, make_plan(recipe, root), str(folder / out), in_process=True, **options)


def test_builds_that_race_for_a_folder(tmp_path: Path) -> None:
    """On a disk one of them has the lock, and the others are told; on an object store they make the same files."""
    pytest.importorskip("moto")
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("local", "remote"))]
    assert [line.rpartition(" ")[2] for line in lines] == ["0", "0"], done.stdout + done.stderr
    assert lines[0].split(" ", 1)[1] in ("[0, 3] 0", "[3, 0] 0", "[0, 0] 0")
    refusals = [line for line in done.stdout.splitlines() if line.startswith("CorpusError")]
    assert all("another process" in line for line in refusals), refusals
    assert lines[1] == "remote [0, 0] 0"


def test_another_build_that_begins_at_the_same_moment_is_noticed_in_the_end(tmp_path: Path) -> None:
    """Where no lock keeps it out: the one whose `build.json` was overwritten writes no manifest."""
    corpus, store = toy_corpus(tmp_path / "given", scenes=2), Store(tmp_path / "c")
    start_build(store, {"mine": 1})
    store.write(BUILD, b'{"theirs": 2}')
    with pytest.raises(CorpusError, match="a different build has begun here since"):
        finish_build(store, 0, "0" * 16, [], {})
    assert not store.exists("manifest.json")
    with only_writer(store), pytest.raises(CorpusError, match="another process is building"):
        convert(corpus, store, "parquet")


def test_a_disk_without_locks_is_told_from_a_running_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    store = Store(tmp_path / "c")
    with pytest.raises(CorpusError, match=r"cannot be locked.*No locks available"), only_writer(store):
        pass
    store.write(".partial-x", b"half")  # files are written and removed there all the same
    assert store.delete_abandoned(".partial-x") and store.list() == ["build.lock"]


def test_a_file_that_vanishes_in_mid_build_costs_its_scene_until_it_is_back(kitti: Path) -> None:
    build(kitti, "whole")
    recipe, root = load_recipe(kitti / "recipe.yaml")
    plan = make_plan(recipe, root)
    scan = kitti / "raw" / "training" / "velodyne" / "000002.bin"
    scan.rename(kitti / "elsewhere")
    manifest = run_build(recipe, plan, str(kitti / "corpus"), in_process=True).manifest
    (lost,) = manifest["quarantined"]
    assert lost["key"].endswith("/000002") and "velodyne/000002.bin" in lost["reason"]
    assert str(kitti) not in lost["reason"]
    with pytest.raises(CorpusError, match="--retry-quarantined takes"):
        build(kitti)
    (kitti / "elsewhere").rename(scan)
    build(kitti, retry_quarantined=True)
    assert files(kitti / "corpus") == files(kitti / "whole")


def test_clocks_do_not_matter(kitti: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files from the future, a clock that has gone back to 1970."""
    build(kitti, "whole")
    shutil.copytree(kitti / "whole", kitti / "corpus")
    for name in ("manifest.json", "index.parquet", "parts/00001.parquet"):
        (kitti / "corpus" / name).unlink()
    (kitti / "corpus" / "shards" / ".partial-00001-0.parquet").write_bytes(b"half")
    for number, path in enumerate([*(kitti / "raw").rglob("*"), *(kitti / "corpus").rglob("*")]):
        os.utime(path, (2**33, 2**33) if number % 2 else (0, 0))
    monkeypatch.setattr(time, "time", lambda: 10.0)
    build(kitti)
    assert files(kitti / "corpus") == files(kitti / "whole")
    assert main(["status", str(kitti / "corpus")]) == 0
    assert main(["gc", str(kitti / "corpus"), "--yes"]) == 0
    assert files(kitti / "corpus") == files(kitti / "whole")


@pytest.mark.parametrize(
    ("mode", "words"),
    [("readonly", "Read-only file system"), ("denied", "Permission denied"), ("full", "No space left on device")],
)
def test_a_disk_that_takes_nothing_more_is_told(
    kitti: Path, capsys: pytest.CaptureFixture[str], mode: str, words: str
) -> None:
    corpus = kitti / "place" / "corpus"
    corpus.parent.mkdir()
    for at in (1, 40):
        with faults(str(corpus.parent), mode, at):
            assert main(["build", str(kitti / "recipe.yaml"), "--out", str(corpus), "--in-process"]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert words in said and str(corpus) in said
        assert not list(corpus.rglob(".partial-*")) or mode != "full"
    assert main(["build", str(kitti / "recipe.yaml"), "--out", str(corpus), "--in-process"]) == 0
    build(kitti, "whole")
    assert files(corpus) == files(kitti / "whole")


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(kitti: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commits in it would be made again."""
    build(kitti)
    before = {path: path.stat().st_mtime_ns for path in (kitti / "corpus" / "parts").iterdir()}
    (kitti / "corpus" / "manifest.json").unlink()
    scan = os.scandir

    def failing(path: Any) -> Any:
        if str(path).endswith("parts"):
            raise OSError(5, "Input/output error", str(path))
        return scan(path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(os, "scandir", failing)
        build(kitti)
    assert {path: path.stat().st_mtime_ns for path in (kitti / "corpus" / "parts").iterdir()} == before


# memory


def test_what_is_killed_beside_others_is_not_quarantined_yet(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_DEATHS_BY_KILL", 1)
    job, plan = planned(home, "good", "glutton")
    with pytest.raises(NeedsRoom, match="SIGKILL"):
        run_watched(job, 0, plan.tasks[0], {}, alone=False)
    result = run_watched(job, 0, plan.tasks[0], {})
    assert result is not None
    assert [(q.key, "SIGKILL" in q.reason) for q in result.part.quarantined] == [("misbehaving/001-glutton", True)]
    dismiss()


class FakeRay:
    """Calls that give what they are told to, in turn; it keeps the options of each."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                self.cause = cause

        class LocalRayletDiedError(RayError):
            pass

        class NodeDiedError(RayError):
            pass

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = iter(answers), list[dict[str, Any]]()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2, "memory": 64 << 30}}]

    def remote(self, **_: Any) -> Any:
        def options(**needs: Any) -> Any:
            def call(*arguments: Any, alone: bool = False) -> object:
                self.asked.append(needs | {"alone": alone})
                return object()

            return SimpleNamespace(remote=call)

        return lambda function: SimpleNamespace(options=options)

    def wait(self, calls: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return calls[:1], calls[1:]

    def get(self, call: object) -> Any:
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def ready(home: Path) -> Iterator[tuple[Any, Any, Any]]:
    """(job, plan, what its only task gives)."""
    job, plan = planned(home, "good")
    yield job, plan, run_task(job, 0, plan.tasks[0], {})


def test_a_task_that_needs_room_runs_alone(ready: tuple[Any, Any, Any]) -> None:
    job, plan, result = ready
    ray = FakeRay(FakeRay.exceptions.RayTaskError(NeedsRoom("killed")), result)
    assert results(ray, job, plan) == [result]
    assert [asked["alone"] for asked in ray.asked] == [False, True]
    assert ray.asked[0]["memory"] < ray.asked[1]["memory"] == 64 << 30


def test_a_dead_ray_is_told(ready: tuple[Any, Any, Any]) -> None:
    job, plan, _ = ready
    with pytest.raises(BrickyardError, match="Ray's own process on this machine has died: run the same command again"):
        results(FakeRay(FakeRay.exceptions.LocalRayletDiedError()), job, plan)


def results(ray: FakeRay, job: Any, plan: Any) -> list[Any]:
    return list(on_ray.run_on_ray(ray, job, [0], plan, heartbeat=lambda: None, memory={}))
