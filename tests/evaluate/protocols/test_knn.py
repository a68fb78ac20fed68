"""The nearest-neighbour probe against brute force, in any chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.evaluate.features import Encoder, RawStudent, raw_inputs
from brickyard.evaluate.protocols.knn import KnnConfig, knn_probe, knn_votes
from brickyard.train.students.point import PointStudent, PointStudentConfig
from tests.evaluate.rooms import room_corpus


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 15), st.integers(1, 25), st.integers(1, 16), st.integers(0, 99))
def test_votes_are_those_of_brute_force(bank: int, queries: int, k: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, q, labels = rng.normal(size=(bank, 4)), rng.normal(size=(queries, 4)), rng.integers(0, 3, bank)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.zeros((queries, 3))
    for i, query in enumerate(q):
        cosine = x @ query / np.linalg.norm(query)
        for j in np.argsort(-cosine)[:k]:
            expected[i, labels[j]] += np.exp((cosine[j] - 1) / 0.07)
    found = knn_votes(
        torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(q), 3, k=k, temperature=0.07, chunk=chunk
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-12)


def test_rooms_by_colour_and_height(tmp_path: Path) -> None:
    corpus = room_corpus(tmp_path)
    like = PointStudent(PointStudentConfig(network="tiny", size=0.05))
    rows = corpus.select(split="train")
    assert raw_inputs(corpus, rows) == ("height", "color", "normal")
    encoder = Encoder(RawStudent(like, raw_inputs(corpus, rows)), corpus, "scannet20", keep_gib=1)
    config = KnnConfig(taxonomy="scannet20", dataset="scannet", threads=1)
    result = knn_probe(encoder, config)
    assert result.miou > 0.9 and result.scenes == (4, 2)
    assert result.confusion.sum() == 1200  # every point counts
    few = knn_probe(encoder, KnnConfig(taxonomy="scannet20", threads=1, queries_per_scene=20, voxels_per_scene=50))
    assert 40 <= few.confusion.sum() < 200 and few.miou > 0.6


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        KnnConfig(k=0)
