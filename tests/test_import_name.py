"""One import name: what others call `train`, `evaluate` or `shards` stays theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.worlds import toy_corpus

ROOT = Path(__file__).parents[1]
THEIRS = {
    "train.py": "raise SystemExit('the train.py of a user ran')\n",
    "evaluate.py": "raise SystemExit('the evaluate.py of a user ran')\n",
    "shards/__init__.py": "raise SystemExit('the shards of a user')\n",
    "ingest/__init__.py": "raise SystemExit('the ingest of a user')\n",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), ROOT],
        check=True, capture_output=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder of a user, with files that have the names of our folders."""
    for name, text in THEIRS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(folder: Path, *words: str, path: Sequence[Path] = (ROOT,)) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=200,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
    )  # fmt: skip


def test_a_wheel_holds_one_package_with_all_its_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {name.partition("/")[0] for name in names} == {"brickyard", f"brickyard-{version}.dist-info"}
    kept = (".py", ".json", ".yaml", ".txt", ".css", ".js", ".html", ".typed")
    for folder in ("ingest", "curate", "shards", "train", "evaluate", "infra"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in kept and "__pycache__" not in path.parts:
                assert f"brickyard/{path.relative_to(ROOT).as_posix()}" in names


def test_the_wheel_works_among_files_of_our_folders_names(wheel: Path, crowded: Path) -> None:
    """Beside Hugging Face's `evaluate`, too: its package has the name of one of ours, and stays what it is."""
    site = crowded / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (site / "evaluate").mkdir()
    (site / "evaluate" / "__init__.py").write_text("def load(): return 'a metric'\n")
    toy_corpus(crowded / "corpus", scenes=2)
    done = run(crowded, "-m", "brickyard.infra.cli", "verify", "corpus", path=[site])
    assert done.returncode == 0, done.stderr
    code = "import brickyard.shards.stream as s, brickyard.evaluate, evaluate; print(s.__file__, evaluate.load())"
    done = run(crowded / "site", "-P", "-c", code, path=[site])
    assert done.stdout.split(maxsplit=1) == [str(site / "brickyard/shards/stream.py"), "a metric\n"], done.stderr


def test_torchrun_among_files_of_our_folders_names(crowded: Path) -> None:
    words = ["--standalone", "--nproc-per-node", "1", "-m", "brickyard.infra.cli", "train", "--help"]
    done = run(crowded, "-m", "torch.distributed.run", *words)
    assert done.returncode == 0 and "usage: brickyard train" in done.stdout, done.stderr


PLUGIN = """
from dataclasses import dataclass

import numpy as np

from ingest.source import SceneRef, Source
from shards.scene import Identity

@dataclass(frozen=True, kw_only=True)
class Options:
    scenes: int = 2

def plan(store, options):
    for i in range(options.scenes):
        yield SceneRef(dataset="older", scene_id=str(i), split="train", sequence="s", root=store.uri, files={})

def read(ref):
    from shards.scene import Points, Scene
    identity = Identity(dataset="older", version="1", split="train", sequence="s", scene_id=ref.scene_id,
                        timestamp_ns=None, domain="object", licence="CC0-1.0")
    return Scene(identity=identity, world_from_scene=np.eye(4), points=Points(xyz=np.eye(3, dtype=np.float32)))

SOURCE = Source("older", Options, plan, read)
"""


@pytest.mark.parametrize("theirs", [False, True])
def test_a_plugin_with_the_old_names_works_with_a_warning(wheel: Path, tmp_path: Path, theirs: bool) -> None:
    site, home = tmp_path / "site", tmp_path / "home"
    zipfile.ZipFile(wheel).extractall(site)
    info = site / "older-1.0.dist-info"
    info.mkdir()
    home.mkdir()
    (site / "older.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: older\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[brickyard.sources]\nolder = older:SOURCE\n")
    recipe = "name: x\nsources: [{dataset: older, root: .}]\ncurate: {superpixels: null, correspondences: null}\n"
    (home / "recipe.yaml").write_text(recipe)
    if theirs:  # another `ingest`, that has nothing of ours
        (site / "ingest.py").write_text("")
    words = ["build", "recipe.yaml", "--out", "corpus", "--in-process"]
    done = run(home, "-m", "brickyard.infra.cli", *words, path=[site])
    assert done.returncode == 0, done.stderr
    assert "older imports ingest" in done.stderr and "brickyard.ingest" in done.stderr
    assert "2 scenes in 1 shards" in done.stdout
