"""What differs between two selections: scenes, weights, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brickyard.shards.selection import Selection


@dataclass(frozen=True)
class SelectionDifference:
    """Two selections compared.

    Attributes:
        only_first, only_second: keys of scenes that the other one has not.
        reweighted: key -> its weights in the first and in the second, where they differ.
        same: scenes of the same weight in both.
        made: "corpus", where they were made over different ones, and the names of entries of `about` that differ.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    reweighted: Mapping[str, tuple[float, float]]
    same: int
    made: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not (self.only_first or self.only_second or self.reweighted or self.made)


def diff_selections(first: Selection, second: Selection) -> SelectionDifference:
    """Compare two selections, of one corpus or two; reasons are words, and are not compared."""
    one, two = (dict(zip(s.keys, s.weights.tolist(), strict=True)) for s in (first, second))
    both = [key for key in first.keys if key in two]
    reweighted = {key: (one[key], two[key]) for key in both if one[key] != two[key]}
    made = ["corpus"] if first.corpus != second.corpus else []
    made += [name for name in sorted({*first.about, *second.about}) if first.about.get(name) != second.about.get(name)]
    return SelectionDifference(
        tuple(key for key in first.keys if key not in two), tuple(key for key in second.keys if key not in one),
        reweighted, len(both) - len(reweighted), tuple(made),
    )  # fmt: skip
