"""`gc`: what nothing refers to is found and deleted on request; nothing else is, whatever state the folder is in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brickyard.infra.cli import main
from brickyard.shards import quarantine
from brickyard.shards.atomic import _open_temporary
from brickyard.shards.build import commit_task, start_build
from brickyard.shards.codecs import encode_array
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.export.ply import export_ply
from brickyard.shards.index import Quarantined
from brickyard.shards.layers import LayeredCorpus, write_layer
from brickyard.shards.lock import only_writer
from brickyard.shards.orphans import collect
from brickyard.shards.selection import read_selection, select, write_selection
from brickyard.shards.storage import Store
from brickyard.shards.verify import verify
from tests.worlds import toy_corpus

ORPHANS = (".partial-manifest.json", "shards/.partial-x", "parts/.partial-1-2-00001.parquet",
           "log/run/.partial-0.jsonl", "shards/00001-0123456789abcdef.parquet",
           "shards/00009-0123456789abcdef.tar",
           "parts/00000-quarantined.parquet", "quarantined.parquet", "notices.parquet",
           "layers/l/.partial-build.json", "layers/l/shards/00000-0123456789abcdef.parquet")  # fmt: skip
MINE = ("README.md", "shards/mine.parquet", "shards/1-0123456789abcdef.parquet", "parts/notes.txt", "layers/notes",
        "LICENSE", "partial-x", "log/run/00000.jsonl", "chosen.parquet")  # fmt: skip
"""Names that no build gives."""


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """With a layer, a selection, files of its owner, and orphans."""
    corpus = toy_corpus(tmp_path / "c", scenes=4, per_shard=2)
    write_layer(corpus, "l", lambda row: {"points/x": encode_array(np.full(400, row, np.uint8))}, provenance={})
    for name in (*ORPHANS, *MINE):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_bytes(b"half")
    write_selection(corpus.store, "chosen.parquet", select(corpus))
    return corpus


def names(store: Store) -> set[str]:
    return set(store.walk())


def test_it_lists_and_with_yes_it_deletes(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(corpus.store)
    assert main(["gc", corpus.store.uri, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in said["files"]} == set(ORPHANS)
    assert (said["deleted"], said["bytes"]) == (False, 4 * len(ORPHANS))
    assert names(corpus.store) == before
    assert main(["gc", corpus.store.uri]) == 0
    text = capsys.readouterr().out
    assert "shards/00001-0123456789abcdef.parquet  4 B  a shard without a commit record" in text
    assert f"{len(ORPHANS)} files, {4 * len(ORPHANS)} B: to delete with --yes" in text
    assert main(["gc", corpus.store.uri, "--yes"]) == 0
    assert names(corpus.store) == before - set(ORPHANS)
    capsys.readouterr()
    assert main(["gc", corpus.store.uri]) == 0
    assert "0 files, 0 B: nothing to delete" in capsys.readouterr().out
    layered = LayeredCorpus.open(corpus.store, layers=["l"])
    assert verify(layered).problems == verify(layered.layers["l"]).problems == ()
    assert len(read_selection(corpus.store, "chosen.parquet").rows(layered)) == 4


def test_of_an_unfinished_build_the_committed_parts_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_INLINE_BYTES", 10)
    toy_corpus(tmp_path / "c", scenes=4, per_shard=2)
    store = Store(tmp_path / "c")
    commit_task(store, 7, "another build", [], [Quarantined("toy/lost", "a long reason")])
    (tmp_path / "c" / "manifest.json").unlink()
    (tmp_path / "c" / "parts" / "00001.parquet").unlink()
    kept = names(store)
    (orphan,) = collect(store, delete=True)
    assert orphan.name.startswith("shards/00001-") and orphan.bytes > 1000
    assert names(store) == kept - {orphan.name}
    assert "parts/00007-quarantined.parquet" in kept


def test_what_a_damaged_record_may_have_named_stays(corpus: Corpus, tmp_path: Path) -> None:
    record = tmp_path / "c" / "parts" / "00001.parquet"
    record.write_bytes(record.read_bytes()[:-9])
    found = {orphan.name for orphan in collect(corpus.store)}
    assert found == set(ORPHANS) - {"shards/00001-0123456789abcdef.parquet"}
    (tmp_path / "c" / "manifest.json").write_bytes(b"{}")
    before = names(corpus.store)
    with pytest.raises(CorpusError, match=r"manifest\.json"):
        collect(corpus.store, delete=True)
    assert {name for name in before - names(corpus.store) if ".partial-" not in name} == set()


def test_what_is_being_written_stays(corpus: Corpus, tmp_path: Path) -> None:
    descriptor, path = _open_temporary(tmp_path / "c" / "shards" / "x")
    assert path.name == ".partial-x"
    with only_writer(corpus.store), pytest.raises(CorpusError, match="another process is building"):
        collect(corpus.store, delete=True)
    assert path.exists()
    os.close(descriptor)
    collect(corpus.store, delete=True)
    assert not path.exists()


def test_a_folder_that_cannot_be_listed_condemns_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the commit records, every shard of an unfinished build would look like an orphan."""
    corpus.store.delete("manifest.json")
    shards, scan = corpus.store.list("shards"), os.scandir

    def failing(path: Any) -> Any:
        if str(path).endswith("parts"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(PermissionError):
        collect(corpus.store, delete=True)
    assert set(corpus.store.list("shards")) >= {name for name in shards if not name.startswith(".partial-")}


def test_other_folders_are_refused_and_exports_swept(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".partial-x").write_bytes(b"somebody's")
    assert main(["gc", str(tmp_path / "data"), "--yes"]) == 1
    assert (tmp_path / "data" / ".partial-x").exists()
    out = Store(tmp_path / "out")
    export_ply(corpus, out)
    (tmp_path / "out" / "train").mkdir(exist_ok=True)
    (tmp_path / "out" / "train" / ".partial-a.ply").write_bytes(b"half")
    whole = names(out)
    assert [orphan.name for orphan in collect(out, delete=True)] == ["train/.partial-a.ply"]
    assert names(out) == whole - {"train/.partial-a.ply"}


@pytest.fixture
def bucket() -> Iterator[str]:
    pytest.importorskip("moto")
    from tests.kill_matrix import object_store

    with object_store() as place:
        yield place("c")


def test_an_object_store_is_asked_how_old_they_are(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own clock: a build may be about to name what is young, and there are no locks."""
    store = Store(bucket)
    start_build(store, {})
    store.write("shards/00001-0123456789abcdef.parquet", b"half")
    before = names(store)
    assert collect(store, delete=True) == []
    assert names(store) == before
    monkeypatch.setattr(Store, "age", lambda self, name, by: 90_000.0)
    assert len(collect(store)) == 1
    monkeypatch.undo()
    assert [orphan.bytes for orphan in collect(store, delete=True, older_s=0)] == [4]
    assert names(store) == {"build.json"}


def test_ages_are_counted_from_file_to_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, when in (("a", 1_000), ("b", 5_000)):
        store.write(name, b"")
        os.utime(tmp_path / name, (when, when))
    assert (store.age("a", "b"), store.age("b", "a")) == (4000.0, -4000.0)
    store._fs = SimpleNamespace(get_file_info=lambda places: [SimpleNamespace(mtime=None)] * len(places))
    assert store.age("a", "b") == 0.0
