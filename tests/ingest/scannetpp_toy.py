"""A small simulated ScanNet++ for tests, made once a process, and what its readers give."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.ingest.scannetpp import SOURCE
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

CONFIG = SimulationConfig(
    scannetpp_scenes=3, scannetpp_photographs=6, scannetpp_frames=8, scannetpp_spacing=0.2,
    scannetpp_size=(219, 146), scannetpp_frame_size=(240, 180),
)  # fmt: skip
TRAIN, VAL, TEST = "5c4e000000", "5c4e001eef", "5c4e003dde"


@cache
def simulated() -> tuple[Path, Path]:
    """(root of the download, root of its truth); nobody changes anything in them."""
    folder = tempfile.TemporaryDirectory(prefix="brickyard-scannetpp-")
    _KEPT.append(folder)
    counts = simulate(Path(folder.name), datasets=("scannetpp",), seed=7, config=CONFIG)["scannetpp"]
    assert counts["scenes"] == 3 and counts["photographs"] == 18 and counts["frames"] == 16
    return Path(folder.name) / "scannetpp", Path(folder.name) / "truth/scannetpp"


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def copy(root: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(simulated()[0], root / "scannetpp"))


def items(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), SOURCE.options(**options)))


def refs(root: Path, **options: Any) -> list[SceneRef]:
    return [item for item in items(root, **options) if isinstance(item, SceneRef)]


def scene(root: Path, name: str = TRAIN, **options: Any) -> Scene:
    (ref,) = [ref for ref in refs(root, **options) if ref.scene_id == name]
    return SOURCE.read(ref)


def truth(name: str, what: str) -> Any:
    return np.load(simulated()[1] / name / f"{what}.npy")
