"""Shared fixtures: where the real samples are, if they are. No test that Hypothesis drives races a clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_SAMPLES = Path(os.environ.get("BRICKYARD_SAMPLES", Path(__file__).parents[2] / "shared" / "samples"))


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real dataset samples; tests that use it are marked `real` and skipped where it does not exist."""
    if not _SAMPLES.is_dir():
        pytest.skip("real samples are not here (set BRICKYARD_SAMPLES to their folder)")
    return _SAMPLES
