"""Every block of docs/clients.md runs beside a corpus, and gives what the corpus holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.shards.corpus import Corpus
from brickyard.shards.export.plain import export_plain
from brickyard.shards.storage import Store
from tests.worlds import toy_corpus

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"
BLOCKS = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("clients")
    corpus = toy_corpus(folder / "corpus", scenes=6)
    export_plain(corpus, Store(folder / "plain"))
    return corpus


def said(names: dict[str, Any], printed: str, corpus: Corpus) -> bool:
    return all(word in printed for word in ("toy", "train", str(int(corpus.points_per_scene.sum()))))


def first_image(names: dict[str, Any], printed: str, corpus: Corpus) -> bool:
    image = names["first_image"] if "first_image" in names else names["first"]["views/image"][0]
    return bool(image == corpus.scene(0).views[0].image)


def first_points(names: dict[str, Any], printed: str, corpus: Corpus) -> bool:
    clouds = [points.xyz for row in range(len(corpus)) if (points := corpus.scene(row).points) is not None]
    return names["xyz"].dtype == np.float32 and any(np.array_equal(names["xyz"], xyz) for xyz in clouds)


CHECKS: dict[str, Callable[[dict[str, Any], str, Corpus], bool]] = {
    "duckdb": said, "polars": said, "pandas": said, "pyarrow.dataset": first_image, "datasets": first_image,
    "webdataset": first_points, "ray": first_points, "torch": first_points,
}  # fmt: skip


def test_every_client_has_a_block_and_a_check() -> None:
    assert BLOCKS.keys() == CHECKS.keys()


@pytest.mark.parametrize("client", CHECKS)
def test_the_block_runs(
    client: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip(client)
    monkeypatch.chdir(Path(corpus.store.uri).parent)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "local")  # not a cluster that somebody else has left here
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[client], str(PAGE), "exec"), names)
    assert CHECKS[client](names, capsys.readouterr().out, corpus)
