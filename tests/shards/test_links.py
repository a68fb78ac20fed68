"""A link in a corpus leads nowhere outside of it: nothing there is read, copied, emptied or deleted."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from brickyard.shards.build import fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import INDEX, MANIFEST, Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.export.pointcept import export_pointcept
from brickyard.shards.layers import LayeredCorpus
from brickyard.shards.storage import Store
from tests.worlds import toy_corpus

FINGERPRINT = {"toy": 2}
OUT = "a link out of the folder"


def move_out(folder: Path, name: str) -> Path:
    """Put a file or folder of a corpus elsewhere, and a link in its place."""
    elsewhere = folder.parent / "elsewhere"
    shutil.move(folder / name, elsewhere)
    (folder / name).symlink_to(elsewhere)
    return elsewhere


def read_all(folder: Path) -> None:
    corpus = Corpus.open(folder)
    for row in range(len(corpus)):
        corpus.scene(row)


@pytest.mark.parametrize("name", [MANIFEST, INDEX, "shards", "shards/00000"])
def test_what_lies_elsewhere_is_not_read(tmp_path: Path, name: str) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=2)
    move_out(tmp_path / "c", corpus.shard(0) if name.endswith("00000") else name)
    with pytest.raises(CorpusError, match=OUT):
        read_all(tmp_path / "c")


@pytest.mark.parametrize("name", ["shards", "parts"])
def test_nothing_is_deleted_or_written_elsewhere(tmp_path: Path, name: str) -> None:
    toy_corpus(tmp_path / "c", scenes=2)
    elsewhere = move_out(tmp_path / "c", name)
    (elsewhere / "thesis.txt").write_text("all my work")
    before = sorted(elsewhere.iterdir())
    store = Store(tmp_path / "c")
    with pytest.raises(CorpusError, match=OUT):
        start_build(store, FINGERPRINT)
    with pytest.raises(CorpusError, match=OUT):
        finish_build(store, 1, fingerprint_digest(FINGERPRINT), [], {})
    for call in (store.delete, lambda path: store.write(path, b"x"), store.size, store.exists, store.read):
        with pytest.raises(CorpusError, match=OUT):
            call(f"{name}/thesis.txt")
    assert sorted(elsewhere.iterdir()) == before


def test_a_build_deletes_only_shards(tmp_path: Path) -> None:
    """A folder, or a file that no build wrote, stays."""
    toy_corpus(tmp_path, scenes=2)
    shards = tmp_path / "shards"
    stale = shards / f"00007-{'0' * 16}.parquet"
    for path in (stale, shards / "thesis.txt"):
        path.write_text("x")
    (shards / f"00008-{'0' * 16}.tar").mkdir()
    finish_build(Store(tmp_path), 1, fingerprint_digest(FINGERPRINT), [], {})
    assert not stale.exists()
    assert (shards / "thesis.txt").exists()
    assert len(Corpus.open(tmp_path)) == 2


def test_a_linked_licence_is_not_copied_into_exports(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=1)
    (tmp_path / "key").write_text("private")
    (tmp_path / "c" / "LICENSE.txt").symlink_to(tmp_path / "key")
    with pytest.raises(CorpusError, match=rf"LICENSE.txt is, or lies behind, {OUT}"):
        export_pointcept(corpus, Store(tmp_path / "out"))
    assert "private" not in "".join(path.read_text() for path in (tmp_path / "out").iterdir())


def test_links_of_the_users_own_are_followed(tmp_path: Path) -> None:
    """To the corpus itself, inside it, and in raw data."""
    corpus = toy_corpus(tmp_path / "c", scenes=2)
    shard = tmp_path / "c" / corpus.shard(0)
    shard.rename(tmp_path / "c" / "same.parquet")
    shard.symlink_to(tmp_path / "c" / "same.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "c")
    read_all(tmp_path / "link")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "scene").symlink_to(tmp_path / "c")
    assert Store(tmp_path / "raw").exists(f"scene/{MANIFEST}")


def test_layers_and_other_processes_keep_the_bound(tmp_path: Path) -> None:
    toy_corpus(tmp_path / "c", scenes=1)
    toy_corpus(tmp_path / "other", scenes=1)
    (tmp_path / "c" / "layers").mkdir()
    (tmp_path / "c" / "layers" / "l").symlink_to(tmp_path / "other")
    with pytest.raises(CorpusError, match=OUT):
        LayeredCorpus.open(tmp_path / "c", layers=["l"])
    store = pickle.loads(pickle.dumps(Corpus.open(tmp_path / "c").store))  # noqa: S301
    with pytest.raises(CorpusError, match=OUT):
        store.read(f"layers/l/{MANIFEST}")
