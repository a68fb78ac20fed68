"""A run that is asked to stop, goes on under other settings by name, is watched, and is logged elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.loop import TrainConfig, train
from brickyard.train.running.checkpoint import checkpoints
from brickyard.train.running.metrics import MetricsLog, read_metrics
from brickyard.train.running.records import read_config
from brickyard.train.running.stopping import SIGNALS, Interrupted, listening
from brickyard.train.running.watching import Watch
from brickyard.train.students.base import Exported
from tests.train.rings import ring_corpus
from tests.train.spy import Spy, numbers, one_thread, ranks

CONFIG = TrainConfig(
    steps=8, batch=2, optimiser="adamw", lr=0.01, schedule="one_cycle", checkpoint_every=4, threads=1, device="cpu",
    split=None, logs=(),
)  # fmt: skip
SPY = Spy(cap=300)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=5, val=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(CONFIG, SPY, corpus, folder)
    return folder


def signal_at_line(number: int, which: signal.Signals) -> None:
    """This process signals itself when it has written so many lines: in step `number`, before the next begins."""
    write = MetricsLog.write

    def writing(self: MetricsLog, step: int, values: Mapping[str, float]) -> None:
        write(self, step, values)
        if step == number:
            os.kill(os.getpid(), which)

    MetricsLog.write = writing  # type: ignore[method-assign]


@pytest.mark.parametrize("which", SIGNALS)
def test_a_signal_stops_after_a_step_with_a_checkpoint(
    which: signal.Signals, tmp_path: Path, corpus: Corpus, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(which)
    monkeypatch.setattr(MetricsLog, "write", MetricsLog.write)
    signal_at_line(2, which)
    with pytest.raises(Interrupted, match="stopped after step 3 of 8; the same command goes on"):
        train(CONFIG, SPY, corpus, tmp_path)
    assert signal.getsignal(which) == before
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000003"]
    train(CONFIG, SPY, corpus, tmp_path)
    assert numbers(tmp_path) == numbers(whole)


def signalled(uri: str, out: str) -> None:
    if os.environ["RANK"] == "0":  # only rank 0 writes lines, and only it hears of it
        signal_at_line(2, signal.SIGTERM)
    try:
        train(CONFIG, SPY, Corpus.open(uri), out)
    except Interrupted:
        raise SystemExit(4) from None


def test_ranks_stop_after_the_same_step_when_one_is_asked(tmp_path: Path, corpus: Corpus) -> None:
    assert ranks(2, signalled, corpus.store.uri, str(tmp_path)) == [4, 4]
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000003"]


def test_a_person_who_asks_twice_need_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.asked and "SIGINT: stopping after this step" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_nothing_is_heard_and_nothing_breaks() -> None:
    found: list[bool] = []

    def run() -> None:
        with listening() as request:
            found.append(request.asked)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_other_settings_go_on_under_a_name_only(tmp_path: Path, corpus: Corpus) -> None:
    train(CONFIG, SPY, corpus, tmp_path)
    longer = replace(CONFIG, steps=12, lr=0.005)
    with pytest.raises(RecipeError, match=r"(?s)holds another run.*train\.lr: was 0\.01, is 0\.005.*train\.steps"):
        train(longer, SPY, corpus, tmp_path)
    summary = train(longer, SPY, corpus, tmp_path, continue_with="longer, calmer")
    assert summary["steps"] == 12 and [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 13))
    (kept,) = read_config(tmp_path)["continuations"]
    assert (kept["name"], kept["step"]) == ("longer, calmer", 8)
    assert kept["changed"] == ["train.lr: was 0.01, is 0.005", "train.steps: was 8, is 12"]
    train(longer, SPY, corpus, tmp_path)  # it is that run now
    assert len(read_config(tmp_path)["continuations"]) == 1
    with pytest.raises(RecipeError, match="holds another run"):
        train(CONFIG, SPY, corpus, tmp_path)


@pytest.mark.parametrize(
    ("config", "settings", "what"),
    [
        (replace(CONFIG, seed=1), SPY, "train.seed"),
        (replace(CONFIG, optimiser="sgd"), SPY, "train.optimiser"),
        (replace(CONFIG, split="train"), SPY, "train.split"),
        (CONFIG, replace(SPY, cap=200), "objective.cap"),
    ],
)
def test_a_continuation_is_of_the_same_run(
    config: TrainConfig, settings: Spy, what: str, whole: Path, corpus: Corpus
) -> None:
    with pytest.raises(RecipeError, match=rf"(?s)may change settings of the loop, but not .*{what}"):
        train(config, settings, corpus, whole, continue_with="another")


def test_what_is_watched_is_logged_keeps_the_best_and_changes_nothing(
    tmp_path: Path, corpus: Corpus, whole: Path
) -> None:
    scores = iter([3.0, 1.0, 2.0, 0.0])

    def measure(network: Exported) -> dict[str, float]:
        assert not network.training
        torch.rand(7)
        return {"miou": next(scores), "drawn": float(torch.rand(1))}

    config = replace(CONFIG, checkpoint_every=2, keep_last=1)
    watch = Watch(every=2, network="student", measure=measure, score="miou")
    summary = train(config, SPY, corpus, tmp_path, watch=watch)
    lines = read_metrics(tmp_path)
    assert {line["step"]: line["watch_miou"] for line in lines if "watch_miou" in line} == {2: 3, 4: 1, 6: 2, 8: 0}
    assert summary["best"]["step"] == 2 and summary["best"]["score"] == 3.0
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000002", "step-000008"]
    ours = [{name: v for name, v in row.items() if not name.startswith("watch_")} for row in numbers(tmp_path)]
    assert ours == numbers(whole)


def test_a_watch_that_cannot_be_kept_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    watch = Watch(every=3, network="student", measure=lambda _: {}, score="miou")
    with pytest.raises(RecipeError, match=r"watch\.every is 3, which must be a multiple of checkpoint_every \(4\)"):
        train(CONFIG, SPY, corpus, tmp_path, watch=watch)
    with pytest.raises(RecipeError, match=r"watch\.network 'teacher': this objective has student"):
        train(CONFIG, SPY, corpus, tmp_path, watch=replace(watch, every=4, network="teacher"))


def test_logs_are_opened_by_name_and_those_not_installed_refused(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match=r"train\.logs has 'wandb', which needs `pip install wandb`"):
        train(replace(CONFIG, logs=("wandb",)), SPY, corpus, tmp_path / "refused")
    said: list[Any] = []

    class Remote:
        def log(self, values: Mapping[str, float], step: int) -> None:
            said.append((step, set(values)))

        def finish(self) -> None:
            said.append("finished")

    def init(**options: Any) -> Remote:
        said.append((options["id"], options["resume"], options["config"]["objective"]["name"]))
        return Remote()

    stand_in = ModuleType("wandb")
    stand_in.__spec__ = sys.__spec__
    stand_in.init = init  # type: ignore[attr-defined]
    stand_in.util = type("util", (), {"generate_id": staticmethod(lambda: "abc")})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    config = replace(CONFIG, logs=("tensorboard", "wandb"), steps=2)
    train(config, SPY, corpus, tmp_path / "run")
    train(replace(config, steps=3), SPY, corpus, tmp_path / "run", continue_with="one more")
    assert [said[0], said[4]] == [("abc", "allow", "spy")] * 2 and said.count("finished") == 2
    assert [step for step, *_ in (said[1], said[2], said[5])] == [1, 2, 3] and "loss" in said[1][1]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2
