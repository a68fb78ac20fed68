"""The code that a build brings to nodes, and nodes with other code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brickyard.curate.pipeline import CurateConfig
from brickyard.infra import on_ray
from brickyard.infra.nodes import code_digest, code_here, distribution_folder, refuse_other_code
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import BrickyardError

KITTI = ["kitti_object"]


def test_what_is_brought_runs_from_its_folder_with_its_sources() -> None:
    """In a process that sees the folder first, with the digests of the code that is here."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from brickyard.infra.nodes import code_digest\n"
        "from brickyard.curate.pipeline import CurateConfig; from brickyard.ingest.source import source_names\n"
        "import brickyard.infra as here; print(here.__file__); print(code_digest('kitti_object', CurateConfig()))\n"
        "print(len(source_names()))"
    )
    with distribution_folder() as folder:
        names = {path.name for path in folder.iterdir()}
        assert "brickyard" in names and len(names) == 2
        assert not [path for path in folder.rglob("*") if path.is_symlink() or path.name == "__pycache__"]
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(folder)], capture_output=True, text=True, check=True, cwd=folder
        )
        where, digest, count = done.stdout.split()
        assert Path(where).is_relative_to(folder)
    assert digest == code_digest("kitti_object", CurateConfig())
    assert int(count) >= 12


class Unschedulable(RuntimeError):
    """Raised by Ray where the asked node is not there any more."""


class NodeDied(RuntimeError):
    """Raised by Ray where it died while it was asked."""


SILENT = object()
"""The answer of a node that gives none in time."""


class FakeRay:
    """Nodes that answer with the code they are given."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.exceptions = SimpleNamespace(
            RayError=RuntimeError,
            TaskUnschedulableError=Unschedulable,
            NodeDiedError=NodeDied,
        )

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": f"{n:056x}", "NodeManagerHostname": n_} for n, n_ in enumerate(self.answers)]

    def remote(self, **_: Any) -> Any:
        hosts = iter(self.answers)
        call = SimpleNamespace(remote=lambda *_: next(hosts))
        return lambda function: SimpleNamespace(options=lambda **_: call)

    def wait(self, hosts: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert num_returns == len(hosts) and timeout > 0
        silent = [host for host in hosts if self.answers[host] is SILENT]
        return [host for host in hosts if host not in silent], silent

    def get(self, host: str) -> Any:
        if isinstance(self.answers[host], Exception):
            raise self.answers[host]
        return self.answers[host]


def test_nodes_with_the_same_code_are_taken() -> None:
    pytest.importorskip("ray")
    code = code_here(KITTI, CurateConfig())
    refuse_other_code(FakeRay({"a": code, "b": code}), code, CurateConfig())


def test_a_node_that_has_died_since_is_not_asked_again() -> None:
    pytest.importorskip("ray")
    code = code_here(KITTI, CurateConfig())
    refuse_other_code(FakeRay({"a": Unschedulable("gone"), "b": NodeDied("gone"), "c": code}), code, CurateConfig())
    with pytest.raises(BrickyardError, match="node c has other code"):
        refuse_other_code(FakeRay({"a": Unschedulable("gone"), "c": {}}), code, CurateConfig())


def test_a_node_that_does_not_answer_holds_nothing_up() -> None:
    pytest.importorskip("ray")
    code = code_here(KITTI, CurateConfig())
    assert refuse_other_code(FakeRay({"a": SILENT, "b": code}), code, CurateConfig()) == ["a"]
    with pytest.raises(BrickyardError, match="node b has other code"):
        refuse_other_code(FakeRay({"a": SILENT, "b": {}}), code, CurateConfig())


def test_a_node_with_another_library_is_named() -> None:
    pytest.importorskip("ray")
    code = code_here(KITTI, CurateConfig())
    other = {"kitti_object": {**code["kitti_object"], "numpy": "1.0.0"}}
    with pytest.raises(BrickyardError, match=r"node b has other code than this driver: numpy is 1\.0\.0, here "):
        refuse_other_code(FakeRay({"a": code, "b": other}), code, CurateConfig())
    with pytest.raises(BrickyardError, match=r"brickyard is not there, here .* and \d+ more\. Shards"):
        refuse_other_code(FakeRay({"a": {}}), code, CurateConfig())
    with pytest.raises(BrickyardError, match=r"node a cannot say what code it has .*No module named 'brickyard'"):
        refuse_other_code(FakeRay({"a": RuntimeError("No module named 'brickyard'")}), code, CurateConfig())


def test_a_node_that_joins_later_is_asked_by_its_first_task() -> None:
    ref = SceneRef(
        dataset="kitti_object", scene_id="1", split="train", sequence="s", root="/nowhere", files={}, bytes_estimate=1
    )
    job: Any = SimpleNamespace(curate=CurateConfig())
    with pytest.raises(BrickyardError, match=r"for kitti_object, node .* has other code than this build began with"):
        on_ray._run_task(job, 0, [ref], {}, "0" * 16)
