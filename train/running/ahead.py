"""The items of the next pass on their way to the device, while it still computes this one.

Right after a pass has been handed to a GPU, the host has nothing to do: it takes the next items from the stream, pins
their memory, and has them copied beside the running kernels. Objectives must know that their items may lie on the
device already (`Objective.items_on_device`). Elsewhere, and on a CPU, items are handed on as they come; order and
numbers are the same.

A checkpoint wants the place in the stream behind the items that were used, not behind those that were looked at: that
is `place`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from brickyard.train.transfer import send


class Ahead(Iterator[list[Any]]):
    """The passes, one after another.

    Args:
        passes: items of every pass.
        place: where their source stands.
        device: None to leave items where they are and look at none ahead.
    """

    def __init__(self, passes: Iterator[list[Any]], place: Callable[[], Any], device: torch.device | None) -> None:
        self._passes, self._source, self._device = passes, place, device
        self.place = place()
        self._next: tuple[list[Any], Any] | Exception | None = None
        self._side: torch.cuda.Stream | None = None
        if device is not None and torch.cuda.is_available():
            self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def look(self) -> None:
        """Begin to bring the next items; what goes wrong is said when they are asked for."""
        if self._device is None or self._next is not None:
            return
        try:
            items, place = next(self._passes), self._source()
            with contextlib.nullcontext() if self._side is None else torch.cuda.stream(self._side):
                self._next = each_tensor(items, partial(send, device=self._device)), place
        except Exception as problem:
            self._next = problem

    def __next__(self) -> list[Any]:
        found, self._next = self._next, None
        if found is None:
            found = next(self._passes), self._source()
        elif isinstance(found, Exception):
            raise found
        elif self._side is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._side)
            each_tensor(found[0], lambda tensor: _used_by(tensor, current))
        items, self.place = found
        return items


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same lists, tuples, tables and dataclasses with every tensor in them changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [each_tensor(v, change) for v in value]
    if isinstance(value, tuple):
        return tuple(each_tensor(v, change) for v in value)
    if isinstance(value, Mapping):
        return {name: each_tensor(v, change) for name, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: each_tensor(v, change) for name, v in parts.items()})
    return value


def _used_by(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    """Its memory is not given to others of the side stream before this stream is done with it."""
    if tensor.device.type == "cuda":
        tensor.record_stream(stream)
    return tensor
