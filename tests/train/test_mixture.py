"""Training on several corpora by weight: killed, on other ranks, with others; and the step that samples are for."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brickyard.shards.batching import Budget
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.stream import Sample
from brickyard.shards.visits import Portion
from brickyard.train.files import write_digests
from brickyard.train.loop import TrainConfig, train
from tests.killing import kill_after_line
from tests.train.rings import ring_corpus
from tests.train.spy import Spy, SpyObjective, child, numbers, one_thread, passes, ranks
from tests.train.test_step import CONFIG

MIXED = replace(CONFIG, budget=Budget(cost="min(n_points, 700) + 10 * n_views", most=1500, bins=4, window=8))
SPY = Spy(cap=700)
WEIGHTS = (3.0, 1.0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Corpus]:
    """Rings, and others of which two are chosen."""
    folder = tmp_path_factory.mktemp("mixture")
    return [ring_corpus(folder / "a", train=7, val=0), ring_corpus(folder / "b", train=0, val=4)]


def mixture(corpora: Sequence[Corpus], weights: Sequence[float] = WEIGHTS) -> list[Portion]:
    rows = (None, np.array([1, 2]))
    return [Portion(corpus=c, rows=r, weight=w) for c, r, w in zip(corpora, rows, weights, strict=True)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpora: list[Corpus]) -> Path:
    """A run on one rank that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train(MIXED, replace(SPY, log=str(folder / "passes")), mixture(corpora), folder / "run")
    return folder


def start(uris: Sequence[str], out: str, settings: Spy) -> None:
    train(MIXED, settings, mixture([Corpus.open(uri) for uri in uris]), out)


def start_and_die(*arguments: Any) -> None:
    kill_after_line(6)
    start(*arguments)


def uris(corpora: Sequence[Corpus]) -> list[str]:
    return [corpus.store.uri for corpus in corpora]


def test_a_killed_mixture_goes_on_bit_for_bit(tmp_path: Path, whole: Path, corpora: list[Corpus]) -> None:
    killed = tmp_path / "run"
    process = child(start_and_die, uris(corpora), str(killed), SPY)
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(numbers(killed)) == 6
    train(MIXED, SPY, mixture(corpora), killed)
    assert numbers(killed) == numbers(whole / "run")
    name = "checkpoints/step-000012/weights.safetensors"
    ours, theirs = load_file(killed / name), load_file(whole / "run" / name)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_two_ranks_make_the_global_batches_of_one(tmp_path: Path, whole: Path, corpora: list[Corpus]) -> None:
    log = tmp_path / "passes"
    assert ranks(2, start, uris(corpora), str(tmp_path / "run"), replace(SPY, log=str(log))) == [0, 0]
    assert passes(log) == passes(whole / "passes")
    for ours, theirs in zip(numbers(tmp_path / "run"), numbers(whole / "run"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_weights_are_kept_and_the_summary_says_them(whole: Path, corpora: list[Corpus]) -> None:
    seen = Counter(key for keys in passes(whole / "passes").values() for one in keys for key in one)
    rare = {key: count for key, count in seen.items() if key.startswith("rings/ring-1")}
    assert set(rare) == {"rings/ring-1001", "rings/ring-1002"}
    assert sum(rare.values()) / sum(seen.values()) == pytest.approx(0.25, abs=0.08)  # 80 places of the pattern
    summary = json.loads((whole / "run" / "final" / "summary.json").read_text())
    config = json.loads((whole / "run" / "config.json").read_text())
    assert summary["scenes"] == 9 and summary["shares"] == config["shares"] == [750, 250]
    assert summary["corpus"] == config["corpus"] == f"{corpora[0].fingerprint}/{corpora[1].fingerprint}"
    assert summary["selection"] == config["selection"] and config["selection"].count("/") == 1


def test_another_mixture_is_another_run(tmp_path: Path, corpora: list[Corpus]) -> None:
    once = replace(MIXED, steps=1, checkpoint_every=1)
    train(once, SPY, mixture(corpora), tmp_path)
    for portions, words in (
        (mixture(corpora, (1.0, 1.0)), r"shares: was \[750, 250\], is \[500, 500\]"),
        (mixture(corpora)[::-1], "corpus: was"),
        (mixture(corpora)[:1], r"shares: was \[750, 250\], is null"),
        ([mixture(corpora)[0], Portion(corpus=corpora[1], weight=1 / 3)], "selection: was"),
    ):
        with pytest.raises(RecipeError, match=words):
            train(once, SPY, portions, tmp_path)
    assert train(once, SPY, mixture(corpora, (6.0, 2.0)), tmp_path)["steps"] == 1  # the same shares


def test_a_mixture_has_no_epochs(tmp_path: Path, corpora: list[Corpus]) -> None:
    with pytest.raises(RecipeError, match=r"a mixture has no epochs.*say how many `steps`"):
        train(replace(MIXED, steps=None), SPY, mixture(corpora), tmp_path)
    with pytest.raises(RecipeError, match="epoch_cosine"):
        train(replace(MIXED, schedule="epoch_cosine", warmup_share=0.0), SPY, mixture(corpora), tmp_path)
    with pytest.raises(ValueError, match="rows of their own"):
        train(MIXED, SPY, mixture(corpora), tmp_path, rows=np.array([0]))
    with pytest.raises(RecipeError, match=r"selection of .* holds no scene"):
        train(MIXED, SPY, [*mixture(corpora), Portion(corpus=corpora[0], rows=np.array([], np.int64))], tmp_path)
    assert not list(tmp_path.iterdir())
    alone = [mixture(corpora)[0]]  # one corpus is no mixture
    assert train(replace(MIXED, steps=None, epochs=1.0), SPY, alone, tmp_path)["scenes"] == 7


@dataclass(frozen=True, kw_only=True)
class Curriculum(Spy):
    """Fails where a scene was prepared for another step than the one it is used in."""

    name: ClassVar[str] = "curriculum"

    def build(self, device: torch.device | str = "cpu") -> SpyObjective:
        class Objective(SpyObjective):
            def prepare(self, sample: Sample, rng: np.random.Generator) -> Any:
                return sample.step, super().prepare(sample, rng)

            def collate(self, items: Sequence[Any], device: torch.device) -> Any:
                assert {step for step, _ in items} == {self.step}
                return super().collate([item for _, item in items], device)

        return Objective(self).to(device)


@pytest.mark.parametrize("changes", [{}, {"budget": None, "batch": 2, "accumulate": 3}], ids=["budget", "accumulate"])
def test_prepare_knows_the_optimiser_step(tmp_path: Path, corpora: list[Corpus], changes: dict[str, Any]) -> None:
    """Before and after a resume, also from a checkpoint of a version that did not count batches."""
    config: TrainConfig = replace(MIXED, steps=6, checkpoint_every=3, **changes)
    train(config, Curriculum(cap=700), mixture(corpora), tmp_path)
    for old in (False, True):
        shutil.rmtree(tmp_path / "final")
        shutil.rmtree(tmp_path / "checkpoints" / "step-000006")
        if old:
            forget_batches(tmp_path / "checkpoints" / "step-000003")
        assert train(config, Curriculum(cap=700), mixture(corpora), tmp_path)["steps"] == 6


def forget_batches(checkpoint: Path) -> None:
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["stream"].pop("batches") > 0
    (checkpoint / "state.json").write_text(json.dumps(state))
    write_digests(checkpoint, ("weights.safetensors", "optimiser.safetensors", "state.json"))
