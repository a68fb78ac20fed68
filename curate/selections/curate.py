"""Curators in order: each takes what the one before has left.

curators:
  - filter: {at_most: {blank_share: 0.2}, domains: [indoor]}
  - deduplicate: {by: embedding}
  - guard: {}
  - balance: {temperature: 0.5}
  - diversity: {scenes: 10000}
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from brickyard.curate.selections.balance import BalanceConfig, balance
from brickyard.curate.selections.candidates import Candidates
from brickyard.curate.selections.deduplicate import DeduplicateConfig, deduplicate
from brickyard.curate.selections.diversity import DiversityConfig, diversify
from brickyard.curate.selections.filter import FilterConfig, filter_scenes
from brickyard.curate.selections.guard import GuardConfig, guard


@dataclass(frozen=True, kw_only=True)
class Curator:
    """One step; exactly one of these is given.

    Attributes:
        filter: leave out what breaks a rule.
        deduplicate: of scenes that show the same, one stays.
        guard: leave out evaluation data, and what looks like them.
        balance: weights for a mixture of datasets or domains, and for rare scenes.
        diversity: spend a budget on scenes that differ.
    """

    filter: FilterConfig | None = None
    deduplicate: DeduplicateConfig | None = None
    guard: GuardConfig | None = None
    balance: BalanceConfig | None = None
    diversity: DiversityConfig | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if len(given) != 1:
            raise ValueError("a step is one of filter, deduplicate, guard, balance, diversity, such as `guard: {}`")


@dataclass(frozen=True, kw_only=True)
class CurationRecipe:
    """How a corpus is curated.

    Attributes:
        curators: in this order.
    """

    curators: tuple[Curator, ...]


def run_curators(table: pa.Table, recipe: CurationRecipe, against: pa.Table | None = None) -> Candidates:
    """What the curators have decided of every scene of a described index (`shards.described`).

    Args:
        against: the described index of another corpus, whose evaluation scenes `guard` keeps out, too.

    Raises:
        CorpusError: a number or descriptor that a curator needs is not there.
    """
    scenes = Candidates(table)
    other = None if against is None else Candidates(against)
    for scenes.step, step in enumerate(recipe.curators):
        if step.filter is not None:
            filter_scenes(scenes, step.filter)
        if step.deduplicate is not None:
            deduplicate(scenes, step.deduplicate)
        if step.guard is not None:
            guard(scenes, step.guard, other)
        if step.balance is not None:
            balance(scenes, step.balance)
        if step.diversity is not None:
            diversify(scenes, step.diversity)
    for row in scenes.alive.tolist():
        scenes.reason[row] = scenes.reason[row] or "no rule against it"
    assert np.isfinite(scenes.weight).all()
    return scenes
