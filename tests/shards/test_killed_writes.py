"""The power fails, or the disk is full, at any operation on the files of whatever writes: the rerun ends in the same
bytes, and nothing half written stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.shards.codecs import encode_array
from brickyard.shards.convert import convert
from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import write_document
from brickyard.shards.export.plain import export_plain
from brickyard.shards.export.pointcept import export_pointcept
from brickyard.shards.layers import write_layer
from brickyard.shards.selection import select, write_selection
from brickyard.shards.storage import Store
from tests.worlds import toy_corpus

OPERATIONS = ("open", "fsync", "replace", "mkdir", "unlink")


class PowerFailure(BaseException):
    """Everything ends here; no clean-up runs."""


@contextmanager
def failing(at: int, power: bool) -> Iterator[list[str]]:
    """From operation `at` on nothing works any more (`power`), or nothing can be written. Gives the operations done."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, _counted(getattr(os, name), name, done, at, power))
        yield done


def _counted(call: Callable[..., Any], name: str, done: list[str], at: int, power: bool) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:
        done.append(name)
        if len(done) >= at:
            if power:
                raise PowerFailure
            writes = name in ("fsync", "mkdir") or (name == "open" and args[1] & os.O_CREAT)
            if writes:
                raise OSError(errno.ENOSPC, "No space left on device")
        return call(*args, **options)

    return counted


def layer(corpus: Corpus, out: Path) -> None:
    base = Corpus(Store(out), corpus.manifest, corpus.index)
    base.header = corpus.header  # type: ignore[method-assign]
    write_layer(base, "l", lambda row: {"points/x": encode_array(np.full(9, row, np.uint8))}, provenance={})


WRITERS: dict[str, Callable[[Corpus, Path], object]] = {
    "convert": lambda corpus, out: convert(corpus, Store(out), "webdataset"),
    "layer": layer,
    "pointcept": lambda corpus, out: export_pointcept(corpus, Store(out)),
    "plain": lambda corpus, out: export_plain(corpus, Store(out)),
    "selection": lambda corpus, out: write_selection(Store(out), "chosen.parquet", select(corpus)),
    "document": lambda corpus, out: write_document(out / "deep" / "state.json", {"keys": corpus.keys}),
}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("corpus"), scenes=2, per_shard=1)


@pytest.mark.parametrize("power", [True, False], ids=["power", "disk full"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_rerun_ends_in_the_same_bytes(tmp_path: Path, corpus: Corpus, writer: str, power: bool) -> None:
    write = WRITERS[writer]
    with failing(10**9, power) as operations:
        write(corpus, tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    failed = 0
    for at in range(1, len(operations) + 1, max(1, len(operations) // 10)):
        out = tmp_path / str(at)
        try:
            with failing(at, power):
                write(corpus, out)
        except (PowerFailure, OSError):
            failed += 1
        if not power:
            assert not [name for name in tree(out) if ".partial-" in name]
        write(corpus, out)
        assert tree(out) == whole
    assert failed > 3
