"""Steps, guards and ranks, with an objective that shows what happens to it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from brickyard.shards.batching import Budget
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.loop import TrainConfig, train
from brickyard.train.running.checkpoint import checkpoints
from brickyard.train.running.metrics import read_metrics
from tests.killing import kill_after_line
from tests.train.rings import ring_corpus
from tests.train.spy import Spy, child, numbers, one_thread, passes, ranks, rewrite

BUDGET = Budget(points=1500, bins=4, cap=700, window=8)
CONFIG = TrainConfig(
    steps=12, budget=BUDGET, optimiser="adamw", lr=0.01, schedule="one_cycle", warmup_share=0.2, weight_decay=0.04,
    weight_decay_end=0.2, clip=3.0, checkpoint_every=4, keep_last=3, threads=2, device="cpu", split=None,
)  # fmt: skip
SPY = Spy(cap=700)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=9, val=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """A run on one rank that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train(CONFIG, replace(SPY, log=str(folder / "passes")), corpus, folder / "run")
    return folder


def start(uri: str, out: str, config: TrainConfig, settings: Spy) -> None:
    train(config, settings, Corpus.open(uri), out)


def start_and_die(*arguments: Any) -> None:
    kill_after_line(6)
    start(*arguments)


def weights(run: Path, step: int) -> dict[str, Any]:
    folder = run / "checkpoints" / f"step-{step:06d}"
    return {**load_file(folder / "weights.safetensors"), **load_file(folder / "optimiser.safetensors")}


def test_kill_and_resume_with_teacher_schedules_budget_and_dropout(tmp_path: Path, whole: Path, corpus: Corpus) -> None:
    killed = tmp_path / "run"
    process = child(start_and_die, corpus.store.uri, str(killed), CONFIG, SPY)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(read_metrics(killed)) == 6
    train(CONFIG, SPY, corpus, killed)
    assert numbers(killed) == numbers(whole / "run")
    ours, theirs = weights(killed, 12), weights(whole / "run", 12)
    assert ours.keys() == theirs.keys() and any(name.startswith("teacher.") for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_learns_and_the_teacher_follows(whole: Path) -> None:
    lines = numbers(whole / "run")
    assert lines[-1]["lr"] == pytest.approx(0.01 * 1e-4) and max(line["lr"] for line in lines) > 0.008
    assert lines[-1]["weight_decay"] == pytest.approx(0.2, abs=0.01)
    assert lines[-1]["said"] != lines[0]["said"]
    end = weights(whole / "run", 12)
    trained, teacher = end["trained.network.4.weight"], end["teacher.network.4.weight"]
    assert 0 < float((trained - teacher).abs().max()) < 0.1
    assert not any(name.startswith("teacher.") and name.endswith("/exp_avg") for name in end)


def test_on_another_number_of_ranks_the_global_batches_are_the_same(
    tmp_path: Path, whole: Path, corpus: Corpus
) -> None:
    """From step 4 on with two ranks: the same scenes in the same passes, the same draws, the same numbers but for the
    order of additions; although some passes give a part of the network no gradient."""
    shutil.copytree(whole / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    for late in checkpoints(tmp_path / "run" / "checkpoints")[1:]:
        shutil.rmtree(late)
    log = tmp_path / "passes"
    rewrite(tmp_path / "run", log=str(log))
    assert ranks(2, start, corpus.store.uri, str(tmp_path / "run"), CONFIG, replace(SPY, log=str(log))) == [0, 0]
    one, two = passes(whole / "passes"), passes(log)
    assert two == {step: one[step] for step in range(4, 12)}
    assert any(int(keys[0][-1]) % 2 == 0 for step in two for keys in two[step])
    for ours, theirs in zip(numbers(tmp_path / "run"), numbers(whole / "run"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    end, expected = weights(tmp_path / "run", 12), weights(whole / "run", 12)
    assert all(torch.allclose(end[name], expected[name], atol=1e-5) for name in expected)


def test_every_pass_keeps_within_the_budget(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "passes").read_text().splitlines()][: 12 * 4]
    assert max(line["points"] for line in lines) <= 1500
    assert sum(line["points"] for line in lines) / len(lines) > 0.9 * 1400  # two scenes of 700 in each
    summary = json.loads((whole / "run" / "final" / "summary.json").read_text())
    assert summary["memory"]["points"] == 1400


def test_the_summary_says_which_checkpoint_was_best_and_how_long_it_waited(whole: Path) -> None:
    summary = json.loads((whole / "run" / "final" / "summary.json").read_text())
    losses = [line["loss"] for line in numbers(whole / "run")]
    means = {step: sum(losses[step - 4 : step]) / 4 for step in (4, 8, 12)}
    best = min(means, key=lambda step: means[step])
    assert summary["best"] == {"step": best, "loss": pytest.approx(means[best], rel=1e-12)}
    waits = [line["data_wait"] for line in read_metrics(whole / "run")]
    assert min(waits) <= summary["data_wait"] <= max(waits)
    assert summary["last_loss"] == losses[-1]


def test_epochs_with_a_budget_are_passes_over_the_scenes(tmp_path: Path, corpus: Corpus) -> None:
    config = replace(CONFIG, steps=None, epochs=2.0)
    assert train(config, SPY, corpus, tmp_path)["steps"] in {3, 4}  # 22 visits, 8 of them in a step


def poisoned(how: str, **changes: Any) -> tuple[TrainConfig, Spy]:
    return replace(CONFIG, budget=None, batch=2, **changes), replace(SPY, poison="rings/ring-003", how=how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", r"the loss is nan at step \d+; scenes: .*ring-003"),
        ("gradient", r"the gradient is not finite at step \d+; scenes: .*ring-003"),
        ("memory", r"(?s)out of memory .* step \d+, in a pass of 2 scenes with 1,920 points: .*ring-003 \(960 points\)"
                   r".*lower `budget\.points` or `batch`.*Tried to allocate 2\.00 GiB"),
    ],
)  # fmt: skip
def test_what_cannot_be_gone_on_from_stops_and_names_the_scenes(
    tmp_path: Path, corpus: Corpus, how: str, message: str
) -> None:
    with pytest.raises(BrickyardError, match=message) as caught:
        train(*poisoned(how), corpus, tmp_path)
    assert str(caught.value).count("rings/ring-") == 2


def test_an_exploding_loss_stops_and_what_is_usual_survives_a_resume(tmp_path: Path, corpus: Corpus) -> None:
    """Twenty losses say what is usual. Here all come from before the resume: otherwise it would stop at step 41 or
    later."""
    config = replace(CONFIG, budget=None, batch=1, steps=60, checkpoint_every=20, optimiser="sgd", lr=1e-4)
    calm = replace(SPY, poison="rings/ring-003", how="1.0")
    train(config, calm, corpus, tmp_path)
    shutil.rmtree(tmp_path / "final")
    for late in checkpoints(tmp_path / "checkpoints")[1:]:
        shutil.rmtree(late)
    rewrite(tmp_path, how="1e6")
    with pytest.raises(BrickyardError, match=r"more than 10 times the usual one at step \d+; scenes: rings/ring-003\n"):
        train(config, replace(calm, how="1e6"), corpus, tmp_path)
    assert 20 <= len(read_metrics(tmp_path)) < 40


@pytest.mark.parametrize("nonfinite", ["skip", "zero"])
@pytest.mark.parametrize("how", ["nan", "gradient"])
def test_steps_can_be_left_out_instead(tmp_path: Path, corpus: Corpus, nonfinite: Any, how: str) -> None:
    config, settings = poisoned(how, nonfinite=nonfinite)
    summary = train(config, settings, corpus, tmp_path)
    end = weights(tmp_path, 12)
    assert all(bool(torch.isfinite(value).all()) for value in end.values())
    left_out = 0 if (nonfinite, how) == ("zero", "gradient") else 2
    assert left_out <= summary["steps_left_out"] <= left_out + 1
    assert summary["steps_left_out"] == 0 or left_out


def test_a_gradient_beyond_the_guard_is_skipped_after_a_while(tmp_path: Path, corpus: Corpus) -> None:
    changes = {"clip": 100.0, "skip_factor": 2.0, "skip_after": 5, "explode_factor": None}
    config, settings = poisoned("1e5", **changes)
    summary = train(config, settings, corpus, tmp_path)
    over = [line["step"] for line in read_metrics(tmp_path) if line["gradient_norm"] > 200]
    assert summary["steps_left_out"] == len([step for step in over if step > 5]) > 0


def fails_on_both(uri: str, out: str) -> None:
    try:
        train(*poisoned("nan"), Corpus.open(uri), out)
    except BrickyardError as problem:
        assert "rings/ring-003" in str(problem), problem
        assert str(problem).count("rings/ring-") == 1, problem  # of the pass that was not finite alone
        raise SystemExit(7) from None


def fails_on_one(uri: str, out: str, how: str, message: str) -> None:
    try:
        train(*poisoned(how), Corpus.open(uri), out)
    except BrickyardError as problem:
        assert message in str(problem), problem
        raise SystemExit(7) from None


def constant(uri: str, out: str) -> None:
    train(*poisoned("constant"), Corpus.open(uri), out)


def test_ranks_stop_together_and_never_wait_for_a_gradient_that_does_not_come(tmp_path: Path, corpus: Corpus) -> None:
    assert ranks(2, fails_on_both, corpus.store.uri, str(tmp_path / "nan")) == [7, 7]
    for how, message in (
        ("memory", "in a pass of 1 scenes with 960 points: rings/ring-003"),
        ("error", "with RuntimeError: size mismatch; scenes: rings/ring-003"),
    ):
        codes = ranks(2, fails_on_one, corpus.store.uri, str(tmp_path / how), how, message)
        assert set(codes) == {1, 7}  # the other one loses its partner
    assert ranks(2, constant, corpus.store.uri, str(tmp_path / "constant")) == [0, 0]


def test_a_run_that_learned_nothing_is_an_error(tmp_path: Path, corpus: Corpus) -> None:
    idle = replace(SPY, idle=True)
    with pytest.raises(BrickyardError, match=r"all 12 steps held nothing to learn from, so no student is exported"):
        train(CONFIG, idle, corpus, tmp_path / "short")
    assert not (tmp_path / "short" / "final" / "summary.json").exists()
    config = replace(CONFIG, steps=400, checkpoint_every=400)
    with pytest.raises(BrickyardError, match=r"100 steps in a row held nothing .* at step 100; scenes: rings/"):
        train(config, idle, corpus, tmp_path / "long")


def test_compiling_changes_neither_the_numbers_nor_the_names(tmp_path: Path, whole: Path, corpus: Corpus) -> None:
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    train(replace(CONFIG, compile=True), SPY, corpus, tmp_path)
    assert counters["stats"]["unique_graphs"] > before
    for ours, theirs in zip(numbers(tmp_path), numbers(whole / "run"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert weights(tmp_path, 12).keys() == weights(whole / "run", 12).keys()


def test_bins_must_be_shared_evenly_and_replace_accumulation(tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="leave out accumulate"):
        replace(CONFIG, accumulate=2)
    from brickyard.train.loop import _numbers_of_passes
    from brickyard.train.running.distributed import Group

    group = Group(rank=1, world=2, device=torch.device("cpu"))
    assert _numbers_of_passes(CONFIG, group) == [2, 3]
    assert _numbers_of_passes(replace(CONFIG, budget=None, batch=4, accumulate=2), group) == [1, 3]
    with pytest.raises(RecipeError, match=r"budget\.bins 4 must be a multiple of the 3 ranks"):
        _numbers_of_passes(CONFIG, replace(group, world=3))
