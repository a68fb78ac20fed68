"""Checkpoints: whole or not there, and everything in them comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.shards.errors import BrickyardError
from brickyard.train.running import checkpoint
from brickyard.train.running.checkpoint import checkpoints, load_checkpoint, remove_leftovers, save_checkpoint


def trained(optimiser: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    chosen: torch.optim.Optimizer = (
        torch.optim.AdamW(model.parameters(), fused=optimiser == "fused") if optimiser in ("adamw", "fused")
        else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.1)
    )  # fmt: skip
    step(model, chosen, 3)
    return model, chosen


def step(model: nn.Module, optimiser: torch.optim.Optimizer, times: int) -> None:
    for _ in range(times):
        optimiser.zero_grad()
        (model(torch.randn(8, 3)) + float(np.random.rand())).square().mean().backward()  # noqa: NPY002
        optimiser.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused"])
def test_everything_comes_back(tmp_path: Path, kind: str) -> None:
    model, optimiser = trained(kind)
    save_checkpoint(tmp_path, 3, model, optimiser, {"stream": {"position": 6}})
    step(model, optimiser, 2)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    other, fresh = trained(kind)
    step(other, fresh, 5)
    table = load_checkpoint(tmp_path / "step-000003", other, fresh)
    assert (table["step"], table["stream"]) == (3, {"position": 6})
    step(other, fresh, 2)
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())


def test_only_the_newest_are_kept_in_numerical_order(tmp_path: Path) -> None:
    model, optimiser = trained("sgd")
    for number in (999_998, 999_999, 1_000_000):
        save_checkpoint(tmp_path, number, model, optimiser, {}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-999999", "step-1000000"]
    save_checkpoint(tmp_path, 1_000_000, model, optimiser, {"again": 1})
    assert load_checkpoint(checkpoints(tmp_path)[-1], model, optimiser)["again"] == 1


def test_the_best_is_kept_however_old_it_is(tmp_path: Path) -> None:
    model, optimiser = trained("sgd")
    for number, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        save_checkpoint(tmp_path, number, model, optimiser, {}, keep=2, best=best)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000004", "step-000005"]
    save_checkpoint(tmp_path, 6, model, optimiser, {}, keep=1, best=6)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000006"]


@pytest.mark.parametrize("broken", ["save_file", "_random_state", "flush"])
def test_a_crash_while_saving_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    model, optimiser = trained("sgd")
    save_checkpoint(tmp_path, 1, model, optimiser, {})

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, broken, fail)
        with pytest.raises(OSError, match="no space"):
            save_checkpoint(tmp_path, 2, model, optimiser, {})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000001"]
    assert len(list(tmp_path.iterdir())) == 2
    save_checkpoint(tmp_path, 2, model, optimiser, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]


def test_damaged_or_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    model, optimiser = trained("sgd")
    path = save_checkpoint(tmp_path, 1, model, optimiser, {})
    with pytest.raises(BrickyardError, match="cannot be used"):
        load_checkpoint(path, nn.Linear(2, 2), optimiser)
    for name in ("weights.safetensors", "optimiser.safetensors", "state.json", "digests.json"):
        good = (path / name).read_bytes()
        for damaged in (good[: len(good) // 2], b"", b"5", None):
            (path / name).unlink()
            if damaged is not None:
                (path / name).write_bytes(damaged)
            with pytest.raises(BrickyardError, match=f"{name} .*delete this checkpoint to go on from an older one"):
                load_checkpoint(path, model, optimiser)
            (path / name).write_bytes(good)
    load_checkpoint(path, model, optimiser)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "state.json"])
def test_no_bit_may_flip(tmp_path: Path, name: str) -> None:
    model, optimiser = trained("sgd")
    path = save_checkpoint(tmp_path, 1, model, optimiser, {"stream": {"position": 6}})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    good = (path / name).read_bytes()
    for place in (len(good) - 3, good.find(b"6") if name == "state.json" else len(good) - 40):
        flipped = bytearray(good)
        flipped[place] ^= 1
        (path / name).write_bytes(flipped)
        with pytest.raises(BrickyardError, match=rf"{name} (is damaged|is not JSON)"):
            load_checkpoint(path, model, optimiser)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_checkpoints_of_the_first_version_had_no_digests(tmp_path: Path) -> None:
    model, optimiser = trained("sgd")
    path = save_checkpoint(tmp_path, 1, model, optimiser, {"again": 1})
    (path / "digests.json").unlink()
    with pytest.raises(BrickyardError, match=r"digests\.json is not there"):
        load_checkpoint(path, model, optimiser)
    state = (path / "state.json").read_text()
    (path / "state.json").write_text(state.replace('"version": 2', '"version": 1'))
    with pytest.warns(UserWarning, match="older versions wrote none"):
        assert load_checkpoint(path, model, optimiser)["again"] == 1
    (path / "state.json").write_text(state.replace('"version": 2', '"version": 3'))
    with pytest.raises(BrickyardError, match="version 3, this program reads 1 to 2"):
        load_checkpoint(path, model, optimiser)


def test_copies_and_leftovers_are_no_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimiser = trained("sgd")
    for number in (1, 2):
        save_checkpoint(tmp_path, number, model, optimiser, {})
    (tmp_path / "step-000009.bak").mkdir()
    (tmp_path / "step-000008").write_text("a file")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000001", "step-000002"]

    def killed(path: Path) -> None:
        (path / "weights.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 3, model, optimiser, {})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000003"]  # no half of step 1
    remove_leftovers(tmp_path)
    assert not list(tmp_path.glob(".partial-*"))
