"""Everything that stands against a scene, not only the rule that refused it first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from brickyard.curate.selections.curate import CurationRecipe, Curator, run_curators


def why_not(table: pa.Table, recipe: CurationRecipe, key: str, against: pa.Table | None = None) -> list[str]:
    """The reasons, in the order of the recipe: the rule that refuses the scene is left out and the curators run again,
    until the scene is in. Costs a curation for each reason; arguments as of `run_curators`."""
    steps = [single for step in recipe.curators for single in _singles(step)]
    found: list[str] = []
    while True:
        scenes = run_curators(table, CurationRecipe(curators=tuple(steps)), against)
        row = scenes.keys.index(key)
        if scenes.weight[row] > 0:
            return found
        found.append(scenes.reason[row])
        del steps[int(scenes.refused_at[row])]


def _singles(step: Curator) -> Iterator[Curator]:
    """A filter of several limits as several filters."""
    if step.filter is None:
        yield step
        return
    for name, limit in step.filter.at_least.items():
        yield Curator(filter=replace(step.filter, at_least={name: limit}, at_most={}))
    for name, limit in step.filter.at_most.items():
        yield Curator(filter=replace(step.filter, at_least={}, at_most={name: limit}))
