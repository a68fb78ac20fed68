"""Whether two scenes are the same, value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import xxhash

from brickyard.shards.scene import Scene


def first_difference(one: Any, two: Any, where: str = "scene") -> str | None:
    """Path of the first difference of two scenes, or None."""
    if type(one) is not type(two):
        return where
    if isinstance(one, np.ndarray):
        same = one.dtype == two.dtype and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
        return None if same else where
    pairs: list[tuple[str, Any, Any]]
    if is_dataclass(one):
        pairs = [(f"{where}.{f.name}", getattr(one, f.name), getattr(two, f.name)) for f in fields(one)]
    elif isinstance(one, Mapping):
        if list(one) != list(two):
            return where
        pairs = [(f"{where}[{key!r}]", one[key], two[key]) for key in one]
    elif isinstance(one, Sequence) and not isinstance(one, str | bytes):
        if len(one) != len(two):
            return where
        pairs = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(one, two, strict=True))]
    else:
        return None if one == two else where
    return next((found for path, a, b in pairs if (found := first_difference(a, b, path)) is not None), None)


def scene_digest(scene: Scene) -> str:
    """xxh3-128 (hex) of every value of a scene, arrays with dtype and shape."""
    digest = xxhash.xxh3_128()

    def feed(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        elif is_dataclass(value):
            for entry in fields(value):
                feed(getattr(value, entry.name))
        elif isinstance(value, Mapping):
            feed(list(value.items()))
        elif isinstance(value, tuple | list):
            digest.update(f"{len(value)} entries".encode())
            for entry in value:
                feed(entry)
        else:
            digest.update(repr(value).encode())

    feed(scene)
    return digest.hexdigest()
