"""The loop: it learns, it stops on NaN, and a killed run goes on as if nothing had happened."""

from __future__ import annotations

import io
import json
import math
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.augment import CropConfig, CuboidConfig
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives import PPKT, STSLidR
from brickyard.train.objectives.image_to_lidar import ImageToLidarObjective
from brickyard.train.objectives.objective import Loss
from brickyard.train.running.metrics import MetricsLog, read_metrics
from brickyard.train.running.progress import ProgressLine
from brickyard.train.students.export import load_student
from brickyard.train.students.unet import UNetConfig
from tests.killing import kill_after_line, kill_at_rename
from tests.train.rings import ring_corpus
from tests.train.spy import child, one_thread, ranks

SETTINGS = STSLidR(
    student=UNetConfig(network="tiny"), crop=CropConfig(height=32, width=64, min_pairs=20), pixel_stride=4
)
FAST = TrainConfig(steps=4, batch=2, lr=0.05, checkpoint_every=2, threads=1, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=4)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run)]


LONG = replace(FAST, steps=12, checkpoint_every=4, clip=5.0, accumulate=2)


def start_and_die(uri: str, out: str) -> None:
    kill_after_line(6)
    train(LONG, SETTINGS, Corpus.open(uri), out)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, corpus: Corpus) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(LONG, SETTINGS, corpus, whole)
    process = child(start_and_die, corpus.store.uri, str(killed))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(read_metrics(killed)) == 6
    assert [path.name for path in (killed / "checkpoints").glob("step-*")] == ["step-000004"]
    train(LONG, SETTINGS, corpus, killed)
    assert losses(killed) == losses(whole)
    assert [line["step"] for line in read_metrics(killed)] == list(range(1, 13))
    for name in ("checkpoints/step-000012/weights.safetensors", "checkpoints/step-000012/optimiser.safetensors"):
        ours, theirs = load_file(killed / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def die_while_writing(uri: str, out: str, name: str) -> None:
    kill_at_rename(f"{out}/{name}", 1)
    train(FAST, SETTINGS, Corpus.open(uri), out)


@pytest.mark.parametrize(
    "name",
    ["config.json", "metrics.jsonl", "checkpoints/step-000004", "final/student.safetensors", "final/digests.json",
     "final/summary.json"],
)  # fmt: skip
def test_a_run_killed_while_a_file_is_written_goes_on(tmp_path: Path, corpus: Corpus, name: str) -> None:
    out = tmp_path / "run"
    process = child(die_while_writing, corpus.store.uri, str(out), name)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "final" / "summary.json").exists()
    summary = train(FAST, SETTINGS, corpus, out)
    assert [line["step"] for line in read_metrics(out)] == [1, 2, 3, 4]
    assert summary["last_loss"] == losses(out)[-1] and train(FAST, SETTINGS, corpus, out) == summary
    load_student(out / "final")
    assert not list(out.rglob(".partial-*"))


def test_lost_lines_are_said_and_stop_nothing(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(FAST, SETTINGS, corpus, tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    shutil.rmtree(tmp_path / "final")
    (tmp_path / "metrics.jsonl").write_text("")
    assert train(FAST, SETTINGS, corpus, tmp_path)["last_loss"] == first["last_loss"]
    assert "has 0 lines up to step 4 where there were 4 or more" in capsys.readouterr().err
    for damaged, expected in (([lines[0]], [1, 3, 4]), ([*lines[:2], "{]\n", *lines[3:]], [1, 2, 3, 4])):
        shutil.rmtree(tmp_path / "final", ignore_errors=True)
        shutil.rmtree(tmp_path / "checkpoints" / "step-000004")
        (tmp_path / "metrics.jsonl").write_text("".join(damaged))  # beyond the checkpoint nothing is read
        train(FAST, SETTINGS, corpus, tmp_path)
        assert [line["step"] for line in read_metrics(tmp_path)] == expected
    shutil.rmtree(tmp_path / "checkpoints" / "step-000004")
    (tmp_path / "metrics.jsonl").write_text("{]\n" + "".join(lines[1:]))
    with pytest.raises(BrickyardError, match=r"metrics\.jsonl line 1 .*delete the line"):
        train(FAST, SETTINGS, corpus, tmp_path)


def test_a_finished_run_is_not_run_again(tmp_path: Path, corpus: Corpus) -> None:
    first = train(FAST, SETTINGS, corpus, tmp_path)
    before = (tmp_path / "final" / "student.safetensors").stat().st_mtime_ns
    again = train(replace(FAST, threads=2, checkpoint_every=3), SETTINGS, corpus, tmp_path)
    assert again == first
    assert (tmp_path / "final" / "student.safetensors").stat().st_mtime_ns == before


def test_another_run_in_the_folder_is_refused_with_the_difference(tmp_path: Path, corpus: Corpus) -> None:
    train(replace(FAST, steps=2), SETTINGS, corpus, tmp_path)
    with pytest.raises(RecipeError, match=r"train\.lr: was 0\.05, is 0\.1"):
        train(replace(FAST, steps=2, lr=0.1), SETTINGS, corpus, tmp_path)
    with pytest.raises(RecipeError, match=r"objective\.temperature"):
        train(replace(FAST, steps=2), replace(SETTINGS, temperature=0.1), corpus, tmp_path)
    with pytest.raises(RecipeError, match="already holds a run"):
        train(replace(FAST, steps=2), SETTINGS, corpus, tmp_path, resume=False)


def test_the_folder_of_a_run(tmp_path: Path, corpus: Corpus) -> None:
    config = replace(FAST, steps=None, epochs=1.5, keep_last=1, keep_best=False, optimiser="adamw", lr=1e-3)
    summary = train(config, SETTINGS, corpus, tmp_path)
    assert summary["steps"] == 3  # 1.5 x 4 scenes / 2
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    resolved = json.loads((tmp_path / "config.json").read_text())
    assert resolved["objective"]["name"] == "stslidr"
    assert resolved["objective"]["student"]["network"] == "tiny"
    assert resolved["corpus"] == corpus.fingerprint
    assert json.loads((tmp_path / "environment.json").read_text())["packages"]["torch"]
    assert list((tmp_path / "tensorboard").glob("events*"))
    student = load_student(tmp_path / "final")
    weights = load_file(tmp_path / "checkpoints" / "step-000003" / "weights.safetensors")
    for name, value in student.state_dict().items():
        assert torch.equal(value, weights[f"student.{name}"])
    with pytest.raises(BrickyardError, match="no usable student"):
        load_student(tmp_path)


CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_it_overfits_one_scene(tmp_path: Path, device: str) -> None:
    """Without noise from crops, the loss of one scene falls far below that of chance."""
    corpus = ring_corpus(tmp_path / "corpus", train=1)
    crop = CropConfig(height=32, width=64, area=(1.0, 1.0), aspect=(1.9, 2.1), tries=0, flip=0)
    settings = PPKT(
        student=UNetConfig(network="tiny", inputs=("intensity", "height"), intensity="unit"), crop=crop,
        cuboid=CuboidConfig(extent=0), pixel_stride=4, max_pairs=256,
    )  # fmt: skip
    config = replace(FAST, steps=60, batch=1, lr=0.1, checkpoint_every=100, device=device)
    train(config, settings, corpus, tmp_path / "run")
    curve = losses(tmp_path / "run")
    assert 5 < curve[0] < 7  # log 256 = 5.5
    assert sum(curve[-5:]) / 5 < curve[0] - 1.5


@dataclass(frozen=True, kw_only=True)
class Broken(STSLidR):
    name: ClassVar[str] = "broken"

    def build(self, device: torch.device | str = "cpu") -> ImageToLidarObjective:
        class Objective(ImageToLidarObjective):
            def forward(self, batch: Any) -> Loss:
                loss = super().forward(batch)
                return Loss(total=loss.total * float("nan"))

        return Objective(self, torch.device(device))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_scenes(tmp_path: Path, corpus: Corpus) -> None:
    settings = Broken(student=SETTINGS.student, crop=SETTINGS.crop, pixel_stride=4)
    with pytest.raises(BrickyardError, match=r"nan at step 1; scenes: rings/ring-00\d, rings/ring-00\d"):
        train(FAST, settings, corpus, tmp_path)


def test_scenes_without_pairs_are_counted_and_never_hang(tmp_path: Path) -> None:
    corpus = ring_corpus(tmp_path / "corpus", train=5, blind=4)
    summary = train(FAST, SETTINGS, corpus, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert {line["scenes_without_pairs"] for line in lines} == {1.0, 2.0}
    assert summary["steps_without_pairs"] == sum(line["scenes_without_pairs"] == 2.0 for line in lines)


def test_scenes_without_what_an_objective_needs_are_refused_at_the_start(tmp_path: Path) -> None:
    blind = ring_corpus(tmp_path / "blind", train=2, blind=2)
    with pytest.raises(RecipeError, match=r"none of the 2 scenes to train on has views/\*/image, views/\*/pairs"):
        train(FAST, SETTINGS, blind, tmp_path / "refused")


def test_no_scenes_and_impossible_numbers_are_refused(tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(RecipeError, match="no scene of split 'test'"):
        train(replace(FAST, split="test"), SETTINGS, corpus, tmp_path)
    with pytest.raises(RecipeError, match="selection holds no scene"):
        train(FAST, SETTINGS, corpus, tmp_path, rows=np.array([], np.int64))
    with pytest.raises(ValueError, match="batch must be positive"):
        TrainConfig(batch=0)


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    log = MetricsLog(tmp_path, 1)
    log.write(2, {"loss": 0.1 + 0.2})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.1 + 0.2}]
    log = MetricsLog(tmp_path, 2, lines=1)
    log.write(2, {"loss": math.nan})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": null}\n'
    assert math.isnan(read_metrics(tmp_path)[1]["loss"])


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = ProgressLine(10, 0, stream)
    for step in range(1, 11):
        progress.update(step, 1.5, 20.0, 0.25, 3 << 29)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2  # the first and the last; others came too soon
    assert lines[-1].startswith("step 10/10  loss 1.5000  20.0 scenes/s  waiting for data 25%  peak 1.5 GiB")
    assert "\r" not in stream.getvalue()


def two_ranks(uri: str, out: str) -> None:
    """Writes down the weights of each rank at the end."""
    from brickyard.train import loop

    save = loop._Run._save

    def spy(run: Any, step: int, place: Any, seen: Any) -> None:
        save(run, step, place, seen)
        flat = torch.cat([p.detach().flatten() for p in run.objective.parameters()]).double()
        line = {"sum": float(flat.sum()), "square": float(flat.square().sum()), "place": place["place"]}
        Path(f"{out}-{run.group.rank}.json").write_text(json.dumps(line))

    setattr(loop._Run, "_save", spy)  # noqa: B010
    train(FAST, SETTINGS, Corpus.open(uri), out)


def test_two_ranks_keep_the_same_weights(tmp_path: Path, corpus: Corpus) -> None:
    assert ranks(2, two_ranks, corpus.store.uri, str(tmp_path / "run")) == [0, 0]
    first, second = (json.loads((tmp_path / f"run-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["place"] == [8, 0]  # 4 global batches of 2
    assert len(losses(tmp_path / "run")) == 4
