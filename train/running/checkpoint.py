"""Checkpoints: safetensors and JSON, committed by a rename, enough to go on bit for bit.

    run/checkpoints/step-000100/weights.safetensors     parameters and buffers of the objective (no frozen teacher)
                                optimiser.safetensors   its per-parameter tensors, by parameter name
                                state.json              step, stream, schedule, random states, counters
                                digests.json            of the other three, see `train.files`

The newest few are kept, and the best one where the caller knows which it is.

A checkpoint is written into a folder with a temporary name, every file and the folder flushed, then renamed; one that
is removed gets such a name first. So a folder named step-<number> is whole. If the power fails before the rename, the
previous checkpoint is the newest and the leftover is removed by the next start. Nothing is pickled: what cannot be a
tensor is JSON.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from brickyard.shards.atomic import flush
from brickyard.shards.documents import read_file, write_document
from brickyard.shards.errors import NONSENSE, BrickyardError
from brickyard.train.files import check_digests, write_digests

_PARTIAL = ".partial-"
_NAME = re.compile(r"step-([0-9]+)")
_FILES = ("weights.safetensors", "optimiser.safetensors", "state.json")
VERSION = 2
"""Version 1 had no digests; it is read as well."""


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimiser: Optimizer,
    state: Mapping[str, Any],
    *,
    keep: int = 2,
    best: int | None = None,
) -> Path:
    """Commit `folder/step-<step>` and remove all but the newest `keep` checkpoints and that of step `best`.

    Args:
        state: JSON-able; `load_checkpoint` returns it.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True)
        flush(folder.parent)
    remove_leftovers(folder)
    target = folder / _name(step)
    temporary = folder / f"{_PARTIAL}{target.name}"
    temporary.mkdir()
    save_file(_contiguous(model.state_dict()), temporary / "weights.safetensors")
    tensors, scalars = _optimiser_state(model, optimiser)
    save_file(tensors, temporary / "optimiser.safetensors")
    table = {"version": VERSION, "step": step, "optimiser": scalars, "random": _random_state(), **state}
    write_document(temporary / "state.json", table, indent=1)
    write_digests(temporary, _FILES)
    for path in (*temporary.iterdir(), temporary):
        flush(path)
    if target.exists():
        _remove(target)
    temporary.rename(target)
    flush(folder)
    for old in checkpoints(folder)[:-keep]:
        if best is None or old.name != _name(best):
            _remove(old)
    return target


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process had not finished to write, or to remove."""
    for leftover in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _remove(checkpoint: Path) -> None:
    """Its name goes first: killed at any moment, no half of a checkpoint is left under it."""
    shutil.rmtree(checkpoint.rename(checkpoint.with_name(f"{_PARTIAL}old-{checkpoint.name}")))


def _name(step: int) -> str:
    return f"step-{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoints, oldest first; what has any other name, such as a copy, is none."""
    found = [(int(name[1]), path) for path in folder.glob("step-*") if (name := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if path.is_dir()]


def load_checkpoint(path: Path, model: nn.Module, optimiser: Optimizer) -> dict[str, Any]:
    """Restore model, optimiser and the random states of torch and numpy; returns state.json.

    Raises:
        BrickyardError: where a file is missing, damaged, or belongs to another model.
    """
    hint = "delete this checkpoint to go on from an older one, or from the beginning where there is none"
    table = read_file(path / "state.json", {"version": int, "step": int}, error=BrickyardError, hint=hint)
    if not 1 <= table["version"] <= VERSION:
        raise BrickyardError(f"checkpoint {path} has version {table['version']}, this program reads 1 to {VERSION}")
    check_digests(path, _FILES, hint=hint, required=table["version"] > 1)
    try:
        device = next(model.parameters()).device
        model.load_state_dict(load_file(path / "weights.safetensors", device=str(device)))
        _restore_optimiser(model, optimiser, load_file(path / "optimiser.safetensors"), table["optimiser"])
        _restore_random(table["random"])
    except (OSError, RuntimeError, SafetensorError, *NONSENSE) as problem:
        raise BrickyardError(f"checkpoint {path} cannot be used: {problem}; {hint}") from problem
    return table


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _optimiser_state(model: nn.Module, optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors as "<parameter>/<entry>", other entries as JSON."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{entry}"] = value.detach().cpu().contiguous()
            else:
                scalars[f"{name}/{entry}"] = value
    return tensors, scalars


def _restore_optimiser(
    model: nn.Module, optimiser: Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> None:
    parameters = dict(model.named_parameters())
    optimiser.state.clear()
    for full, value in {**tensors, **scalars}.items():
        name, entry = full.rsplit("/", 1)
        parameter = parameters[name]
        if isinstance(value, Tensor) and (value.shape == parameter.shape or optimiser.defaults.get("fused")):
            value = value.to(parameter.device)
        optimiser.state[parameter][entry] = value


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - the global state is what is saved
    state: dict[str, Any] = {
        "torch": _encode(torch.get_rng_state().numpy()),
        "numpy": [kind, _encode(np.asarray(keys, "<u4")), int(position), int(has_gauss), float(cached)],
    }
    if torch.cuda.is_available():
        state["cuda"] = _encode(torch.cuda.get_rng_state().numpy())
    return state


def _restore_random(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state["torch"])), dtype=torch.uint8))
    kind, keys, position, has_gauss, cached = state["numpy"]
    array = np.frombuffer(base64.b64decode(keys), "<u4").astype(np.uint32)
    np.random.set_state((kind, array, position, has_gauss, cached))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        cuda = torch.frombuffer(bytearray(base64.b64decode(state["cuda"])), dtype=torch.uint8)
        torch.cuda.set_rng_state(cuda)


def _encode(array: Any) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
