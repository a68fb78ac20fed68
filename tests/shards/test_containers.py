"""Two containers, one corpus: the same blobs, the same stream, and files that stock tools read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.codecs import encode_array
from brickyard.shards.convert import convert, stored_scene
from brickyard.shards.corpus import Corpus
from brickyard.shards.diff import diff
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import CorpusError, CorruptDataError
from brickyard.shards.export.plain import export_plain
from brickyard.shards.index import Quarantined
from brickyard.shards.layers import LayeredCorpus, write_layer
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from brickyard.shards.verify import verify
from tests.worlds import toy_corpus, toy_scene


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}


def test_there_and_back_gives_the_very_files(tmp_path: Path) -> None:
    first = toy_corpus(tmp_path / "a")
    convert(first, Store(tmp_path / "b"), "webdataset")
    second = Corpus.open(tmp_path / "b")
    assert second.manifest["converted_from"] == first.manifest["digest"]
    assert all(name.endswith(".tar") for name in files(tmp_path / "b"))
    assert verify(second).problems == ()
    for row in range(len(first)):
        assert stored_scene(second, row) == stored_scene(first, row)
    convert(second, Store(tmp_path / "c"), "parquet")
    assert files(tmp_path / "c") == files(tmp_path / "a")
    assert Corpus.open(tmp_path / "c").index.equals(first.index)


def test_a_stored_scene_is_the_encoded_one(tmp_path: Path) -> None:
    assert stored_scene(toy_corpus(tmp_path), 3) == encode_scene(toy_scene(3))


def test_the_stream_does_not_notice_the_container(tmp_path: Path) -> None:
    streams = [
        Stream(toy_corpus(tmp_path / name, container=name), ["points/*", "views/*"], batch=4, seed=3, epochs=1)
        for name in ("parquet", "webdataset")
    ]
    for one, two in zip(*streams, strict=True):
        for a, b in zip(one, two, strict=True):
            assert (a.key, a.position, a.fields) == (b.key, b.position, b.fields)
            assert np.array_equal(a["points/xyz"].dequantise(), b["points/xyz"].dequantise())


def test_stock_tools_read_the_tar(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    corpus = toy_corpus(tmp_path, container="webdataset")
    shards = sorted(str(path) for path in (tmp_path / "shards").iterdir())
    names = []
    for shard in shards:
        with tarfile.open(shard) as archive:
            names += archive.getnames()
    assert len(names) == sum(len(corpus.addresses(row)) for row in range(len(corpus)))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == len(corpus)
    for row, sample in enumerate(samples):
        header = json.loads(sample["header.json"])
        assert f"{header['identity']['dataset']}/{header['identity']['scene_id']}" == corpus.keys[row]
        place = corpus.addresses(row)["points/xyz"]
        assert sample["points.xyz.blosc"] == bytes(corpus.read_blob(row, "points/xyz", place))
    decoded = next(iter(webdataset.WebDataset(shards, shardshuffle=False).decode("pil")))
    assert decoded["view0.image.png"].size == (64, 40)


def test_damage_is_not_copied(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "a")
    place = corpus.addresses(7)["points/color"]
    path = tmp_path / "a" / corpus.shard(7)
    data = bytearray(path.read_bytes())
    data[place.offset + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"scene-007.*points/color"):
        convert(corpus, Store(tmp_path / "b"), "webdataset")
    with pytest.raises(CorpusError, match="unfinished"):
        Corpus.open(tmp_path / "b")


def test_a_killed_conversion_goes_on(tmp_path: Path) -> None:
    toy_corpus(tmp_path / "a", scenes=24, per_shard=2)
    program = (
        "import sys; from brickyard.shards.convert import convert; from brickyard.shards.corpus import Corpus; "
        "from brickyard.shards.storage import Store; "
        "convert(Corpus.open(sys.argv[1]), Store(sys.argv[2]), 'webdataset')"
    )
    dying = f"from tests.killing import kill_at_rename; kill_at_rename('*/parts/0*', 4); {program}"
    child = subprocess.run([sys.executable, "-c", dying, str(tmp_path / "a"), str(tmp_path / "b")], check=False)
    assert child.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "b" / "parts").glob("0*"))) == 3
    assert not (tmp_path / "b" / "manifest.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "b" / "parts").glob("0*")}
    corpus = Corpus.open(tmp_path / "a")
    convert(corpus, Store(tmp_path / "b"), "webdataset")
    convert(corpus, Store(tmp_path / "c"), "webdataset")
    assert files(tmp_path / "b") == files(tmp_path / "c")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "b" / "parts").glob("0*")}
    assert before.items() <= after.items()


def test_a_task_that_lost_all_its_scenes_leaves_a_gap_and_nothing_else(tmp_path: Path) -> None:
    """Converted, converted back, given a layer, exported: each twice, as a rerun does."""
    store, build = Store(tmp_path / "a"), fingerprint_digest({})
    start_build(store, {})
    commit_task(store, 0, build, [encode_scene(toy_scene(0))], [])
    commit_task(store, 1, build, [], [Quarantined("toy/lost", "truncated")])
    commit_task(store, 2, build, [encode_scene(toy_scene(1))], [])
    finish_build(store, 3, build, [], {})
    first = Corpus.open(tmp_path / "a")
    for _ in range(2):
        convert(first, Store(tmp_path / "b"), "webdataset")
        second = Corpus.open(tmp_path / "b")
        convert(second, Store(tmp_path / "c"), "parquet")
        write_layer(second, "l", lambda row: {"extra/x": encode_array(np.full(3, row, np.uint8))}, provenance={})
        export_plain(second, Store(tmp_path / "d"))
    third = Corpus.open(tmp_path / "c")
    assert second.quarantine == third.quarantine == first.quarantine == [Quarantined("toy/lost", "truncated")]
    assert diff(first, second).equal
    assert [name[:12] for name in map(second.shard, range(2))] == ["shards/00000", "shards/00002"]
    for row in range(2):
        assert third.store.read(third.shard(row)) == first.store.read(first.shard(row))
    layered = LayeredCorpus.open(tmp_path / "b", layers=["l"])
    assert layered.read_field(1, layered.header(1), "l/extra/x", layered.addresses(1)).tolist() == [1, 1, 1]


def test_two_shards_of_one_number_are_not_taken_for_one(tmp_path: Path) -> None:
    """They would be converted into one file, the scenes of the second lost."""
    corpus = toy_corpus(tmp_path / "a", scenes=2, per_shard=1)
    corpus._shards[1] = corpus._shards[0].replace("-", "-0")
    with pytest.raises(CorpusError, match="no number of its own"):
        convert(corpus, Store(tmp_path / "b"), "webdataset")
