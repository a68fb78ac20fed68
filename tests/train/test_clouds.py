"""Clouds from samples: what a network may not be given is refused with the scene's key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brickyard.shards.errors import BrickyardError
from brickyard.train.clouds import read_cloud


class Stored(dict[str, Any]):
    """A sample of four points."""

    key = "rooms/0001"
    header = SimpleNamespace(identity=SimpleNamespace(domain="indoor"), points={"intensity_unit": "unit"})

    def __init__(self, **changed: tuple[int, float]) -> None:
        super().__init__()
        for name, width in (("xyz", 3), ("normal", 3), ("intensity", 1)):
            values = np.full((4, width), 0.5, np.float32)
            if name in changed:
                point, value = changed[name]
                values[point, -1] = value
            self[f"points/{name}"] = SimpleNamespace(values=values, dequantise=lambda values=values: values)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["xyz", "normal", "intensity"])
def test_one_number_that_is_not_finite_names_its_scene_and_point(name: str, value: float) -> None:
    inputs = ("xyz", "normal", "intensity")
    assert len(read_cloud(Stored(), inputs).xyz) == 4  # type: ignore[arg-type]
    with pytest.raises(BrickyardError, match=rf"scene rooms/0001: {name} of point 2 is \[.*(nan|inf)\], not finite"):
        read_cloud(Stored(**{name: (2, value)}), inputs)  # type: ignore[arg-type]
