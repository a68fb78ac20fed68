"""Every region of every file of a corpus, damaged in every way: found, or provably harmless; never a wrong sample.

Here each region gets a few kinds of damage; `python -m tests.benchmarks.corruption --every 1` takes every byte.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.cache import CacheConfig
from brickyard.shards.codecs import Pairs, Quantised, encode_array
from brickyard.shards.containers import ContainerName
from brickyard.shards.corpus import INDEX, MANIFEST, Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import CorruptDataError
from brickyard.shards.layers import LayeredCorpus, write_layer
from brickyard.shards.parts import read_part
from brickyard.shards.selection import read_selection, select, write_selection
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from brickyard.shards.verify import verify
from tests import damage
from tests.damage import Case, Outcome, Region
from tests.worlds import toy_scene

FINGERPRINT = {"toy": 3}
LAYER = "twice"
ME = "tests.shards.test_corruption"


class FoundByVerify(Exception):
    """No sample is wrong, but `verify` says that the file is not the one that was written."""


def small_corpus(folder: Path, container: ContainerName = "parquet") -> Corpus:
    """Two shards with three scenes of 40 points and a view (one has none)."""
    store, build = Store(folder), fingerprint_digest(FINGERPRINT)
    start_build(store, FINGERPRINT)
    scenes = [encode_scene(toy_scene(number, points=40, views=number != 1)) for number in range(3)]
    for task, group in enumerate((scenes[:2], scenes[2:])):
        commit_task(store, task, build, group, [], container=container)
    finish_build(store, 2, build, [], {})
    return Corpus.open(folder)


# Readers: what is compared with the truth


def digest(value: Any) -> str:
    """Of a decoded field or of plain Python values."""
    if isinstance(value, Quantised):
        value = (value.values, value.origin, value.step)
    if isinstance(value, tuple | Pairs):
        return xxhash.xxh3_64_hexdigest("".join(digest(part) for part in value).encode())
    if isinstance(value, np.ndarray):
        return xxhash.xxh3_64_hexdigest(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    return xxhash.xxh3_64_hexdigest(value if isinstance(value, memoryview) else repr(value).encode())


def read_corpus(folder: Path) -> Iterator[tuple[str, str]]:
    yield from _stream(Corpus.open(folder))


def read_layered(folder: Path) -> Iterator[tuple[str, str]]:
    corpus = LayeredCorpus.open(folder, layers=[LAYER])
    yield from _stream(corpus, corpus.layers[LAYER])


def read_cached(folder: Path) -> Iterator[tuple[str, str]]:
    """Twice: what the first pass puts right must stay right."""
    for _ in range(2):
        yield from _stream(Corpus.open(folder, cache=CacheConfig(folder=str(folder / "cache"))))


def _stream(corpus: Corpus, *others: Corpus) -> Iterator[tuple[str, str]]:
    """Damaged scenes are replaced, so that a wrong one has every chance to slip through."""
    stream = Stream(corpus, ("*",), batch=1, epochs=1, threads=1, bad_scenes=99)
    for (sample,) in stream:
        header = sample.header
        facts = (header.identity, header.points, header.views, header.dropped, header.world_crs, str(vars(header.part))
                 if header.part else None, header.world_from_scene)  # fmt: skip
        yield sample.key, digest((*facts, *((name, sample[name]) for name in sample.fields)))
    if stream.replaced:
        raise CorruptDataError(next(iter(stream.replaced.values())), shard="")
    for one in (corpus, *others):
        if problems := verify(one).problems:
            raise FoundByVerify(problems[0])


def read_build(folder: Path) -> Iterator[tuple[str, str]]:
    """What a build that is run again believes."""
    store = Store(folder)
    start_build(store, FINGERPRINT)
    for task in range(2):
        record = read_part(store, task, fingerprint_digest(FINGERPRINT))
        if record is None:
            raise ValueError(f"task {task} is not committed")
        yield str(task), digest((record[0], record[1].to_pylist()))


def read_chosen(folder: Path) -> Iterator[tuple[str, str]]:
    chosen = read_selection(Store(folder), "chosen.parquet")
    yield "chosen", digest((chosen.corpus, chosen.keys, chosen.weights, chosen.reasons, dict(chosen.about)))


# Regions


def parquet_regions(data: bytes) -> Iterator[Region]:
    """Beginning and rest of every column chunk (the page header is at the beginning), footer, its length and mark."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    yield Region("magic", 0, 4)
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            start = min(p for p in (column.dictionary_page_offset, column.data_page_offset) if p)
            end = start + column.total_compressed_size
            yield Region("page header", start, min(start + 30, end))
            yield Region("page", min(start + 30, end), end)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for start in range(footer, len(data) - 8, 64):
        yield Region("footer", start, min(start + 64, len(data) - 8))
    yield Region("magic", len(data) - 8, len(data))


def shard_regions(corpus: Corpus, shard: str, data: bytes) -> Iterator[Region]:
    """Every blob, and whatever the container has between them and after."""
    places = [p for row in range(len(corpus)) if corpus.shard(row) == shard for p in corpus.addresses(row).values()]
    end = 0
    for place in sorted(places, key=lambda p: p.offset):
        yield Region("container", end, place.offset)
        yield Region("blob", place.offset, place.offset + place.length)
        end = place.offset + place.length
    yield Region("container", end, (end + len(data)) // 2)
    yield Region("container", (end + len(data)) // 2, len(data))


def json_regions(data: bytes) -> Iterator[Region]:
    """Line by line."""
    start = 0
    for line in data.splitlines(keepends=True):
        yield Region("line", start, start + len(line))
        start += len(line)


def regions(folder: Path) -> dict[str, list[Region]]:
    """Regions of every file of a corpus (layers and the cache are not looked into)."""
    corpus = Corpus.open(folder)
    found: dict[str, list[Region]] = {}
    for path in sorted(p for name in ("", "parts", "shards") for p in (folder / name).iterdir() if p.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        if name.startswith("shards/"):
            found[name] = list(shard_regions(corpus, name, data))
        elif path.suffix == ".parquet":
            found[name] = list(parquet_regions(data))
        else:
            found[name] = list(json_regions(data))
    return found


# The matrix


def matrix(reader: str, folder: Path, files: dict[str, list[Region]], per_region: int) -> list[Outcome]:
    """Run the cases and fail for any that is neither detected nor harmless."""
    cases: list[Case] = []
    for name, parts in files.items():
        cases += damage.drawn_cases(name, parts, 0, per_region) + damage.whole_file_cases(name, "whole")
    outcomes = damage.run(f"{ME}:{reader}", folder, cases)
    assert len(outcomes) > 0.7 * len(cases)  # some have nothing to change places with
    assert [o for o in outcomes if o.result not in ("detected", "harmless")] == []
    assert max(o.seconds for o in outcomes) < damage.MAX_SECONDS
    print(Counter((o.case.part, o.result, o.error.partition(":")[0]) for o in outcomes))
    return outcomes


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_no_damage_to_a_corpus_gives_a_wrong_sample(tmp_path: Path, container: ContainerName) -> None:
    small_corpus(tmp_path, container)
    read = {name: parts for name, parts in regions(tmp_path).items() if name != "build.json" and "parts/" not in name}
    outcomes = matrix("read_corpus", tmp_path, read, 1)
    assert {o.case.part for o in outcomes} >= {"blob", "container", "line", "page", "footer", "magic", "whole"}
    for outcome in outcomes:  # every byte of index and shards is vouched for, of the manifest all that has a meaning
        if outcome.result == "harmless":
            assert outcome.case.file == MANIFEST, outcome
        if outcome.case.part == "blob" and outcome.case.kind in ("flip", "zero"):
            assert outcome.error.startswith("CorruptDataError"), outcome
        if outcome.case.file in (INDEX, MANIFEST) and outcome.result == "detected":
            assert outcome.error.startswith("CorpusError"), outcome


def test_no_damage_to_the_commit_records_is_believed(tmp_path: Path) -> None:
    small_corpus(tmp_path)
    files = {name: parts for name, parts in regions(tmp_path).items() if name == "build.json" or "parts/" in name}
    for outcome in matrix("read_build", tmp_path, files, 1):
        assert outcome.result == "detected" or outcome.case.file == "build.json", outcome


def test_no_damage_to_a_selection_is_believed(tmp_path: Path) -> None:
    write_selection(Store(tmp_path / "s"), "chosen.parquet", select(small_corpus(tmp_path / "c"), splits=["train"]))
    data = (tmp_path / "s" / "chosen.parquet").read_bytes()
    files = {"chosen.parquet": list(parquet_regions(data))}
    assert {o.result for o in matrix("read_chosen", tmp_path / "s", files, 7)} == {"detected"}


def test_no_damage_to_a_layer_gives_a_wrong_sample(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path)

    def twice(row: int) -> dict[str, Any]:
        return {"points/twice": encode_array(corpus.scene(row).points.xyz * 2)}  # type: ignore[union-attr]

    write_layer(corpus, LAYER, twice, provenance={"by": 2})
    below = f"layers/{LAYER}/"
    files = {below + name: parts for name, parts in regions(tmp_path / below).items() if "parts" not in name}
    del files[below + "build.json"]
    for outcome in matrix("read_layered", tmp_path, files, 1):
        assert outcome.result == "detected" or outcome.case.file.endswith(MANIFEST), outcome


def test_a_damaged_cache_is_put_right(tmp_path: Path) -> None:
    small_corpus(tmp_path)
    assert len(dict(read_cached(tmp_path))) == 3
    files: dict[str, list[Region]] = {}
    kept = [path for path in sorted((tmp_path / "cache").rglob("*")) if path.is_file()]
    assert len(kept) > 40
    for path in [*kept[:-1:7], kept[-1]]:  # the last one is the lock
        files[path.relative_to(tmp_path).as_posix()] = [Region("cache", 0, path.stat().st_size)]
    assert {o.result for o in matrix("read_cached", tmp_path, files, 4)} == {"harmless"}


def test_the_matrix_sees_a_reader_that_does_not_check(tmp_path: Path) -> None:
    """The yardstick itself: a reader without checks gives wrong, lost, slow and crashed cases."""
    text = "".join(f"line {number}\n" for number in range(9))
    (tmp_path / "lines.txt").write_text(text)
    expected = {("flip", 8): "wrong", ("flip", 15): "detected", ("cut", 0): "crash", ("cut", 1): "slow",
                ("cut", 14): "lost", ("cut", len(text) - 1): "harmless"}  # fmt: skip
    cases = [Case("lines.txt", "all", kind, 0, len(text), place) for kind, place in expected]
    outcomes = damage.run(f"{ME}:careless", tmp_path, cases, seconds=3.0)
    assert {(o.case.kind, o.case.place): o.result for o in outcomes} == expected


def careless(folder: Path) -> Iterator[tuple[str, str]]:
    text = (folder / "lines.txt").read_text(encoding="ascii")
    if len(text) < 2:
        time.sleep(100) if text else os.abort()
    yield from ((str(number), line) for number, line in enumerate(text.splitlines()))
