"""A small simulated ARKitScenes for tests, made once a process, and what its reader gives."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.ingest.arkitscenes import SOURCE
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

CONFIG = SimulationConfig(
    arkitscenes_captures=4, arkitscenes_frames=3, arkitscenes_spacing=0.2, arkitscenes_size=(128, 96),
    arkitscenes_wide_size=(96, 72),
)  # fmt: skip
FIRST, TWIN, THIRD, FOURTH = "41000000", "41000101", "41000202", "41000303"
FOLD = {FIRST: "Training", TWIN: "Validation", THIRD: "Validation", FOURTH: "Training"}


@cache
def simulated() -> tuple[Path, Path]:
    """(root of the download, root of its truth); nobody changes anything in them."""
    folder = tempfile.TemporaryDirectory(prefix="brickyard-arkitscenes-")
    _KEPT.append(folder)
    counts = simulate(Path(folder.name), datasets=("arkitscenes",), seed=7, config=CONFIG)["arkitscenes"]
    assert counts["captures"] == 4 and counts["frames"] == 24
    return Path(folder.name) / "arkitscenes", Path(folder.name) / "truth/arkitscenes"


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def copy(root: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(simulated()[0], root / "arkitscenes"))


def folder(root: Path, video: str = FIRST, subset: str = "3dod") -> Path:
    return root / subset / FOLD[video] / video


def frames(root: Path, video: str = FIRST, subset: str = "3dod") -> Path:
    return folder(root, video, subset) / (f"{video}_frames" if subset == "3dod" else "")


def pack(directory: Path) -> None:
    """Put a folder into a zip beside it, with its own name in the names of its members."""
    with zipfile.ZipFile(directory.with_name(f"{directory.name}.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(directory.rglob("*")):
            archive.write(path, path.relative_to(directory.parent))
    shutil.rmtree(directory)


def items(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), SOURCE.options(**options)))


def refs(root: Path, **options: Any) -> list[SceneRef]:
    return [item for item in items(root, **options) if isinstance(item, SceneRef)]


def missing(root: Path, **options: Any) -> dict[str, str]:
    found = (item for item in items(root, **options) if isinstance(item, Missing) and not isinstance(item, Notice))
    return {item.scene_id: item.reason for item in found}


def notices(root: Path, **options: Any) -> dict[str, str]:
    return {item.scene_id: item.reason for item in items(root, **options) if isinstance(item, Notice)}


def scene(root: Path, video: str = FIRST, **options: Any) -> Scene:
    (ref,) = [ref for ref in refs(root, **options) if ref.scene_id == video]
    return SOURCE.read(ref)


def truth(video: str, what: str) -> Any:
    return np.load(simulated()[1] / video / f"{what}.npy")
