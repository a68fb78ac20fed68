"""Files that are as long as they say and hold next to nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Tree:
    """Writes files below a folder and counts their bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes = 0
        self._made: set[str] = set()

    def hole(self, name: str, size: float, head: bytes = b"") -> None:
        """A file of `size` bytes, rounded, that begins with `head`."""
        folder = name.rpartition("/")[0]
        if folder not in self._made:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        length = max(len(head), int(size))
        with (self.root / name).open("wb") as file:
            file.write(head)
            file.truncate(length)
        self.bytes += length

    def text(self, name: str, lines: list[str]) -> None:
        """A file of lines."""
        data = "".join(f"{line}\n" for line in lines).encode()
        self.hole(name, len(data), data)


def sizes(dataset: str, count: int, mean: float, spread: float = 0.5) -> list[float]:
    """`count` sizes with this mean, drawn for the dataset from a log-normal distribution with `spread` as its sigma."""
    rng = np.random.default_rng(int.from_bytes(dataset.encode()[:8], "little"))
    found: list[float] = (mean * rng.lognormal(-spread * spread / 2, spread, count)).tolist()
    return found


def part(count: int, share: float) -> int:
    """So many of `count`, at least one."""
    return max(1, round(count * share))
