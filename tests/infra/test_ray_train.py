"""The same training under Ray Train: the numbers of one process, and no second try of what would fail again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.infra import ray_train
from brickyard.infra.ray_train import Part, Training, train_on_ray
from brickyard.shards.errors import BrickyardError
from brickyard.shards.visits import Portion
from brickyard.train.loop import train
from tests.train.rings import ring_corpus
from tests.train.spy import numbers, one_thread
from tests.train.test_step import CONFIG, SPY, poisoned


def test_two_workers_make_the_batches_of_one_process(tmp_path: Path) -> None:
    """Of a mixture of two corpora, one of them with a selection."""
    corpora = [ring_corpus(tmp_path / "corpus", train=9, val=2), ring_corpus(tmp_path / "other", train=4)]
    weights, rows = (1.0, 0.5), (None, np.array([3, 0]))
    portions = [Portion(corpus=c, rows=r, weight=w) for c, r, w in zip(corpora, rows, weights, strict=True)]
    parts = tuple(map(Part.of, portions))
    with one_thread():
        train(CONFIG, SPY, portions, tmp_path / "alone")
    training = Training(config=CONFIG, settings=SPY, parts=parts, out=str(tmp_path / "run"))
    summary = train_on_ray(training, workers=2)
    assert summary["steps"] == 12
    for ours, theirs in zip(numbers(tmp_path / "run"), numbers(tmp_path / "alone"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert not (tmp_path / "run" / "ray").exists()


def test_what_would_fail_again_is_not_tried_again(tmp_path: Path) -> None:
    corpus = ring_corpus(tmp_path / "corpus", train=9)
    config, settings = poisoned("nan")
    training = Training(
        config=config, settings=settings, parts=(Part.of(Portion(corpus=corpus)),), out=str(tmp_path / "run")
    )
    state = tmp_path / "run" / "ray"
    state.mkdir(parents=True)

    class Trainer:
        tries = 0

        def fit(self) -> Any:
            self.tries += 1
            ray_train._worker({"training": training})  # returns, so Ray Train sees a worker that is done
            return object()

    trainer = Trainer()
    with pytest.raises(BrickyardError, match=r"the loss is nan at step \d+; scenes: .*ring-003"):
        ray_train._fit(trainer, state)
    assert trainer.tries == 1
    with pytest.raises(RuntimeError, match="failed already"):  # a worker that is started again nonetheless
        ray_train._worker({"training": training})
