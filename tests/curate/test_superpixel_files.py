"""Superpixels from files: exported and taken back they are the same; every file that does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from brickyard.curate.pipeline import CurateConfig, curate
from brickyard.curate.superpixel_files import SuperpixelFiles, add_superpixel_files
from brickyard.infra.cli import main
from brickyard.infra.config import load, to_yaml
from brickyard.infra.recipe import load_recipe
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import CorpusError, RecipeError, SceneError
from brickyard.shards.export.superpixels import export_superpixels
from brickyard.shards.label_maps import map_bytes
from brickyard.shards.scene import Scene, Superpixels
from brickyard.shards.storage import Store
from tests.infra.test_build import RECIPE, brickyard, home
from tests.shards.test_export import corpus_of, files
from tests.worlds import toy_corpus, toy_scene

__all__ = ["home"]
Edit = Callable[[dict[str, Any], Path], None]


def bare(scene: Scene) -> Scene:
    return replace(scene, views=tuple(replace(view, superpixels=None) for view in scene.views))


def test_what_was_exported_comes_back(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=6)
    done = export_superpixels(corpus, Store(tmp_path / "out"))
    assert done == {"scenes": 5, "maps": 10, "without_superpixels": 1}
    for row in range(6):
        scene = corpus.scene(row)
        again = add_superpixel_files(bare(scene), SuperpixelFiles(root=str(tmp_path / "out")))
        for old, new in zip(scene.views, again.views, strict=True):
            assert old.superpixels is not None and new.superpixels is not None
            assert np.array_equal(old.superpixels.labels, new.superpixels.labels)
            assert old.superpixels.provenance == new.superpixels.provenance
        assert encode_scene(scene).blobs == encode_scene(again).blobs
    first = files(tmp_path / "out")
    assert sorted(first)[:2] == ["LICENCES.txt", "export.json"]
    assert {"toy/scene-000/superpixels.json", "toy/scene-000/camera-1.png"} < first.keys()
    (tmp_path / "out/toy/scene-001/superpixels.json").unlink()  # as if killed there
    (tmp_path / "out/toy/scene-001/camera-0.png").unlink()
    export_superpixels(corpus, Store(tmp_path / "out"))
    assert files(tmp_path / "out") == first


def test_more_than_255_take_16_bits(tmp_path: Path) -> None:
    scene = toy_scene()
    labels = np.arange(64 * 40, dtype=np.uint16).reshape(40, 64)
    many = replace(scene.views[0], superpixels=Superpixels(labels=labels, provenance="each pixel"))
    corpus = corpus_of(tmp_path / "c", [replace(scene, views=(many,))])
    export_superpixels(corpus, Store(tmp_path / "out"))
    found = curate(
        replace(scene, views=scene.views[:1]), CurateConfig(superpixels=SuperpixelFiles(root=str(tmp_path / "out")))
    )
    assert found.views[0].superpixels is not None
    assert np.array_equal(found.views[0].superpixels.labels, labels)


def test_scenes_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    scenes = [
        replace(s, identity=replace(s.identity, scene_id=name))
        for s, name in ((toy_scene(1), "Room"), (toy_scene(2), "room"))
    ]
    with pytest.raises(CorpusError, match="2 scenes would lie in the folder toy/room"):
        export_superpixels(corpus_of(tmp_path / "c", scenes), Store(tmp_path / "out"))


def gone(manifest: dict[str, Any], folder: Path) -> None:
    (folder / "camera-1.png").unlink()


def damaged(manifest: dict[str, Any], folder: Path) -> None:
    data = bytearray((folder / "camera-1.png").read_bytes())
    data[60] ^= 1
    (folder / "camera-1.png").write_bytes(data)
    del manifest["views"]["camera-1"]["xxh3"]


def other(manifest: dict[str, Any], folder: Path) -> None:
    (folder / "camera-1.png").write_bytes((folder / "camera-0.png").read_bytes())


def wrong_size(manifest: dict[str, Any], folder: Path) -> None:
    (folder / "camera-1.png").write_bytes(map_bytes(np.zeros((40, 63), np.uint16)))
    manifest["views"]["camera-1"] = {"file": "camera-1.png", "method": "mine"}


def too_large(manifest: dict[str, Any], folder: Path) -> None:
    with (folder / "camera-1.png").open("ab") as file:
        file.truncate(1 << 20)


def outside(manifest: dict[str, Any], folder: Path) -> None:
    manifest["views"]["camera-1"]["file"] = "../scene-001/camera-1.png"


def no_entry(manifest: dict[str, Any], folder: Path) -> None:
    del manifest["views"]["camera-1"]


def of_another(manifest: dict[str, Any], folder: Path) -> None:
    manifest["scene"] = "toy/scene-007"


def miscounted(manifest: dict[str, Any], folder: Path) -> None:
    manifest["views"]["camera-1"]["count"] = 3


def unnamed(manifest: dict[str, Any], folder: Path) -> None:
    del manifest["views"]["camera-1"]["method"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (gone, r"view camera-1: there is no .*/toy/scene-000/camera-1.png: export or make"),
        (damaged, r"view camera-1: .*camera-1.png at byte \d+: the checksum of the PNG chunk"),
        (other, r"view camera-1: .*camera-1.png is not what its manifest was written for"),
        (wrong_size, r"view camera-1: .*a map of 63x40 pixels, its image has 64x40"),
        (too_large, r"view camera-1: .*has 1048576 bytes, more than it may have"),
        (outside, r"view camera-1: the map '../scene-001/camera-1.png' is not the name of a PNG"),
        (no_entry, r"scene toy/scene-000: .* has no map of 1 of 2 views, such as camera-1"),
        (of_another, r"scene toy/scene-000: .* is of scene 'toy/scene-007'"),
        (miscounted, r"view camera-1: .* ids, its manifest says 3"),
        (unnamed, r"scene toy/scene-000: .*superpixels.json .*method"),
    ],
)
def test_maps_that_do_not_fit_name_scene_view_and_file(tmp_path: Path, edit: Edit, message: str) -> None:
    export_superpixels(corpus_of(tmp_path / "c", [toy_scene(0)]), Store(tmp_path / "out"))
    place = tmp_path / "out/toy/scene-000/superpixels.json"
    manifest = json.loads(place.read_text())
    edit(manifest, place.parent)
    place.write_text(json.dumps(manifest))
    with pytest.raises(SceneError, match=message):
        add_superpixel_files(bare(toy_scene(0)), SuperpixelFiles(root=str(tmp_path / "out")))
    with pytest.raises(SceneError, match=r"scene toy/scene-005: there is no .*superpixels.json"):
        add_superpixel_files(toy_scene(5), SuperpixelFiles(root=str(tmp_path / "out")))


@pytest.mark.parametrize("section", ["{kind: slic, segments: 9}", "{kind: fast}", "{least: 0.25}", "{root: maps}"])
def test_a_section_written_out_is_read_back(section: str) -> None:
    config = load(f"superpixels: {section}", CurateConfig, where="r.yaml")
    assert load(to_yaml(config), CurateConfig, where="r.yaml") == config


def test_roots_of_maps_start_at_the_recipe_and_take_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maps").mkdir()
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\ncurate: {superpixels: {kind: files, root: maps}}\n")
    monkeypatch.setenv("MAPS", str(tmp_path / "maps"))
    for change in ((), ("curate.superpixels.root=${MAPS}",)):
        assert load_recipe(recipe, change)[0].curate.superpixels == SuperpixelFiles(root=str(tmp_path / "maps"))
    with pytest.raises(RecipeError, match=r"curate.superpixels.root: .*/other is not there"):
        load_recipe(recipe, ["curate.superpixels.root=other"])
    with pytest.raises(RecipeError, match="missing key 'root'"):
        load_recipe(recipe, ["curate.superpixels={kind: files}"])
    with pytest.raises(RecipeError, match="unknown kind 'quick'"):
        load_recipe(recipe, ["curate.superpixels={kind: quick}"])


def test_a_corpus_built_from_its_own_maps_has_the_same_shards(home: Path) -> None:
    fast = yaml.safe_load(RECIPE) | {"curate": {"superpixels": {"kind": "fast", "segments": 20}}}
    (home / "recipe.yaml").write_text(yaml.safe_dump(fast))
    assert brickyard(home, "build", "recipe.yaml", "--out", "first", "--in-process")[0] == 0
    assert main(["export", str(home / "first"), "--to", "superpixels", "--out", str(home / "maps")]) == 0
    fast["curate"] = {"superpixels": {"kind": "files", "root": "maps"}}
    (home / "recipe.yaml").write_text(yaml.safe_dump(fast))
    assert brickyard(home, "build", "recipe.yaml", "--out", "second", "--in-process")[0] == 0
    one, two = Corpus.open(home / "first"), Corpus.open(home / "second")
    assert one.keys == two.keys and len(one) == 8
    shards = [{n: d for n, d in files(home / name).items() if n.startswith("shards/")} for name in ("first", "second")]
    assert sorted(shards[0].values()) == sorted(shards[1].values())
    view = two.scene(0).views[0]
    assert view.superpixels is not None and view.superpixels.provenance.startswith("brickyard-fast-1 ")
