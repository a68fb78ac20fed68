"""What curators find of planted defects in a small world; docs/curation.md has the numbers of larger ones."""

from __future__ import annotations

import pytest

from tests.benchmarks.curation import COPIES, GUARD, RECIPE, SPOILED, Counts, drawn_index, found_in, judged, scenes_of
from tests.benchmarks.curation import SMALL as WORLD

BY_PICTURES = "\n  - deduplicate: {by: pictures}\n"


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counts]:
    """Without the network, which takes its time: copies are found by their pictures alone."""
    scenes = list(scenes_of(tmp_path_factory.mktemp("world"), 3, WORLD))
    recipe = RECIPE.replace(COPIES, BY_PICTURES).replace(GUARD, "\n  - guard: {look_alike: 0}\n")
    return {one.defect: one for one in found_in(scenes, None, recipe, BY_PICTURES)}


def test_clean_scenes_are_not_refused(counts: dict[str, Counts]) -> None:
    assert all(one.refused == 0 and one.clean > 5 for one in counts.values())


@pytest.mark.parametrize("name", [*(name for name in SPOILED if "0.5" not in name), "exact copy", "near copy"])
def test_planted_defects_are_found(counts: dict[str, Counts], name: str) -> None:
    assert counts[name].found == counts[name].planted > 0


def test_leaks_across_datasets_are_found(counts: dict[str, Counts]) -> None:
    leaks = counts["near copy of a validation scene in another dataset"]
    assert leaks.found == leaks.planted


def test_planted_copies_among_drawn_scenes_are_found() -> None:
    """Each with each, as far as 100,000 scenes."""
    done = judged(drawn_index(3000), COPIES)
    out = {int(key[2:]) for key, weight in zip(done.keys, done.weight, strict=True) if not weight}
    assert out and {k if k >= 2700 else k + 2700 for k in out} == set(range(2700, 3000))
