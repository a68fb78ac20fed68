"""A corpus that grows: what is new is built, what is there stays byte for byte, and what the raw data lost is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml

from brickyard.infra.cli import main
from brickyard.infra.corpora import CorpusConfig, open_portions
from brickyard.infra.job import BuildResult, run_build
from brickyard.infra.plan import make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.infra.repair import repair
from brickyard.shards.codecs import Spec, encode_array
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.layers import LayeredCorpus, write_layer
from brickyard.shards.parts import read_inputs
from brickyard.shards.selection import select, write_selection
from brickyard.shards.storage import Store
from brickyard.shards.verify import verify
from brickyard.train.loop import TrainConfig
from tests.infra.test_build import files, write_kitti


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_kitti(tmp_path / "raw", 8)
    write_kitti(tmp_path / "more", 3)
    (tmp_path / "more" / "training").rename(tmp_path / "more" / "testing")
    return tmp_path


def recipe(home: Path, *roots: str, limit: int | None = None, **other: Any) -> None:
    sources = [{"dataset": "kitti_object", "root": root} for root in roots]
    sources[0] |= {} if limit is None else {"limit": limit}
    curation = {"curate": {"superpixels": None}, "shards": {"max_scenes": 2}} | other
    (home / "recipe.yaml").write_text(yaml.safe_dump({"name": "test", "sources": sources, **curation}))


def build(home: Path, out: str = "corpus", **options: Any) -> BuildResult:
    loaded, folder = load_recipe(home / "recipe.yaml")
    return run_build(loaded, make_plan(loaded, folder), str(home / out), in_process=True, **options)


def scan(home: Path, frame: int) -> Path:
    return home / "raw" / "training" / "velodyne" / f"{frame:06d}.bin"


def told(result: BuildResult) -> dict[str, str]:
    return {entry["key"].rpartition("/")[2]: entry["reason"] for entry in result.manifest["notices"]}


def test_only_what_is_new_is_built(home: Path) -> None:
    recipe(home, "raw", limit=3)
    build(home)
    first, before = Corpus.open(home / "corpus"), files(home / "corpus")
    recipe(home, "raw", limit=5)
    result = build(home, grows=True)
    assert (result.tasks_done, result.tasks_reused) == (1, 2)
    recipe(home, "raw", "more")
    result = build(home, grows=True)
    corpus = Corpus.open(home / "corpus")
    assert len(first) == 3 and len(corpus) == 11 and corpus.keys[:3] == first.keys
    assert [entry["scenes"] for entry in result.manifest["was"]] == [3, 5]
    assert result.manifest["was"][0]["corpus"] == first.manifest["digest"]
    after = files(home / "corpus")
    kept = {name: data for name, data in before.items() if name.startswith(("shards", "parts"))}
    assert kept.items() <= after.items()
    assert verify(corpus, deep=True).problems == ()
    assert [entry["parts"] for entry in result.manifest["code"]] == ["0-1", "2", "3-5"]
    again = build(home)
    assert (again.tasks_done, again.tasks_reused) == (0, 6) and files(home / "corpus") == after
    assert build(home, grows=True).tasks_done == 0 and files(home / "corpus") == after


def test_a_recipe_may_name_what_is_new_alone(home: Path) -> None:
    recipe(home, "raw")
    build(home)
    write_points(home)
    config = {"name": "test", "sources": [{"dataset": "pointfiles", "root": "files", "options": POINTS}]}
    config |= {"curate": {"superpixels": None}, "shards": {"max_scenes": 2}}
    (home / "recipe.yaml").write_text(yaml.safe_dump(config))
    result = build(home, grows=True)
    assert result.tasks_reused == 4 and len(Corpus.open(home / "corpus")) == 8 + 1
    assert told(result) == {"kitti_object": "its 8 scenes stay as they were built: it is no source of the recipe now"}


POINTS = {"licence": "CC0-1.0", "domain": "object", "metres_per_unit": 1.0}


def write_points(home: Path) -> None:
    (home / "files").mkdir()
    rows = "\n".join(f"{k % 7} {k % 11} {k % 13}" for k in range(200))
    head = "ply\nformat ascii 1.0\nelement vertex 200\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    (home / "files" / "one.ply").write_text(f"{head}end_header\n{rows}\n")


def test_what_the_raw_data_lost_stays_and_is_told(home: Path) -> None:
    recipe(home, "raw", limit=4)
    scan(home, 3).write_bytes(cut := scan(home, 3).read_bytes()[:1003])
    assert len(cut) == 1003
    build(home)
    kept = {key: Corpus.open(home / "corpus").scene(key) for key in Corpus.open(home / "corpus").keys}
    scan(home, 0).write_bytes(scan(home, 0).read_bytes()[:-16])
    for kind in ("velodyne", "image_2", "calib"):
        next((home / "raw" / "training" / kind).glob("000001.*")).unlink()
    scan(home, 3).write_bytes(scan(home, 4).read_bytes())
    recipe(home, "raw")
    result = build(home, grows=True)
    assert told(result)["000000"] == "stays as it was built: its raw files have changed"
    assert told(result)["000001"] == "stays as it was built: its raw files are not planned any more"
    corpus = Corpus.open(home / "corpus")
    assert not corpus.quarantine and len(corpus) == 8, "the scan that was cut short is taken now"
    assert all(len(corpus.scene(key).points.xyz) == len(scene.points.xyz) for key, scene in kept.items())  # type: ignore[union-attr]


@pytest.mark.parametrize("change, told", [
    ({"curate": {"superpixels": {"segments": 20}}}, "config.curate.superpixels"),
    ({"shards": {"max_scenes": 3}}, "config.shards.max_scenes: was 2, is 3"),
    ({"splits": "train"}, "config.splits: was null"),
])  # fmt: skip
def test_what_is_added_is_made_as_the_rest(home: Path, change: dict[str, Any], told: str) -> None:
    recipe(home, "raw", limit=2)
    build(home)
    before = files(home / "corpus")
    recipe(home, "raw", **change)
    with pytest.raises(CorpusError, match=told):
        build(home, grows=True)
    assert files(home / "corpus") == before


def test_other_code_is_accepted_or_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(home, "raw", limit=2)
    build(home)
    recipe(home, "raw")
    from brickyard.infra import plan

    code = plan.code_of
    monkeypatch.setattr(plan, "code_of", lambda *a: code(*a) | {"brickyard.ingest.kitti.velodyne": "0" * 16})
    with pytest.raises(CorpusError, match=r"other code made its former scenes.*\n  brickyard.ingest.kitti.velodyne"):
        build(home, grows=True)
    result = build(home, grows=True, accept_code=True)
    assert [entry["parts"] for entry in result.manifest["code"]] == ["0", "1-3"]
    assert len(Corpus.open(home / "corpus")) == 8


def test_an_unfinished_build_and_lost_records_do_not_grow(home: Path) -> None:
    recipe(home, "raw", limit=3)
    build(home)
    whole = files(home / "corpus")
    (home / "corpus" / MANIFEST).unlink()
    recipe(home, "raw")
    with pytest.raises(CorpusError, match="unfinished build: complete it without --grow"):
        build(home, grows=True)
    shutil.rmtree(home / "corpus")
    restore(home, whole)
    (home / "corpus/parts/00000.parquet").unlink()
    with pytest.raises(CorpusError, match="lacks records of shards"):
        build(home, grows=True)
    restore(home, whole)
    build(home, grows=True)
    (home / "corpus/parts/00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match=r"parts/00001.parquet is damaged or gone"):
        build(home)


def restore(home: Path, whole: dict[str, bytes]) -> None:
    for name, data in whole.items():
        (home / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "corpus" / name).write_bytes(data)


def test_a_grown_corpus_is_repaired(home: Path) -> None:
    recipe(home, "raw", limit=3)
    build(home)
    recipe(home, "raw")
    build(home, grows=True)
    whole = files(home / "corpus")
    for shard in sorted((home / "corpus" / "shards").iterdir())[::3]:
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    loaded, folder = load_recipe(home / "recipe.yaml")
    assert len(repair(loaded, make_plan(loaded, folder), str(home / "corpus")).shards) == 2
    assert files(home / "corpus") == whole
    shard = min((home / "corpus" / "shards").iterdir())
    shard.unlink()
    with pytest.raises(CorpusError, match="brickyard repair"):
        build(home, retry_quarantined=True)


def test_growth_that_was_cut_off_takes_data_that_changed_meanwhile(home: Path) -> None:
    recipe(home, "raw", limit=3)
    build(home)
    recipe(home, "raw", limit=6)
    with (
        mock.patch("brickyard.infra.job.finish_build", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        build(home, grows=True)
    assert len(Corpus.open(home / "corpus")) == 3, "readers see the former corpus"
    recipe(home, "raw")
    result = build(home, grows=True)
    assert len(Corpus.open(home / "corpus")) == 8
    assert [entry["scenes"] for entry in result.manifest["was"]] == [3]


def test_lost_scenes_are_tried_again_on_request(home: Path) -> None:
    recipe(home, "raw", limit=3, shards={"max_scenes": 2, "scene_timeout_s": 900})
    data = scan(home, 1).read_bytes()
    scan(home, 1).write_bytes(data[:1003])
    build(home)
    recipe(home, "raw")
    assert len(build(home, grows=True).manifest["quarantined"]) == 1
    shutil.copytree(home / "corpus", home / "other")
    recipe(home, "raw", "more")
    result = build(home, "other", grows=True, retry_quarantined=True)
    assert len(result.manifest["quarantined"]) == 1, "as damaged as before"
    assert "kitti_object/training/000001" in read_inputs(Store(str(home / "other")), "00005.parquet")[0]
    assert build(home, "other").tasks_done == 0


def test_selections_and_runs_keep_their_meaning(home: Path) -> None:
    recipe(home, "raw", limit=5)
    build(home)
    former = Corpus.open(home / "corpus")
    chosen = select(former, at_least={"n_points": 1}, weights={"kitti_object": 2})
    write_selection(Store(str(home)), "chosen.parquet", chosen)
    recipe(home, "raw", "more")
    build(home, grows=True)
    corpus = Corpus.open(home / "corpus")
    assert chosen.rows(corpus).tolist() == chosen.rows(former).tolist()
    then = corpus.as_it_was(former.fingerprint)
    assert (then.keys, then.fingerprint, then.newer) == (former.keys, former.fingerprint, 6)
    assert all(np.array_equal(then.scene(k).points.xyz, former.scene(k).points.xyz) for k in (0, 4))  # type: ignore[union-attr]
    with pytest.raises(CorpusError, match=r"has grown from .*; it was never"):
        corpus.as_it_was("0" * 16)
    with pytest.raises(CorpusError, match="select again"):
        select(corpus).rows(former)
    given, loop = [CorpusConfig(root=str(home / "corpus"))], TrainConfig(steps=2)
    for selections in ([], [home / "chosen.parquet"]):
        before = open_portions(given, selections, loop, None)[1][0]
        (after,) = open_portions(given, selections, loop, None, [former.fingerprint])[1]
        assert len(after.corpus) == 5 and after.corpus.fingerprint == former.fingerprint
        assert len(before.corpus) == 11
        if selections:
            assert np.array_equal(before.rows, after.rows)  # type: ignore[arg-type]


def test_a_layer_grows_with_its_corpus(home: Path) -> None:
    recipe(home, "raw", limit=3)
    build(home)
    made: list[int] = []

    def annotate(row: int) -> dict[str, tuple[bytes, Spec]]:
        made.append(row)
        return {"points/row": encode_array(np.full(Corpus.open(home / "corpus").points_per_scene[row], row, np.uint8))}

    def write() -> None:
        made.clear()
        write_layer(Corpus.open(home / "corpus"), "rows", annotate, provenance={"made": "by a test"})

    def fields() -> list[int]:
        corpus = LayeredCorpus.open(home / "corpus", layers=["rows"])
        return [row for row in range(len(corpus)) if "rows/points/row" in corpus.addresses(row)]

    write()
    recipe(home, "raw")
    build(home, grows=True)
    assert fields() == [0, 1, 2]
    write()
    assert made == [3, 4, 5, 6, 7] and fields() == list(range(8))
    corpus = LayeredCorpus.open(home / "corpus", layers=["rows"])
    values = corpus.read_field(6, corpus.header(6), "rows/points/row", corpus.addresses(6))
    assert np.array_equal(values, np.full(corpus.points_per_scene[6], 6))


def test_the_flag(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe(home, "raw", limit=2)
    words = ["build", str(home / "recipe.yaml"), "--out", str(home / "corpus"), "--in-process"]
    assert main(words) == 0
    recipe(home, "raw")
    assert main(words) == 1 and "`--grow` adds" in capsys.readouterr().err
    assert main([*words, "--grow"]) == 0
    assert "3 shards built, 1 found committed" in capsys.readouterr().out
