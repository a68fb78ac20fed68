"""Code that changed after a build was begun: told, refused for parts that are there, accepted with a record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.infra.cli import main
from brickyard.infra.fingerprint import code_of
from brickyard.infra.job import BuildResult, run_build
from brickyard.infra.plan import make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.infra.repair import repair
from brickyard.infra.task import inputs
from brickyard.shards.build import fingerprint_digest
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.verify import verify
from tests.infra.test_build import files, write_kitti

RECIPE = """
name: test
sources: [{dataset: kitti_object, root: kitti}, {dataset: pointcept, root: rooms}]
curate: {superpixels: null, correspondences: null}
shards: {max_scenes: 2}
"""
VELODYNE, ROOMS = "brickyard.ingest.kitti.velodyne", "brickyard.ingest.pointcept"
WHOLE_FOLDERS = {
    "format": "2", "shards": "1" * 16, "curate": "2" * 16, "ingest": "3" * 16, "infra/plan.py": "4" * 16,
    "infra/task.py": "5" * 16, "numpy": "1.0", "nuscenes-devkit": "1.2.0", "brickyard": "0.1.0",
}  # fmt: skip
"""What code was in the fingerprints of former versions."""

Change = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_kitti(tmp_path / "kitti", 4)
    rng = np.random.default_rng(0)
    for number in range(2):
        room = tmp_path / "rooms" / "train" / f"scene000{number}_00"
        room.mkdir(parents=True)
        np.save(room / "coord.npy", rng.uniform(0, 3, (200, 3)).astype(np.float32))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Change:
    """From now on these modules and libraries are others, where a dataset has them."""

    def change(**others: str) -> None:
        names = {VELODYNE: others.pop("velodyne", ""), ROOMS: others.pop("rooms", ""), **others}
        new = {name: value for name, value in names.items() if value}

        def other(dataset: str, curation: Any) -> dict[str, str]:
            code = code_of(dataset, curation)
            return code | {name: value for name, value in new.items() if name in code}

        monkeypatch.setattr("brickyard.infra.plan.code_of", other)

    return change


def build(home: Path, out: str = "corpus", **options: Any) -> BuildResult:
    recipe, folder = load_recipe(home / "recipe.yaml")
    return run_build(recipe, make_plan(recipe, folder), str(home / out), in_process=True, **options)


def made(result: BuildResult) -> list[tuple[str, str, str]]:
    """(dataset, parts, code of the module that these tests change) of a manifest."""
    names = {"kitti_object": VELODYNE, "pointcept": ROOMS}
    return [(e["dataset"], e["parts"], e["code"].get(names[e["dataset"]], "old")) for e in result.manifest["code"]]


def test_the_manifest_says_which_parts_are_by_which_code(home: Path) -> None:
    result = build(home)
    assert [entry[:2] for entry in made(result)] == [("kitti_object", "0-1"), ("pointcept", "2")]
    config = load_recipe(home / "recipe.yaml")[0].curate
    assert result.manifest["code"][0]["code"] == code_of("kitti_object", config)


def test_other_code_is_refused_and_told(home: Path, change: Change) -> None:
    build(home)
    before = files(home / "corpus")
    change(velodyne="0" * 16, numpy="9.9")
    with pytest.raises(CorpusError, match="begun by other code") as raised:
        build(home)
    told = str(raised.value)
    assert f"{VELODYNE}: was " in told and f"is {'0' * 16} (for kitti_object)" in told
    assert f"numpy: was {np.__version__}, is 9.9 (for kitti_object, pointcept)" in told
    assert "Build into another folder, or `brickyard build --accept-code`" in told
    recipe, folder = load_recipe(home / "recipe.yaml")
    with pytest.raises(CorpusError, match=VELODYNE):
        repair(recipe, make_plan(recipe, folder), str(home / "corpus"))
    assert files(home / "corpus") == before


def test_accepted_code_keeps_the_parts_and_the_record(home: Path, change: Change) -> None:
    build(home)
    whole = files(home / "corpus")
    kitti = json.loads((home / "corpus" / MANIFEST).read_text())["code"][0]["code"][VELODYNE]
    (home / "corpus" / "parts" / "00001.parquet").unlink()
    change(velodyne="0" * 16)
    result = build(home, accept_code=True)
    assert (result.tasks_done, result.tasks_reused) == (1, 2)
    rooms = code_of("pointcept", load_recipe(home / "recipe.yaml")[0].curate)[ROOMS]
    record = [("kitti_object", "1", "0" * 16), ("kitti_object", "0", kitti), ("pointcept", "2", rooms)]
    assert made(result) == record
    shards = [name for name in whole if name.startswith("shards/")]
    assert shards and all(files(home / "corpus")[name] == whole[name] for name in shards)

    again = build(home)
    assert (again.tasks_done, again.tasks_reused, made(again)) == (0, 3, record), "no flag is needed any more"
    shard = home / "corpus" / shards[0]
    shard.write_bytes(bytes(255 - byte for byte in shard.read_bytes()))
    recipe, folder = load_recipe(home / "recipe.yaml")
    assert repair(recipe, make_plan(recipe, folder), str(home / "corpus")).shards == (shards[0],)
    assert (
        files(home / "corpus")[shards[0]] == whole[shards[0]]
        and not verify(Corpus.open(home / "corpus"), deep=True).problems
    )
    assert made(build(home)) == record

    change(velodyne="1" * 16)
    (home / "corpus" / "parts" / "00000.parquet").unlink()
    assert made(build(home, accept_code=True))[:2] == [
        ("kitti_object", "0", "1" * 16),
        ("kitti_object", "1", "0" * 16),
    ]


def test_a_crash_after_accepting_costs_nothing(home: Path, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    build(home)
    change(rooms="0" * 16)
    with monkeypatch.context() as dies:
        dies.setattr("brickyard.infra.job.start_build", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(home, accept_code=True)
    assert not (home / "corpus" / MANIFEST).exists()
    result = build(home)
    assert result.tasks_reused == 3 and made(result)[1][:2] == ("pointcept", "2")
    assert made(result)[1][2] != "0" * 16


def test_code_that_made_no_part_is_replaced_without_asking(home: Path, change: Change) -> None:
    """A reader that is worked on between two starts costs only what it makes."""
    build(home)
    change(rooms="0" * 16)
    build(home, "fresh")
    for name in (MANIFEST, "parts/00002.parquet"):
        (home / "corpus" / name).unlink()
    result = build(home)
    assert (result.tasks_done, result.tasks_reused) == (1, 2)
    assert files(home / "corpus") == files(home / "fresh")


def test_a_corpus_of_a_former_version_is_recognised(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code was the digests of whole folders; its parts are signed by all of that."""
    with monkeypatch.context() as former:
        former.setattr("brickyard.infra.plan.code_of", lambda *_: dict(WHOLE_FOLDERS))
        build(home)
    place = home / "corpus" / "build.json"
    fingerprint = json.loads(place.read_text())
    fingerprint["code"] = WHOLE_FOLDERS
    place.write_text(json.dumps(fingerprint))
    recipe, folder = load_recipe(home / "recipe.yaml")
    plan = make_plan(recipe, folder)
    made_by = fingerprint_digest({"config": fingerprint["config"], "code": WHOLE_FOLDERS})
    signed = fingerprint_digest({"made_by": made_by, "inputs": list(inputs(plan.tasks[0]).items())})
    assert signed.encode() in (home / "corpus" / "parts" / "00000.parquet").read_bytes()
    assert not verify(Corpus.open(home / "corpus"), deep=True).problems

    with pytest.raises(CorpusError, match="begun by other code") as raised:
        build(home)
    told = str(raised.value)
    assert "fingerprinted by whole folders; whether it is the same cannot be told (for kitti_object, poi" in told
    assert (
        f"numpy: was 1.0, is {np.__version__}" in told and "nuscenes-devkit" not in told and "brickyard: " not in told
    )
    result = build(home, accept_code=True)
    assert (result.tasks_reused, made(result)) == (3, [("kitti_object", "0-1", "old"), ("pointcept", "2", "old")])
    assert build(home).tasks_reused == 3


def test_another_configuration_is_never_accepted(home: Path, change: Change) -> None:
    build(home)
    change(rooms="0" * 16)
    (home / "recipe.yaml").write_text(RECIPE.replace("max_scenes: 2", "max_scenes: 3"))
    with pytest.raises(CorpusError, match="different build") as raised:
        build(home, accept_code=True)
    assert "config.shards.max_scenes: was 2, is 3" in str(raised.value) and ROOMS in str(raised.value)
    assert (home / "corpus" / MANIFEST).exists()


@pytest.mark.parametrize("code", [{"kitti_object": 1}, {"a": {"b": []}}, {"a": "b", "c": {}}, []])
def test_a_fingerprint_that_is_nonsense_is_no_fingerprint(home: Path, code: Any) -> None:
    build(home)
    place = home / "corpus" / "build.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"code": code}))
    with pytest.raises(CorpusError, match="different build"):
        build(home, accept_code=True)


def test_the_flag(home: Path, change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["build", str(home / "recipe.yaml"), "--out", str(home / "corpus"), "--in-process"]
    assert main(words) == 0
    change(rooms="0" * 16)
    assert main(words) == 1
    assert "--accept-code" in capsys.readouterr().err
    assert main([*words, "--accept-code"]) == 0 and main(words) == 0
