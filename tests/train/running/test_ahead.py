"""Items that are brought before they are asked for: the same ones, from the same place, with the same errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from brickyard.train.running.ahead import Ahead, each_tensor

CPU = torch.device("cpu")


class Source:
    """Three passes, then an error; it stands behind what was taken from it."""

    def __init__(self) -> None:
        self.at = 0

    def passes(self) -> Iterator[list[Any]]:
        for number in range(1, 4):
            self.at = number
            yield [torch.tensor(number)]
        raise ValueError("the fourth is damaged")


def numbers(items: list[Any]) -> list[int]:
    return [int(item) for item in items]


def test_the_place_is_that_of_the_items_in_use() -> None:
    source = Source()
    ahead = Ahead(source.passes(), lambda: source.at, CPU)
    assert ahead.place == 0
    ahead.look()
    assert (ahead.place, source.at) == (0, 1)
    assert numbers(next(ahead)) == [1]
    ahead.look()
    ahead.look()  # one pass ahead, not two
    assert (ahead.place, source.at) == (1, 2)
    assert numbers(next(ahead)) == [2]
    assert numbers(next(ahead)) == [3]
    assert ahead.place == 3


def test_an_error_is_raised_where_the_items_are_asked_for() -> None:
    source = Source()
    ahead = Ahead(source.passes(), lambda: source.at, CPU)
    for _ in range(3):
        next(ahead)
    ahead.look()
    with pytest.raises(ValueError, match="the fourth"):
        next(ahead)


def test_without_a_device_nothing_is_looked_at() -> None:
    source = Source()
    ahead = Ahead(source.passes(), lambda: source.at, None)
    ahead.look()
    assert source.at == 0
    assert [numbers(items) for items, _ in zip(ahead, range(2), strict=False)] == [[1], [2]]


@dataclass(frozen=True)
class Scene:
    key: str
    values: dict[str, Tensor]
    parts: tuple[int | Tensor, ...]
    inner: Scene | None = None


def test_every_tensor_is_found() -> None:
    one = torch.ones(1)
    scene = Scene("a", {"x": one}, (3, one), Scene("b", {}, (one,)))
    changed = each_tensor([scene, None], lambda tensor: tensor + 1)[0]
    assert changed == Scene("a", {"x": one + 1}, (3, one + 1), Scene("b", {}, (one + 1,)))
    assert (scene.values["x"] == 1).all()
