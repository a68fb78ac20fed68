"""Simulated worlds are known by their files, in every reader: their scenes are CC0, never under a real licence."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from brickyard.infra.cli import main
from brickyard.ingest import simulated
from brickyard.ingest.simulate import ALL_DATASETS, SimulationConfig, simulate
from brickyard.ingest.source import Missing, Notice, SceneRef, Source, find_source
from brickyard.shards.corpus import Corpus
from brickyard.shards.scene import Identity, Points, Scene
from brickyard.shards.storage import Store


@dataclass(frozen=True, kw_only=True)
class Options:
    name: str = "a"


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """A third party's reader, which knows nothing of simulated worlds."""
    yield Notice(dataset="yard", scene_id="x", reason="not read")
    for name in (options.name, "b"):
        yield SceneRef(
            dataset="yard", scene_id=name, split="train", sequence="s", root=str(store.uri), files={}, details={"n": 1}
        )


def read(ref: SceneRef) -> Scene:
    identity = Identity(
        dataset="yard", version="3", split="train", sequence="s", scene_id=ref.scene_id, timestamp_ns=None,
        domain="indoor", licence="LicenseRef-yard",
    )  # fmt: skip
    return Scene(identity=identity, world_from_scene=np.eye(4), points=Points(xyz=np.zeros((3, 3), np.float32)))


SOURCE = Source("yard", Options, plan, read)


def identities(root: Path) -> set[tuple[str, str]]:
    found = set()
    for item in SOURCE.plan(Store(root), Options()):
        if isinstance(item, SceneRef):
            travelled = SceneRef(**json.loads(json.dumps(asdict(copy.deepcopy(item)))))
            identity = SOURCE.read(travelled).identity
            found.add((identity.licence, identity.version))
    return found


@pytest.mark.parametrize("text", [None, "", "MIT", "SPDX-License-Identifier: CC0-1.0\n", "x" * 5000])
def test_a_root_that_says_nothing_of_it_is_not_simulated(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "LICENSE").write_text(text)
    assert identities(tmp_path) == {("LicenseRef-yard", "3")}


def test_every_reader_inherits_it(tmp_path: Path) -> None:
    simulated.mark(tmp_path)
    assert identities(tmp_path) == {("CC0-1.0", "simulated")}
    assert [type(item) for item in SOURCE.plan(Store(tmp_path), Options())] == [Notice, SceneRef, SceneRef]


def test_every_simulated_dataset_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brickyard.ingest.simulate._writer", lambda name: lambda *_: {})
    simulate(tmp_path, datasets=ALL_DATASETS, config=SimulationConfig())
    roots = [tmp_path / name for name in ALL_DATASETS]
    roots += [tmp_path / name for name in ("kitti/object", "kitti/raw", "waymo/v1", "waymo/v2")]
    assert all(simulated.is_marked(Store(root)) for root in roots)


def test_a_corpus_and_its_page_say_so(tmp_path: Path) -> None:
    config = SimulationConfig(kitti_frames=2, kitti_drives=1, kitti_drive_frames=1, kitti_columns=90)
    simulate(tmp_path, datasets=("kitti",), config=config)
    root = tmp_path / "kitti" / "object"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: x\nsources: [{{dataset: kitti_object, root: {root}}}]\n")
    assert main(["build", str(recipe), "--out", str(tmp_path / "corpus"), "--in-process"]) == 0
    corpus = Corpus.open(tmp_path / "corpus")
    assert list(corpus.manifest["licences"]) == ["CC0-1.0"] and corpus.scene(0).identity.version == "simulated"
    assert main(["show", str(tmp_path / "corpus"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "CC0-1.0" in page and "Public domain" in page and "CC-BY" not in page
    (root / "LICENSE").unlink()
    source = find_source("kitti_object")
    ref = next(item for item in source.plan(Store(root), source.options()) if isinstance(item, SceneRef))
    assert source.read(ref).identity.licence == "CC-BY-NC-SA-3.0"
