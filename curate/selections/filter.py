"""Filter: rules on numbers of the index. Every refusal keeps its rule and the value that broke it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.selections.candidates import Candidates
from brickyard.shards.scene import Float64


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which scenes are good enough.

    Attributes:
        at_least, at_most: limits on numbers and figures, such as {sharpness: 0.3}.
        datasets, domains: the rules hold for these alone; all where empty. Others stay.
        unknown: what becomes of a scene that has no such number: "refuse" or "keep".
        over: "scene" judges each by its own number, "sequence" by the median over its sequence, which a figure needs
            that says little of one scene (`yaw_off_degrees`).
    """

    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    unknown: Literal["refuse", "keep"] = "refuse"
    over: Literal["scene", "sequence"] = "scene"


def filter_scenes(scenes: Candidates, config: FilterConfig) -> None:
    """Leave out what breaks a rule. Raises `CorpusError` for a number that the index has not."""
    concerned = scenes.is_in("dataset", config.datasets) & scenes.is_in("domain", config.domains)
    before = len(scenes.alive)
    for limits, sign, mark in ((config.at_least, 1, ">="), (config.at_most, -1, "<=")):
        for name, limit in limits.items():
            value = scenes.number(name)
            if config.over == "sequence":
                value = _median(value, scenes.codes("dataset", "sequence"))
            unknown = np.isnan(value)
            broken = unknown if config.unknown == "refuse" else np.zeros(len(scenes), bool)
            broken = broken | (sign * value < sign * limit)
            rows = np.flatnonzero(broken & concerned & (scenes.weight > 0))
            rule = f"filter: {name} {mark} {limit:g}" + (" over its sequence" if config.over == "sequence" else "")
            told = {row: "it is unknown" if unknown[row] else f"it is {value[row]:.4g}" for row in rows.tolist()}
            scenes.refuse(rows, lambda row, rule=rule, told=told: f"{rule}, {told[row]}")  # type: ignore[misc]
            scenes.notes.append(f"{rule}: {len(rows)} of {before} out, {int(unknown[rows].sum())} of them unknown")


def _median(value: Float64, group: NDArray[np.int64]) -> Float64:
    """Of the known values of every group, for each of its members; NaN where none is known."""
    found = np.full(len(value), np.nan)
    order = np.lexsort((value, group))  # NaN last
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    for begin, end in zip(begins, np.append(begins[1:], len(order)), strict=True):
        rows = order[begin:end]
        known = value[rows][~np.isnan(value[rows])]
        if len(known):
            found[rows] = np.median(known)
    return found
