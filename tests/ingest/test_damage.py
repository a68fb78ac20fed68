"""Damage to raw files: what the kit calls noticed, and that our sources notice it on simulated worlds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.ingest.damage import BLOCK, NAMELESS, Damaged, assert_damage_is_noticed, damage_matrix
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef, Source
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Identity, Points, Scene
from brickyard.shards.storage import Store
from tests.benchmarks import raw_damage


@dataclass(frozen=True, kw_only=True)
class Options:
    pass


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """The scans that a list names; a list that is damaged is a loss of its own."""
    try:
        names = json.loads(store.read("scans.json"))
    except (OSError, ValueError) as problem:
        raise RawDataError(f"no list of scans: {problem}", dataset="pile", path="scans.json") from problem
    sizes = store.sizes()
    for name in names:
        if f"{name}.bin" not in sizes:
            yield Missing(dataset="pile", scene_id=name, reason="its scan is not there")
            continue
        files = {"points": f"{name}.bin"} | ({"colour": f"{name}.rgb"} if f"{name}.rgb" in sizes else {})
        yield SceneRef(dataset="pile", scene_id=name, split="none", sequence=name, root=store.uri, files=files)


def read(ref: SceneRef) -> Scene:
    files = RawFiles(ref)
    xyz = np.frombuffer(files.read(ref.files["points"]), "<f4").reshape(-1, 3)
    lost = ~xyz.any(axis=1)
    color = None
    if "colour" in ref.files:
        color = np.frombuffer(files.read(ref.files["colour"]), np.uint8)
        if len(color) != 3 * len(xyz) or not color.all():
            raise files.error(ref.files["colour"], "colours are not whole")
        color = color.reshape(-1, 3)[~lost]
    identity = Identity(
        dataset="pile", version="1", split="none", sequence=ref.sequence, scene_id=ref.scene_id, timestamp_ns=None,
        domain="object", licence="CC0-1.0", sources=files.sources(),
    )  # fmt: skip
    dropped = {"points of zeros": int(lost.sum())} if lost.any() else {}
    points = Points(xyz=xyz[~lost], color=color)
    return Scene(identity=identity, world_from_scene=np.eye(4), points=points, dropped=dropped)


def checked(read: Callable[[SceneRef], Scene]) -> Callable[[SceneRef], Scene]:
    """What is wrong with the bytes as an error of ours."""

    def wrapped(ref: SceneRef) -> Scene:
        try:
            return read(ref)
        except ValueError as problem:
            raise RawFiles(ref).error(ref.files["points"], str(problem)) from problem

    return wrapped


SOURCE = Source("pile", Options, plan, checked(read))
BLIND = {("points", "exchanged"): NAMELESS, ("colour", "exchanged"): NAMELESS}


@pytest.fixture
def pile(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / f"{name}.bin").write_bytes(rng.uniform(1, 2, (1000, 3)).astype("<f4").tobytes())
        (tmp_path / f"{name}.rgb").write_bytes(rng.integers(1, 256, 3000, np.uint8).tobytes())
    (tmp_path / "scans.json").write_text('["a", "b"]')
    return str(tmp_path)


def outcomes(found: list[Damaged]) -> dict[tuple[str, str], str]:
    return {(entry.role, entry.damage): entry.outcome for entry in found}


def test_each_outcome_is_told_from_the_others(pile: str) -> None:
    before = {path: path.read_bytes() for path in Path(pile).iterdir()}
    found = assert_damage_is_noticed(SOURCE, pile, places=3, undetectable=BLIND)
    assert outcomes(found) == {
        ("points", "missing"): "missing", ("points", "cut"): "quarantined", ("points", "zeroed"): "counted",
        ("points", "exchanged"): "undetectable",
        ("colour", "missing"): "absent", ("colour", "cut"): "quarantined", ("colour", "zeroed"): "quarantined",
        ("colour", "exchanged"): "undetectable",
        ("scans.json", "missing"): "quarantined", ("scans.json", "cut"): "quarantined",
        ("scans.json", "zeroed"): "quarantined",
    }  # fmt: skip
    notes = {(entry.role, entry.damage): entry.note for entry in found}
    assert notes["points", "zeroed"] == "points of zeros" and notes["points", "missing"] == "its scan is not there"
    assert {path: path.read_bytes() for path in Path(pile).iterdir()} == before, "only links are damaged"


def silent(scene: Scene) -> Scene:
    return replace(scene, dropped={})


def untold(store: Store, options: Options) -> Iterator[Any]:
    return (item for item in plan(store, options) if isinstance(item, SceneRef))


def fragile(store: Store, options: Options) -> Iterator[Any]:
    if store.exists("scans.json"):
        json.loads(store.read("scans.json"))
    return plan(store, options)


def noticed(store: Store, options: Options) -> Iterator[Any]:
    for item in plan(store, options):
        told = Notice(dataset="pile", scene_id=item.scene_id, reason=getattr(item, "reason", ""))
        yield item if isinstance(item, SceneRef) else told


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(SOURCE, read=lambda ref: silent(SOURCE.read(ref))), r"points \(a.bin\) zeroed: pile/a: scene.points"),
        (replace(SOURCE, read=read), r"points \(a.bin\) cut: reading raises ValueError"),
        (replace(SOURCE, plan=untold), r"points \(a.bin\) missing: pile/a vanishes"),
        (replace(SOURCE, plan=fragile), r"scans.json \(scans.json\) cut: planning raises JSONDecodeError"),
    ],
)
def test_what_passes_unnoticed_fails(pile: str, broken: Source, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_damage_is_noticed(broken, pile, places=2, undetectable=BLIND)


def test_an_excuse_must_be_true(pile: str) -> None:
    with pytest.raises(AssertionError, match="colour cut is called undetectable and is quarantined: "):
        assert_damage_is_noticed(SOURCE, pile, places=1, undetectable=BLIND | {("colour", "cut"): "no"})
    with pytest.raises(AssertionError, match="labels cut is called undetectable and was not tried"):
        assert_damage_is_noticed(SOURCE, pile, places=1, undetectable=BLIND | {("labels", "cut"): "no"})


def test_a_notice_is_a_count(pile: str) -> None:
    assert outcomes(damage_matrix(replace(SOURCE, plan=noticed), pile, places=1))["points", "missing"] == "counted"


def test_blocks_are_those_of_a_disk_and_every_place_is_tried(pile: str) -> None:
    seen: set[int] = set()

    def looking(ref: SceneRef) -> Scene:
        data = Store(ref.root).read("a.bin")
        if (start := data.find(bytes(BLOCK))) >= 0:
            seen.add(start)
        return SOURCE.read(ref)

    damage_matrix(replace(SOURCE, read=looking), pile, places=10)
    assert seen == {0, BLOCK}, "12,000 bytes have two whole blocks that can be lost"


SMALLER = replace(
    raw_damage.SMALL, waymo_image_size=(240, 160), scannetpp_scenes=2, scannetpp_photographs=3, scannetpp_frames=4,
    scannetpp_spacing=0.4, video_frames=16,
)  # fmt: skip


@pytest.mark.parametrize("world", sorted({case.world for case in raw_damage.CASES.values()}))
def test_our_sources_notice_damage(world: str) -> None:
    """The table of docs/datasets.md, with fewer places. A world takes longer to simulate than to damage."""
    sources = [name for name, case in raw_damage.CASES.items() if case.world == world]
    found = raw_damage.run(sources, config=SMALLER, places=2, dry=True)
    for source in sources:
        assert {row["damage"] for row in found if row["source"] == source} == set(raw_damage.DAMAGES), source
    assert not [row for row in found if row["outcome"] == "UNNOTICED"]
