"""Loss curves that must not change unless somebody means them to: stored as JSON, compared to the last bit.

The last bits of a sum depend on the processor (which vector instructions, which kernels), so a curve is compared
exactly where it was made: on the same processor with the same torch. Elsewhere every loss must agree to 1 in 10,000,
which no change of an algorithm passes. To make a curve anew: BRICKYARD_GOLDEN=write pytest tests/train/test_golden.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from train.run_folder import processor

FOLDER = Path(__file__).with_name("golden")


def assert_golden(name: str, losses: list[float]) -> None:
    """Compare with the curve of that name, made on one thread."""
    here = {"processor": processor(), "kernels": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
    path = FOLDER / f"{name}.json"
    if os.environ.get("BRICKYARD_GOLDEN") == "write":
        path.write_text(json.dumps({"made_on": here, "losses": losses}, indent=1) + "\n")
    stored = json.loads(path.read_text())
    if stored["made_on"] == here:
        assert losses == stored["losses"]
    else:
        assert losses == pytest.approx(stored["losses"], rel=1e-4)
