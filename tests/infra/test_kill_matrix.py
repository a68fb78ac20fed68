"""A sample of the points at which `make kill-matrix` pulls the plug; all of them take the better part of an hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kill_scenarios import LOCAL

ROOT = Path(__file__).parents[2]
_SAMPLE = 2

CARELESS = """
import os, sys
from unittest import mock
from pathlib import Path
from brickyard.shards import atomic, storage
from tests.kill_matrix import main

def in_place(target, data):
    atomic.make_folder(target.parent)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb", buffering=0) as file:
        file.write(memoryview(data))

def unflushed(target, data):
    with mock.patch.object(os, "fsync"):
        real(target, data)

real = storage.write_whole
with mock.patch.object(storage, "write_whole", globals()[sys.argv[1]]):
    main(["--only", sys.argv[3], "--modes", sys.argv[2], "--sample", "8"])
"""


def run(*words: str) -> tuple[int, list[dict[str, Any]], str]:
    """(exit code, what was said, a line each; stderr), in a process that may be forked."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_rerun_ends_in_the_same_bytes_wherever_the_plug_is_pulled() -> None:
    code, said, text = run("-m", "tests.kill_matrix", "--only", ",".join(LOCAL), "--sample", str(_SAMPLE))
    assert not [entry for entry in said if "wrong" in entry], text
    assert code == 0, text
    assert {entry["scenario"]: entry["points"] for entry in said} == dict.fromkeys(LOCAL, _SAMPLE)


def test_on_an_object_store_too() -> None:
    pytest.importorskip("moto")
    code, said, text = run("-m", "tests.kill_matrix", "--only", "build on S3", "--sample", "2")
    assert (code, [entry.get("wrong") for entry in said]) == (0, [None]), (said, text)


@pytest.mark.parametrize(
    ("how", "mode", "scenario"), [("in_place", "torn", "selection"), ("unflushed", "power-some", "export ply")]
)
def test_careless_writing_is_noticed(how: str, mode: str, scenario: str) -> None:
    _, said, text = run("-c", CARELESS, how, mode, scenario)
    wrong = [entry["wrong"] for entry in said if "wrong" in entry]
    assert any("half" in problem for problem in wrong), text
