"""Settings that no recipe means are refused where they are made, whichever class they stand in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest

from brickyard.shards.errors import RecipeError
from brickyard.train.loop import TrainConfig
from brickyard.train.objectives import CONFIGS
from brickyard.train.optimiser import OptimiserConfig, check_warmup


def floats(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a config and those below it hold a float."""
    for field in dataclasses.fields(config):
        value, here = getattr(config, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value):
            yield from floats(value, here)
        elif isinstance(value, float):
            yield here
        elif isinstance(value, tuple):
            yield from ((*here, i) for i, item in enumerate(value) if isinstance(item, float))


def changed(config: Any, path: tuple[Any, ...], value: float) -> Any:
    name, *rest = path
    old = getattr(config, name)
    if not rest:
        new: Any = value
    elif isinstance(rest[0], int):
        new = tuple(value if i == rest[0] else item for i, item in enumerate(old))
    else:
        new = changed(old, tuple(rest), value)
    return dataclasses.replace(config, **{name: new})


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name", ["train", *(name for name, cls in CONFIGS.items() if cls.__module__.startswith("bri"))]
)
def test_no_setting_takes_a_number_that_is_not_finite(name: str, value: float) -> None:
    config: Any = TrainConfig() if name == "train" else CONFIGS[name]()
    paths = list(floats(config))
    assert paths
    for path in paths:
        with pytest.raises((ValueError, RecipeError)):
            changed(config, path, value)


@pytest.mark.parametrize(
    "settings",
    [
        {"betas": (0.9, 1.0)}, {"betas": (1.5, 0.9)}, {"momentum": 2.0}, {"momentum": -0.1}, {"dampening": 2.0},
        {"weight_decay": -1e-4}, {"weight_decay_end": -1.0}, {"momentum_cycle": (0.95, 0.85)},
        {"momentum_cycle": (1.0, 0.85), "schedule": "one_cycle"}, {"lr": 0.0}, {"warmup": -1},
    ],
)  # fmt: skip
def test_absurd_settings_of_the_optimiser_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        OptimiserConfig(**settings)


def test_a_warm_up_ends_within_the_training() -> None:
    check_warmup(OptimiserConfig(warmup=10), 10)
    with pytest.raises(RecipeError, match="warm-up of 11 steps does not end within a training of 10"):
        check_warmup(OptimiserConfig(warmup=11), 10)
