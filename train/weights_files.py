"""Files of weights that others wrote: read without running what is in them, and compared with a network by name.

PyTorch copies what has the right name and, asked not to be strict, keeps its random numbers for the rest: a network
that is half random still gives features. So what is missing, left over, of another shape or not finite is refused here,
before a weight is copied, with the first few names of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from brickyard.shards.errors import BrickyardError

_SHOWN = 3
_COUNTER = "num_batches_tracked"  # of a batch norm: no weight, and older versions of PyTorch wrote none


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(what a file holds, its metadata): tensors by name, or tables of them among plain values.

    Args:
        path: `.safetensors`, or any other name for what `torch.save` wrote, of which only tensors and plain values are
            read (`weights_only`): a file that asks for code is refused.

    Raises:
        BrickyardError: where there is no such file, or it holds something else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
        table = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # the unpickler's own error has no common base with the others
        raise BrickyardError(
            f"{path} holds no weights that can be read without running code: {problem}; from a training checkpoint,"
            " save its table of weights alone"
        ) from problem
    if not isinstance(table, Mapping):
        raise BrickyardError(f"{path} holds no table of weights but {type(table).__name__}")
    return dict(table), {}


def weights_in(table: Mapping[str, Any], place: Sequence[str]) -> dict[str, Tensor] | None:
    """The table of weights at a place, a sequence of names, in what a file holds; None where there is none."""
    found: Any = table
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        return None
    return dict(found) if all(isinstance(value, Tensor) for value in found.values()) else None


def check_fit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    """Compare weights with those of a network by name and shape; what batch norms count is no weight.

    Args:
        expected: of the network. given: of the file.
        what: they are, the beginning of the sentence.

    Raises:
        BrickyardError: with the first few names of those that are missing, left over, of another shape, not finite.
    """
    needed = [name for name in expected if not name.endswith(_COUNTER)]
    both = [name for name in needed if name in given]
    kinds = {
        "missing": [repr(name) for name in needed if name not in given],
        "not in this network": [repr(n) for n in given if n not in expected and not n.endswith(_COUNTER)],
        "of another shape": [
            f"{name!r} is {_shape(given[name])}, this network needs {_shape(expected[name])}"
            for name in both
            if given[name].shape != expected[name].shape
        ],
        "not finite": [repr(n) for n in both if given[n].is_floating_point() and not bool(given[n].isfinite().all())],
    }
    wrong = [f"{_count(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    if wrong:
        raise BrickyardError(f"{what}: {'; '.join(wrong)}")


def load_fitting(network: torch.nn.Module, given: Mapping[str, Tensor], what: str) -> None:
    """Copy weights into a network once `check_fit` has nothing against them."""
    check_fit(network.state_dict(), given, what)
    network.load_state_dict({name: value for name, value in given.items() if not name.endswith(_COUNTER)}, strict=False)


def _count(names: Sequence[str]) -> str:
    return "1 weight is" if len(names) == 1 else f"{len(names)} weights are"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _shape(value: Tensor) -> str:
    return " x ".join(str(size) for size in value.shape) or "a number"
