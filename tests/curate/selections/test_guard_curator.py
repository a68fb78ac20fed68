"""Guard: no scene of an official val or test split is ever trained on, nor its sequence, its drive, its look-alikes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.curate.selections.guard import ODOMETRY
from tests.curate.selections.rows import curated, hashes, many, out, outcome, row, vectors

LOOKS = vectors(12).tolist()


def looks(name: str, number: int, **columns: object) -> dict[str, object]:
    return row(name, embedding=LOOKS[number], **columns)  # type: ignore[arg-type]


FILLERS = [looks(f"filler-{k}", k, sequence=f"f{k}") for k in range(6, 12)]


def test_official_scenes_their_sequences_and_look_alikes_are_out() -> None:
    rows = [
        looks("tested", 0, split="val", sequence="x"), looks("neighbour", 1, sequence="x"),
        looks("copy", 0, dataset="b", sequence="y"), looks("free", 2, sequence="z"), looks("loose", 3), *FILLERS,
        looks("loose-test", 4, split="test"),
    ]  # fmt: skip
    found = out(curated(rows, "[guard: {}]"))
    assert found.pop("copy").startswith("guard: looks like a/tested (1.0000), which is for evaluation")
    assert found == {
        "tested": "guard: of the official val split",
        "loose-test": "guard: of the official test split",
        "neighbour": "guard: of the same sequence as a/tested, which is for evaluation",
    }


def test_the_same_pictures_under_another_name_are_out() -> None:
    rows = [
        row("tested", split="test", hashes=hashes("x")), row("copy", dataset="b", hashes=hashes("x")[::-1]), row("free")
    ]  # fmt: skip
    found = out(curated(rows, "[guard: {look_alike: 0}]"))
    assert found.keys() == {"tested", "copy"}
    assert found["copy"] == "guard: its pictures are those of a/tested, which is for evaluation"
    assert set(out(curated(rows, "[guard: {look_alike: 0, pictures: 0}]"))) == {"tested"}
    assert set(out(curated(rows[1:], "[guard: {look_alike: 0}]", rows[:1]))) == {"copy"}


def test_the_recipe_must_say_so_in_plain_words() -> None:
    rows = [looks("tested", 0, split="val"), *FILLERS]
    scenes = curated(rows, "[guard: {keep_evaluation_scenes: true}]")
    assert not out(scenes) and scenes.notes == ["guard: evaluation scenes are kept, as the recipe says"]


def test_another_name_of_the_same_drive() -> None:
    """Raw drives of KITTI, sequences of its odometry and KITTI-360 are known by the same name."""
    for number, drive in ODOMETRY.items():
        rows = [
            looks("a", 0, dataset="kitti_raw", split="none", sequence=f"{drive}_sync"),
            looks("b", 1, dataset="kitti_odometry", split="val", sequence=number), *FILLERS,
        ]  # fmt: skip
        assert out(curated(rows, "[guard: {look_alike: 0}]"))["a"].startswith("guard: of the same sequence as kitti_od")
    rows = [
        looks("a", 0, dataset="s3dis", sequence="00"),
        looks("b", 1, dataset="semantic3d", split="test", sequence="00"),
    ]
    assert set(out(curated([*rows, *FILLERS], "[guard: {}]"))) == {"b"}


def test_a_visit_in_both_folds_is_out() -> None:
    """ARKitScenes has such: the visit is the sequence."""
    rows = [
        looks("1", 0, dataset="arkitscenes", split="train", sequence="421254"),
        looks("2", 1, dataset="arkitscenes", split="val", sequence="421254"), *FILLERS,
    ]  # fmt: skip
    assert set(out(curated(rows, "[guard: {}]"))) == {"1", "2"}


def test_other_corpora_count_too() -> None:
    mine = [looks("copy", 0), looks("same-drive", 1, sequence="s"), *FILLERS]
    theirs = [
        looks("tested", 0, dataset="b", split="test"), looks("tested-too", 5, split="val", sequence="s"),
        looks("trained", 6, sequence="f6"),
    ]  # fmt: skip
    assert set(out(curated(mine, "[guard: {}]", theirs))) == {"copy", "same-drive"}
    assert not out(curated(mine, "[guard: {}]"))


def test_what_was_left_out_before_guards_all_the_same() -> None:
    """A val scene that went as a copy of a training scene takes that one with it."""
    rows = [looks("big", 0, n_points=9000), looks("small", 0, split="val", n_points=10), *FILLERS]
    assert set(out(curated(rows, "[deduplicate: {}, guard: {}]"))) == {"big", "small"}
    assert set(out(curated(rows, "[guard: {}, deduplicate: {}]"))) == {"big", "small"}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.permutations(["filter", "deduplicate", "guard", "balance", "diversity"]))
def test_official_scenes_never_get_in(seed: int, steps: list[str]) -> None:
    """Whatever else the recipe does, in whatever order."""
    settings_of = {"filter": "{at_least: {sharpness: 0.2}}", "diversity": "{scenes: 20}", "balance": "{rarity: 0.5}"}
    recipe = ", ".join(f"{step}: {settings_of.get(step, '{}')}" for step in steps)
    scenes = curated(many(45, seed=seed, copies=9), f"[{recipe}]")
    splits = scenes.table.column("split").to_pylist()
    assert all(split == "train" for split, weight in zip(splits, scenes.weight, strict=True) if weight > 0)
    assert all(why for _, why in outcome(scenes).values())
