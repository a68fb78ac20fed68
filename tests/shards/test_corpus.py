"""Building, crashing, continuing, verifying: a reader sees a committed corpus or none."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import BrickyardError, CorpusError
from brickyard.shards.index import SCHEMA, read_index, write_index
from brickyard.shards.storage import Readable, Store
from brickyard.shards.verify import verify
from tests.shards.test_scene import scenes_differ
from tests.worlds import toy_corpus, toy_scene


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_scenes_come_back(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=6)
    assert len(corpus) == 6
    for number in range(6):
        scene = toy_scene(number, views=0 if number == 4 else 2)
        assert scenes_differ(scene, corpus.scene(scene.identity.key)) == []
    assert list(corpus.select(dataset="toy", split="val")) == []
    assert verify(corpus, deep=False).problems == ()


def test_a_scene_can_be_named_by_a_unique_ending(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=3)
    assert corpus.row("scene-002") == 2
    with pytest.raises(CorpusError, match="there is no scene"):
        corpus.row("scene-009")
    with pytest.raises(CorpusError, match="3 scenes match"):
        corpus.row("toy/")


def test_a_part_of_no_scenes_is_a_part(tmp_path: Path) -> None:
    table, note = read_index(write_index(SCHEMA.empty_table(), {"scenes": 0}).to_pybytes(), "a part")
    assert (len(table), table.schema, note) == (0, SCHEMA, {"scenes": 0})


def test_stock_pyarrow_and_duckdb_read_it(tmp_path: Path) -> None:
    import duckdb

    corpus = toy_corpus(tmp_path / "c", scenes=6)
    shard = tmp_path / "c" / corpus.shard(0)
    table = pq.read_table(shard, page_checksum_verification=True)
    image = table.column("views/image")[0][1].as_py()
    assert image == toy_scene(0).views[1].image
    assert pq.ParquetFile(shard).num_row_groups == table.num_rows
    (total,) = duckdb.sql(f"select sum(n_points) from '{tmp_path}/c/index.parquet' where split = 'train'").fetchall()
    assert total == (2400,)


class PowerFailure(BrickyardError):
    pass


class FailingStore(Store):
    """A disk whose power fails at the n-th write, before or after the bytes are there."""

    fails_at, after, writes = -1, False, 0

    def write(self, name: str, data: Readable) -> None:
        self.writes += 1
        if self.writes == self.fails_at and not self.after:
            (Path(self.path("")) / ".partial-1-2-x").write_bytes(bytes(memoryview(data)[:10]))
            raise PowerFailure
        super().write(name, data)
        if self.writes == self.fails_at:
            raise PowerFailure


def build(store: Store) -> None:
    fingerprint = {"toy": 1}
    digest = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    for task in range(2):
        if not store.exists(f"parts/{task:05d}.parquet"):
            commit_task(store, task, digest, [encode_scene(toy_scene(2 * task + i)) for i in range(2)], [])
    finish_build(store, 2, digest, [], {})


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fails_at", range(1, 8))
def test_power_failure_at_every_write(tmp_path: Path, fails_at: int, after: bool) -> None:
    build(Store(tmp_path / "whole"))
    store = FailingStore(tmp_path / "crashed")
    store.fails_at, store.after = fails_at, after
    (tmp_path / "crashed").mkdir()
    with pytest.raises(PowerFailure):
        build(store)
    if not (fails_at == 7 and after):
        with pytest.raises(CorpusError):
            Corpus.open(tmp_path / "crashed")
    build(Store(tmp_path / "crashed"))
    assert files(tmp_path / "crashed") == files(tmp_path / "whole")
    assert verify(Corpus.open(tmp_path / "crashed")).problems == ()


def test_another_build_is_refused_with_the_difference(tmp_path: Path) -> None:
    store = Store(tmp_path)
    start_build(store, {"config": {"steps": 1, "same": 2}})
    with pytest.raises(CorpusError, match=r"config.steps: was 1, is 3"):
        start_build(store, {"config": {"steps": 3, "same": 2}})


def test_what_is_no_corpus_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is not a corpus"):
        Corpus.open(tmp_path)
    start_build(Store(tmp_path), {})
    with pytest.raises(CorpusError, match="unfinished"):
        Corpus.open(tmp_path)


def test_a_newer_corpus_is_refused_with_a_sentence(tmp_path: Path) -> None:
    toy_corpus(tmp_path / "c", scenes=2)
    path = tmp_path / "c" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(CorpusError, match="update"):
        Corpus.open(tmp_path / "c")


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    """One bit in every 97th byte of every file: the corpus does not open, or verify reports a problem."""
    folder = tmp_path / "c"
    toy_corpus(folder, scenes=2)
    for name, data in files(folder).items():
        if name in ("build.json",) or name.startswith("parts/"):
            continue  # not read by readers
        for place in range(0, len(data), 97 if name.startswith("shards/") else 31):
            damaged = bytearray(data)
            damaged[place] ^= 1 << (place % 8)
            (folder / name).write_bytes(damaged)
            try:
                found = verify(Corpus.open(folder)).problems
            except CorpusError:
                continue
            assert found, f"{name} byte {place}"
        (folder / name).write_bytes(data)


def test_the_report_names_shard_scene_and_field(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=3)
    place = corpus.addresses(1)["points/color"]
    path = tmp_path / "c" / corpus.shard(1)
    data = bytearray(path.read_bytes())
    data[place.offset + 3] ^= 4
    path.write_bytes(data)
    (problem,) = verify(Corpus.open(tmp_path / "c")).problems
    assert corpus.shard(1) in problem
    assert "toy/scene-001" in problem
    assert "points/color" in problem


def test_paths_outside_a_store_are_refused(tmp_path: Path) -> None:
    for name in ("../x", "/etc/passwd", "a/../../b", "a\0b"):
        with pytest.raises(BrickyardError, match="refused"):
            Store(tmp_path).read(name)
