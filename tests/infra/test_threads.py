"""Threads that wait sleep, unless the user says otherwise; what runs them is loaded after that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brickyard.infra.cli import main

WORDS = ["sources", "kitti_object", "--json"]


def test_waiting_threads_sleep_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(WORDS) == 0 and os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(WORDS) == 0 and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_nothing_with_threads_is_loaded_before() -> None:
    """The library of threads reads its environment when it is loaded."""
    code = "import sys, brickyard.infra.cli; print(sorted({'torch', 'scipy', 'skimage', 'ray'} & sys.modules.keys()))"
    home = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
