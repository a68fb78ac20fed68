"""Deduplicate: copies go, one of each stays, and says who it stands for; against the plain definition of leaders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.curate.selections import leaders
from brickyard.curate.selections.leaders import similar_leaders
from brickyard.curate.selections.neighbours import find_cells
from brickyard.curate.selections.pictures import same_pictures, stored_hashes
from brickyard.curate.selections.places import standing
from brickyard.shards.errors import CorpusError
from tests.curate.selections.rows import curated, hashes, many, out, row, table, vectors

BASES = [hash_ for name in "abcdef" for hash_ in hashes(name)]


def plain(looks: np.ndarray, least: float) -> list[int]:
    """The definition, one by one."""
    kept: list[int] = []
    for k in range(len(looks)):
        same = [j for j in range(k) if kept[j] < 0 and looks[k] @ looks[j] >= least]
        kept.append(same[0] if same else -1)
    return kept


def anything(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.ones(len(first), bool)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 1000), st.sampled_from([3, 16]), st.sampled_from([1, 7, 512]))
def test_leaders_are_exactly_the_defined_ones(count: int, seed: int, width: int, block: int) -> None:
    looks = vectors(count, seed=seed, width=width).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaders, "_BLOCK", block)
        kept, near = similar_leaders(looks, 0.7, anything)
    assert kept.tolist() == plain(looks, 0.7)
    assert all(
        near[k] == pytest.approx(looks[k] @ looks[other], abs=1e-6) for k, other in enumerate(kept) if other >= 0
    )


def test_cells_find_what_is_nearly_the_same() -> None:
    """The way of more than 100,000 scenes: of planted copies at a cosine of 0.98, all but a few."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(3000, 128)) + 2 * rng.normal(size=(40, 128))[rng.integers(0, 40, 3000)]
    looks[1500:] = looks[:1500] + 0.2 * np.linalg.norm(looks[:1500], axis=1, keepdims=True) * vectors(1500, width=128)
    looks = (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)
    kept, _ = similar_leaders(looks, 0.97, anything, find_cells(looks)[1])
    assert (kept[1500:] == np.arange(1500)).mean() > 0.99
    assert (kept[:1500] < 0).all()


def test_the_one_with_more_points_stays_and_stands_for_the_others() -> None:
    look = vectors(5).tolist()
    rows = [row("few", n_points=10, embedding=look[0]), row("more", n_points=20, embedding=look[0])]
    rows += [row(f"other-{k}", embedding=look[k]) for k in (1, 2, 3)] + [row("none"), row("none-too")]
    scenes = curated(rows, "[deduplicate: {by: embedding}]")
    [(name, why)] = out(scenes).items()
    assert name == "few" and why.startswith("deduplicate: as a/more by embedding, ")
    assert "redundancy a 14.3%" in scenes.notes[0]
    assert list(out(curated(rows, "[deduplicate: {prefer: raw_bytes}]"))) == ["more"]  # equal: the first key stays


def flipped(values: list[int], bits: int) -> list[int]:
    return [value ^ sum(1 << (17 * k + 5) % 64 for k in range(bits)) for value in values]


def test_the_same_pictures() -> None:
    """Compressed again, in another order, some of them: three of four are enough, of those that there are."""
    one = hashes("one")
    rows = [row("1", hashes=one), row("2", hashes=flipped(one[::-1], 2)), row("3", hashes=[*one[:3], 5])]
    rows += [row("4", hashes=[*one[:2], 5, 6]), row("5", hashes=one[2:3]), row("6", hashes=flipped(one, 9)), row("7")]
    rows += [row("none", hashes=None)]
    found = out(curated(rows, "[deduplicate: {by: pictures}]"))
    assert found == {
        "2": "deduplicate: as a/1 by pictures, 1", "3": "deduplicate: as a/1 by pictures, 0.75",
        "5": "deduplicate: as a/1 by pictures, 1",
    }  # fmt: skip
    assert "4" in out(curated(rows, "[deduplicate: {by: pictures, least: 0.5}]"))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(BASES), max_size=4), max_size=12), st.integers(0, 2))
def test_pictures_are_compared_as_defined(lists: list[list[int]], bits: int) -> None:
    """Against each with each; hashes that differ in two bits or fewer are never missed."""
    mine = stored_hashes(table([row(f"{k:02d}", hashes=one or None) for k, one in enumerate(lists)]))
    theirs = stored_hashes(table([row(f"{k:02d}", hashes=flipped(one, bits) or None) for k, one in enumerate(lists)]))
    first, second, share = same_pictures(mine, theirs, 0.75)
    wanted = {}
    for i, one in enumerate(lists):
        for j, other in enumerate(lists):
            few, many_ = sorted((one, other), key=len) if len(one) != len(other) else (one, other)
            if few and (met := sum(h in many_ for h in few) / len(few)) >= 0.75:
                wanted[i, j] = met
    assert dict(zip(zip(first.tolist(), second.tolist(), strict=True), share.tolist(), strict=True)) == wanted


def test_other_shapes_are_no_copies() -> None:
    looks, shapes = vectors(3).tolist(), vectors(2, seed=1).tolist()
    rows = [row(f"{k}", embedding=looks[0], signature=shapes[k]) for k in (0, 1)]
    rows += [row("x", embedding=looks[1]), row("y", embedding=looks[2])]
    assert not out(curated(rows, "[deduplicate: {}]"))
    assert set(out(curated(rows, "[deduplicate: {signature: 0}]"))) == {"1"}
    assert set(out(curated(rows[:1] * 1 + [rows[1] | {"signature": shapes[0]}], "[deduplicate: {by: signature}]"))) == {
        "1"
    }


def test_a_vehicle_that_stands_still_shows_once() -> None:
    rows = [
        row(f"{k}", sequence="drive", timestamp_ns=k * 10**8, place=[0.1 * max(0, k - 5), 0.0, 0.0]) for k in range(20)
    ]
    rows += [row("elsewhere", sequence="other", timestamp_ns=0, place=[0.0, 0.0, 0.0])]
    scenes = curated(rows, "[deduplicate: {by: place, metres: 0.55, prefer: n_views}]")
    assert set(out(scenes)) == {str(k) for k in range(20)} - {"0", "11", "17"}
    assert out(scenes)["1"] == "deduplicate: as a/0 by place, 0 m apart"
    assert not out(curated([r | {"timestamp_ns": None} for r in rows], "[deduplicate: {by: place}]"))
    assert len(out(curated(rows, "[deduplicate: {by: place, metres: 0.55, seconds: 0.15}]"))) < 17


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 999), st.floats(0, 2), st.floats(0, 40))
def test_standing_is_as_defined(count: int, seed: int, metres: float, seconds: float) -> None:
    rng = np.random.default_rng(seed)
    places, times = rng.uniform(0, 4, (count, 3)).round(1), rng.integers(0, 60, count).astype(float)
    sequence = rng.integers(0, 2, count)
    places[rng.random(count) < 0.1] = np.nan
    wanted: list[int] = []
    for k in range(count):
        same = [
            j for j in range(k) if wanted[j] < 0 and sequence[j] == sequence[k] and abs(times[j] - times[k]) <= seconds
            and np.linalg.norm(places[j] - places[k]) <= metres
        ]  # fmt: skip
        wanted.append(same[0] if same else -1)
    assert standing(places, times, sequence, metres, seconds)[0].tolist() == wanted


def test_a_vehicle_may_stand_for_long() -> None:
    """20,000 scenes at one place: nothing that grows with their pairs."""
    kept, _ = standing(np.zeros((20_000, 3)), np.zeros(20_000), np.zeros(20_000, np.int64), 0.5, 10.0)
    assert kept[0] == -1 and (kept[1:] == 0).all()


def test_within_a_dataset_or_a_sequence() -> None:
    look = vectors(1).tolist()[0]
    others = [row(f"o{k}", embedding=one) for k, one in enumerate(vectors(9, seed=4).tolist())]
    rows = [*others, row("1", embedding=look, sequence="s"), row("2", embedding=look, sequence="t")]
    rows += [row("3", embedding=look, dataset="b", sequence="s")]
    for within, gone in (("corpus", {"2", "3"}), ("dataset", {"2"}), ("sequence", set())):
        assert set(out(curated(rows, f"[deduplicate: {{within: {within}}}]"))) == gone


def test_what_has_no_descriptor_cannot_be_compared() -> None:
    with pytest.raises(CorpusError, match="embedding is known of no scene: run `brickyard describe`"):
        curated([row("a")], "[deduplicate: {}]")
    with pytest.raises(CorpusError, match="no scene has a place"):
        curated([row("a")], "[deduplicate: {by: place}]")
    with pytest.raises(CorpusError, match="no picture of a scene has a hash"):
        curated([row("a", hashes=None)], "[deduplicate: {by: pictures}]")


@pytest.mark.parametrize(
    ("by", "wrong"),
    [
        ("pictures", {"hashes": [1, None]}), ("embedding", {"embedding": [float("nan")] * 16}),
        ("embedding", {"embedding": [1.0, 2.0]}), ("embedding", {"embedding": [None] * 16}),
        ("signature", {"signature": [float("inf")]}), ("place", {"place": [0.0, None, 1.0]}),
    ],
)  # fmt: skip
def test_descriptors_that_are_none_are_refused(by: str, wrong: dict[str, Any]) -> None:
    """As a layer that somebody else has written may hold them."""
    with pytest.raises(CorpusError, match="describe the corpus again"):
        curated([*many(4), row("x", **wrong)], f"[deduplicate: {{by: {by}}}]")


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(40)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    rows: list[dict[str, Any]] = many(40, copies=12)
    first, again = (curated(some, "[deduplicate: {}]") for some in (rows, [rows[k] for k in order]))
    assert len(out(first)) == 12 and out(first) == out(again) and first.notes == again.notes
