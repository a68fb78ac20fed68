"""What the annotation says of a building's colours: `<id>.semantic.txt`.

    HM3D Semantic Annotations
    313,23694C,"refrigerator cabinet",9          instance, colour, category, region

A category may hold commas: it ends at its quotes. Its class is that of the published mapping to 40 classes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "hm3d40"
MAX_NAMES = 16 << 20
_FIRST = "HM3D Semantic Annotations"
_LINE = re.compile(r'\s*(\d{1,7}),([0-9A-Fa-f]{6}),"(.*)",(-?\d{1,7})\s*')


@dataclass(frozen=True, eq=False)
class Annotation:
    """Colours, rising int64 (K,) as 0xRRGGBB, with class int16 (K,) and instance int32 (K,); the first is -1, which no
    texel has, UNLABELLED and 0."""

    color: NDArray[np.int64]
    semantic: NDArray[np.int16]
    instance: NDArray[np.int32]

    def of(self, colors: NDArray[np.uint8]) -> tuple[NDArray[np.int16], NDArray[np.int32], int]:
        """(classes, instances) of colours uint8 (N, 3), and how many of them are not in the list."""
        wanted = colors.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        place = np.searchsorted(self.color, wanted, side="right") - 1
        place[self.color[place] != wanted] = 0
        return self.semantic[place], self.instance[place], int((place == 0).sum())


@cache
def classes() -> dict[str, int]:
    """Category -> class id of "hm3d40"; those that the mapping calls unlabeled are UNLABELLED."""
    ids = {name: number for number, name in enumerate(taxonomy(TAXONOMY).classes)} | {"unlabeled": UNLABELLED}
    table = json.loads(Path(__file__).with_name("categories.json").read_text(encoding="utf-8"))
    return {category: ids[name] for name, categories in table.items() for category in categories}


def read_annotation(files: RawFiles, path: str, dropped: Counter[str]) -> Annotation:
    """Raises `RawDataError` for a list whose lines or colours are damaged; unknown categories are counted."""
    lines = files.read(path, MAX_NAMES).decode("utf-8", "replace").splitlines()
    if not lines or _FIRST not in lines[0]:
        found = lines[0][:60] if lines else ""
        raise files.error(path, f"begins with {found!r}, expected {_FIRST!r}", line=1, hint="download it again")
    rows = {-1: (UNLABELLED, 0)}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            problem = f'{line[:80]!r} is no line such as 313,23694C,"refrigerator cabinet",9'
            raise files.error(path, problem, line=number, hint="download it again")
        color, category = int(match[2], 16), match[3].strip()
        if color in rows:
            raise files.error(
                path, f"colour {match[2]} stands for two instances", line=number, hint="download it again"
            )
        label = classes().get(category)
        if label is None:
            dropped[f"instance of the unknown category {category[:40]!r}"] += 1
        rows[color] = UNLABELLED if label is None else label, int(match[1])
    order = sorted(rows)
    return Annotation(
        np.array(order, np.int64),
        np.array([rows[color][0] for color in order], np.int16),
        np.array([rows[color][1] for color in order], np.int32),
    )
