"""Planning as a user meets it: a bad source among good ones, partial downloads, nothing to build, what is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from brickyard.infra.cli import main
from brickyard.infra.plan import Plan, make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.ingest.source import Missing, Notice, SceneRef, Source
from brickyard.shards.errors import BrickyardError, RawDataError, RecipeError
from brickyard.shards.storage import Store
from tests.worlds import toy_scene


@dataclass(frozen=True, kw_only=True)
class Options:
    scenes: int = 2
    held_out: int = 0
    missing: int = 0
    notices: int = 0
    cut: bool = False
    fails: str = ""


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """Scenes by number, then whatever the options ask for."""
    list(store.walk())
    for i in range(options.scenes):
        split = "val" if i < options.held_out else "train"
        yield SceneRef(dataset="toy", scene_id=f"scene-{i:03d}", split=split, sequence=f"walk-{i // 4}",
                       root=store.uri, files={}, details={"cut": options.cut},
                       points_estimate=1_234_567, bytes_estimate=1000)  # fmt: skip
    for i in range(options.missing):
        yield Missing(dataset="toy", scene_id=f"lost{i:04d}_00", reason=f"scans/lost{i:04d}_00/{i}.sens is missing")
    for i in range(options.notices):
        yield Notice(dataset="toy", scene_id=f"pictures/{i:03d}.tif", reason="pictures of this format are not read")
    if options.fails == "table":
        raise RawDataError("the table is damaged", dataset="toy", path="tables/sample.json", offset=12)
    if options.fails == "layout":
        raise RecipeError(f"no scenes in {store.uri}: expected walk-0/")
    if options.fails == "exit":
        raise SystemExit(0)
    if options.fails:
        raise ZeroDivisionError(options.fails)


def read(ref: SceneRef) -> Any:
    if ref.details["cut"]:
        raise RawDataError("it is cut", dataset="toy", path=f"{ref.scene_id}.bin", scene=ref.scene_id)
    return toy_scene(int(ref.scene_id[-3:]))


SOURCE = Source("toy", Options, plan, read)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a root, where the source above is installed."""
    installed = tmp_path / "plugin" / "toy-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[brickyard.sources]\ntoy = {__name__}:SOURCE\n")
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "plugin"), str(Path(__file__).parents[2])]))
    (tmp_path / "raw").mkdir()
    return tmp_path


def write(folder: Path, *options: dict[str, Any]) -> str:
    """A recipe with a source for each set of options; returns its path."""
    sources = [{"dataset": "toy", "root": "raw", "options": entry} for entry in options]
    recipe = {"name": "x", "sources": sources, "curate": {"superpixels": None, "correspondences": None}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return str(folder / "recipe.yaml")


def planned(folder: Path, *options: dict[str, Any]) -> Plan:
    return make_plan(*load_recipe(Path(write(folder, *options))))


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        ("table", ["after 0 scenes", "toy: tables/sample.json at byte 12: the table is damaged"]),
        ("a sum", ["unexpected ZeroDivisionError in plan", "a sum"]),
        ("exit", ["unexpected SystemExit in plan"]),
    ],
)
def test_a_source_that_cannot_be_planned_costs_only_itself(folder: Path, fails: str, words: list[str]) -> None:
    found = planned(folder, {"scenes": 0, "fails": fails}, {"scenes": 3})
    assert [ref.scene_id for ref in found.refs] == ["scene-000", "scene-001", "scene-002"]
    (lost,) = found.missing
    assert lost.key == "toy/sources[0]"
    for word in words:
        assert word in lost.reason
    found = planned(folder, {"scenes": 2, "fails": fails})
    assert len(found.refs) == 2 and "after 2 scenes" in found.missing[0].reason
    with pytest.raises(
        BrickyardError,
        match=r"no scene can be built; missing: 2 scenes \(toy/sources\[0\], .*its plan ends in an error",
    ) as raised:
        planned(folder, {"scenes": 0, "fails": fails}, {"scenes": 0, "missing": 1, "fails": fails})
    assert not isinstance(raised.value, RecipeError)


def test_one_word_leaves_all_splits_but_train_out(folder: Path) -> None:
    path = Path(write(folder, {"scenes": 5, "held_out": 2}))
    whole = make_plan(*load_recipe(path))
    train = make_plan(*load_recipe(path, ["splits=train"]))
    assert [ref.scene_id for ref in whole.refs][2:] == [ref.scene_id for ref in train.refs]
    assert train.fingerprint["config"]["splits"] == "train" and "splits" not in whole.fingerprint["config"]
    few = make_plan(*load_recipe(path, ["splits=train", "sources.0.limit=2"]))
    assert [ref.scene_id for ref in few.refs] == ["scene-002", "scene-003"], "a limit counts what is taken"
    with pytest.raises(BrickyardError, match=r'none of its 2 scenes is of the split "train"'):
        make_plan(*load_recipe(Path(write(folder, {"scenes": 2, "held_out": 2})), ["splits=train"]))


def test_a_mistake_of_the_recipe_is_no_loss(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"no scenes in .*raw: expected walk-0/$"):
        planned(folder, {"scenes": 1}, {"scenes": 0, "fails": "layout"})
    (folder / "raw" / "loop").symlink_to(".")
    with pytest.raises(RecipeError, match=r"expected walk-0/; not listed: \./loop: a link leads here"):
        planned(folder, {"scenes": 1}, {"scenes": 0, "fails": "layout"})
    (folder / "raw" / "loop").unlink()
    with pytest.raises(RecipeError, match=r"sources\[1\] \(toy\): .*raw holds no scene in this dataset's layout"):
        planned(folder, {"scenes": 1}, {"scenes": 0})
    with pytest.raises(RecipeError, match="unknown key 'scene'"):
        planned(folder, {"scene": 1})
    (folder / "raw").rmdir()
    with pytest.raises(RecipeError, match=r"sources\[0\] \(toy\): the folder .*raw does not exist"):
        planned(folder, {"scenes": 1})


def test_what_was_seen_and_is_no_scene_is_told(folder: Path) -> None:
    (folder / "raw" / "win\\dows.ply").write_bytes(b"")
    (folder / "raw" / "loop").symlink_to(".")
    found = planned(folder, {"scenes": 1, "notices": 1})
    assert [notice.key for notice in found.notices] == ["toy/pictures/000.tif", "toy/loop", "toy/win\\dows.ply"]
    assert "backslash" in found.notices[2].reason and found.missing == ()
    found = planned(folder, {"scenes": 0, "notices": 20}, {"scenes": 1})
    assert "none of what it holds is a scene; not used: 20 " in found.missing[0].reason
    assert "pictures of this format are not read" in found.missing[0].reason


def test_a_partial_download_is_printed_in_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write(folder, {"missing": 749, "notices": 3})
    assert main(["plan", recipe]) == 0
    out = capsys.readouterr().out
    keys = "toy/lost0000_00, toy/lost0001_00, toy/lost0002_00, ..."
    line = f"749 scenes ({keys}): such as scans/lost0000_00/0.sens is missing"
    assert [text for text in out.splitlines() if text.startswith(("missing", "not used"))] == [
        "not used: 3 files (toy/pictures/000.tif, toy/pictures/001.tif, toy/pictures/002.tif): "
        "pictures of this format are not read",
        f"missing: {line}",
    ]
    row = next(text.split() for text in out.splitlines() if text.startswith("toy "))
    assert row[:3] == ["toy", "2", "~2,469,134"], "scenes are counted, points estimated"
    assert "2 scenes in 1 shards; ~" in out and " written, ~" in out
    assert main(["plan", recipe, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["missing"]) == 749

    assert main(["build", recipe, "--out", str(folder / "corpus"), "--in-process"]) == 3
    printed = capsys.readouterr()
    assert f"quarantined: {line}" in printed.err.splitlines() and printed.err.count("lost0") == 4
    assert "2 scenes in 1 shards" in printed.out and "749 quarantined" in printed.out


@pytest.mark.parametrize("allowed", [(), ("--allow-quarantined", "5")])
def test_no_scene_is_never_success(folder: Path, allowed: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    build = ("build", write(folder, {"scenes": 0, "missing": 1}), "--out", str(folder / "corpus"), "--in-process")
    assert main([*build, *allowed]) == 1
    assert (
        "no scene can be built; missing: toy/lost0000_00: scans/lost0000_00/0.sens is missing"
        in (capsys.readouterr().err.splitlines()[-1])
    )
    assert main(["plan", build[1]]) == 1
    assert not (folder / "corpus").exists()


@pytest.mark.parametrize("allowed", [(), ("--allow-quarantined", "5")])
def test_a_build_without_a_scene_fails(
    folder: Path, allowed: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(folder, {"scenes": 2, "cut": True})
    build = ("build", recipe, "--out", str(folder / "corpus"), "--in-process")
    assert main([*build, *allowed]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("brickyard build: no scene was built; 2 scenes (toy/scene-000, toy/scene-001): such as ")
    assert "scene-000.bin: it is cut" in last
    assert main([*build, *allowed, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["scenes"] == 0 and len(result["quarantined"]) == 2 and "no scene was built" in result["error"]
