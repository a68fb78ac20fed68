"""Named, versioned label sets. Scenes carry class ids of these; raw ids never leave the readers."""

from __future__ import annotations

import colorsys
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Taxonomy:
    """A label set: class id = position in `classes`; `UNLABELLED` (-1) stands for everything else.

    Attributes:
        name: key in `Points.semantic`, such as "scannet20".
        version: changes whenever an id changes its meaning.
        classes: names in id order.
        from_raw: the dataset's raw id -> class id (raw ids that are missing map to UNLABELLED).
        palette: RGB for pictures, one per class.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    from_raw: dict[int, int]
    palette: tuple[tuple[int, int, int], ...]


@cache
def taxonomy(name: str) -> Taxonomy:
    """The taxonomy of a name; raises KeyError with the known names."""
    return _all()[name]


def taxonomy_names() -> list[str]:
    return sorted(_all())


@cache
def _all() -> dict[str, Taxonomy]:
    table = json.loads(Path(__file__).with_name("taxonomies.json").read_text())
    return {
        name: Taxonomy(
            name=name,
            version=entry["version"],
            classes=tuple(entry["classes"]),
            from_raw={int(raw): ident for raw, ident in entry["from_raw"].items()},
            palette=tuple(_colour(i) for i in range(len(entry["classes"]))),
        )
        for name, entry in table.items()
    }


def _colour(index: int) -> tuple[int, int, int]:
    """Distinct colours: golden-angle hues at alternating brightness."""
    r, g, b = colorsys.hsv_to_rgb((index * 0.6180339887) % 1, 0.55 + 0.25 * (index % 2), 0.95 - 0.2 * (index % 3))
    return int(r * 255), int(g * 255), int(b * 255)
