"""However many scenes are missing, and whatever their reasons hold, the corpus that says so can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.convert import convert
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import CorpusError
from brickyard.shards.index import Quarantined
from brickyard.shards.parts import read_part
from brickyard.shards.storage import Store
from tests.shards import second_reader
from tests.worlds import toy_scene

FINGERPRINT = {"toy": 1}
BUILD = fingerprint_digest(FINGERPRINT)
MANY = [
    Quarantined(f"toy/lost-{n:06d}", f"its 4 files are missing: velodyne/{n:06d}.bin and so on") for n in range(250_000)
]
SOME = MANY[:5000]


def build(folder: Path, missing: list[Quarantined], part: list[Quarantined], **about: object) -> Corpus:
    store = Store(folder)
    start_build(store, FINGERPRINT)
    commit_task(store, 0, BUILD, [encode_scene(toy_scene(0))], part)
    finish_build(store, 1, BUILD, missing, about)
    return Corpus.open(folder)


def test_a_quarter_of_a_million_missing_scenes_can_be_read(tmp_path: Path) -> None:
    corpus = build(tmp_path, MANY, [])
    assert corpus.quarantine == MANY
    assert (tmp_path / MANIFEST).stat().st_size < 10_000
    stored = json.loads((tmp_path / MANIFEST).read_text())
    assert stored["format"] == 3  # so that an older reader says "update" and not "nothing is missing"
    assert stored["quarantined"] == []


def test_long_lists_of_parts_and_notices_come_back_and_go_along(tmp_path: Path) -> None:
    notices = [{"key": q.key, "reason": q.reason} for q in SOME]
    corpus = build(tmp_path / "a", [], SOME, notices=notices)
    assert corpus.quarantine == SOME
    assert corpus.manifest["notices"] == notices
    record = read_part(Store(tmp_path / "a"), 0, BUILD)
    assert record is not None
    assert record[0].quarantined == tuple(SOME)
    convert(corpus, Store(tmp_path / "b"), "webdataset")
    other = Corpus.open(tmp_path / "b")
    assert (other.quarantine, other.manifest["notices"]) == (SOME, notices)


def test_a_short_list_stays_in_the_manifest_of_the_former_format(tmp_path: Path) -> None:
    build(tmp_path, MANY[:9000], [])
    assert (tmp_path / "quarantined.parquet").exists()
    corpus = build(tmp_path, MANY[:3], [])
    assert corpus.manifest["format"] == 2
    assert corpus.quarantine == MANY[:3]
    assert not (tmp_path / "quarantined.parquet").exists()


def test_the_second_reader_finds_the_list(tmp_path: Path) -> None:
    build(tmp_path, SOME, [])
    manifest, _ = second_reader.open_corpus(tmp_path)
    assert [entry["key"] for entry in second_reader.quarantine(tmp_path, manifest)] == [q.key for q in SOME]


@pytest.mark.parametrize("damage", ["missing", "flipped", "exchanged", "a folder"])
def test_a_damaged_list_is_a_sentence(tmp_path: Path, damage: str) -> None:
    build(tmp_path, SOME, [])
    path = tmp_path / "quarantined.parquet"
    data = bytearray(path.read_bytes())
    if damage == "exchanged":
        build(tmp_path / "other", SOME[::-1] + MANY[6000:6001], [])
        data = bytearray((tmp_path / "other" / path.name).read_bytes())
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        data[1000] ^= damage == "flipped"
        path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"quarantined\.parquet is (missing|damaged)"):
        Corpus.open(tmp_path)


def test_reasons_no_text_can_hold_are_kept_as_far_as_they_can(tmp_path: Path) -> None:
    """A name that is not UTF-8, and a reason of a million characters."""
    corpus = build(tmp_path, [Quarantined("toy/\udcff", "a" * 10**6)], [Quarantined("toy/b", "\ud800" * 3)])
    first, second = corpus.quarantine
    assert first.key == r"toy/\udcff"
    assert first.reason.startswith("aaa")
    assert len(first.reason) < 5000
    assert second.reason == r"\ud800" * 3


def test_what_no_reader_would_accept_is_refused_when_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="could not be read again"):
        build(tmp_path / "a", [], [], config="x" * (65 << 20))
    assert not (tmp_path / "a" / MANIFEST).exists()
    with pytest.raises(CorpusError, match="cannot be stored"):
        start_build(Store(tmp_path / "b"), {"seed": 10**40})
