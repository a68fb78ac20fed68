"""Labels of ScanNet++: the smallest of a vertex's first three objects, what the map says, what fits together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.scannetpp.annotation import _Votes
from brickyard.shards.errors import RawDataError
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.scannetpp_toy import TRAIN, VAL, copy, scene, simulated

CLASSES = taxonomy("scannetpp100").classes


def plain(root: Path, name: str) -> tuple[list[int], list[int]]:
    """Class and objectId + 1 of each vertex, vertex by vertex and with the csv read by hand: an independent parse."""
    folder = root / f"data/{name}/scans"
    segment_of = json.loads((folder / "segments.json").read_text())["segIndices"]
    groups = json.loads((folder / "segments_anno.json").read_text())["segGroups"]
    to = {}
    for line in (root / "metadata/semantic_benchmark/map_benchmark.csv").read_text().splitlines()[1:]:
        raw, _, semantic, _ = line.split(",")
        to[raw] = semantic or raw
    slots: list[list[tuple[int, int, int]]] = [[] for _ in segment_of]
    for group in groups:
        label = to.get(group["label"].strip())
        if label not in CLASSES:
            continue
        members = set(group["segments"])
        free = [v for v, segment in enumerate(segment_of) if segment in members and len(slots[v]) < 3]
        for v in free:
            slots[v].append((len(free), CLASSES.index(label), group["objectId"] + 1))
    chosen = [min(slot, key=lambda entry: entry[0]) if slot else (0, -1, 0) for slot in slots]
    return [entry[1] for entry in chosen], [entry[2] for entry in chosen]


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_labels_equal_an_independent_parse(name: str) -> None:
    root = simulated()[0]
    found = scene(root, name, dslr="none")
    labels, instances = plain(root, name)
    assert found.points is not None and found.points.instance is not None
    assert found.points.semantic["scannetpp100"].tolist() == labels and found.points.instance.tolist() == instances


@settings(max_examples=150, deadline=None)
@given(objects=st.lists(st.sets(st.integers(0, 7), max_size=8), max_size=9))
def test_a_vertex_belongs_to_the_smallest_of_its_first_three_objects(objects: list[set[int]]) -> None:
    votes, slots = _Votes(8), [[] for _ in range(8)]  # type: ignore[var-annotated]
    for number, members in enumerate(objects):
        votes.add(np.array(sorted(members), np.int64), number, number + 1)
        free = [v for v in members if len(slots[v]) < 3]
        for v in free:
            slots[v].append((len(free), number))
    expected = [min(slot)[1] if slot else -1 for slot in slots]
    assert votes.label.tolist() == expected and votes.instance.tolist() == [k + 1 for k in expected]
    assert (votes.used > 1).tolist() == [len(slot) > 1 for slot in slots]


def change(root: Path, path: str, edit: Callable[[Any], Any]) -> None:
    file = root / path
    content = json.loads(file.read_text())
    file.write_text(json.dumps(edit(content) or content))


def annotation(root: Path, edit: Callable[[Any], Any]) -> None:
    change(root, f"data/{TRAIN}/scans/segments_anno.json", edit)


def test_segments_that_hold_many_vertices_are_looked_up(tmp_path: Path) -> None:
    """In the release each vertex is a segment of its own; nobody may count on it."""
    root = copy(tmp_path)
    labels, _ = plain(root, TRAIN)
    change(root, f"data/{TRAIN}/scans/segments.json", lambda c: c.update(segIndices=[900 - 7 * k for k in labels]))
    group = {"objectId": 0, "segments": [900 - 7 * CLASSES.index("wall")], "label": "wall"}
    annotation(root, lambda content: content.update(segGroups=[group]))
    found = scene(root, dslr="none")
    assert found.points is not None and found.points.instance is not None
    wall = np.array(labels) == CLASSES.index("wall")
    assert ((found.points.semantic["scannetpp100"] == CLASSES.index("wall")) == wall).all()
    assert (found.points.instance == wall).all(), "objectId 0 is an object"


def test_the_map_drops_none_keeps_empty_and_is_missed(tmp_path: Path) -> None:
    root = copy(tmp_path)
    table = root / "metadata/semantic_benchmark/map_benchmark.csv"
    anno = {"segGroups": [
        {"objectId": 1, "segments": [0, 1, 2], "label": "wall"},
        {"objectId": 2, "segments": [3], "label": "shelf"},
        {"objectId": 3, "segments": [4], "label": "worktop, \"stone\" "},
        {"objectId": 4, "segments": [5], "label": "gramophone"},
    ]}  # fmt: skip
    annotation(root, lambda content: content.update(anno))
    header = "class,count,semantic_map_to,instance_map_to\n"
    table.write_text(header + 'wall,9,,None\nshelf,9,None,\n"worktop, ""stone""",9,kitchen counter,\n')
    labels = _labels(root)
    assert labels[:6] == ["wall", "wall", "wall", None, "kitchen counter", None]
    assert scene(root, dslr="none").dropped == {"object whose label the map does not know": 1}
    table.unlink()
    assert _labels(root)[:6] == ["wall", "wall", "wall", "shelf", None, None]
    (missing,) = (what for what in scene(root, dslr="none").dropped if "map_benchmark.csv" in what)
    assert "is not there" in missing


def _labels(root: Path) -> list[str | None]:
    points = scene(root, dslr="none").points
    assert points is not None
    return [CLASSES[k] if k >= 0 else None for k in points.semantic["scannetpp100"]]


def test_files_of_another_release_or_scene_are_refused_or_counted(tmp_path: Path) -> None:
    root = copy(tmp_path)
    annotation(root, lambda c: [g["obb"].update(centroid=[50.0, 0, 0]) for g in c["segGroups"]] and None)
    dropped = scene(root, dslr="none").dropped
    whole = len(json.loads((root / f"data/{TRAIN}/scans/segments_anno.json").read_text())["segGroups"])
    assert dropped["object whose box lies elsewhere than its vertices: perhaps of another scene or release"] == whole
    annotation(root, lambda c: [g.update(objectId=3) for g in c["segGroups"]] and None)
    assert scene(root, dslr="none").dropped["object with the objectId of another"] == whole - 1
    annotation(root, lambda c: [g.update(segments=[s + 10**6 for s in g["segments"]]) for g in c["segGroups"]] and None)
    with pytest.raises(RawDataError, match=r"segments_anno.json: \d+ of the \d+ segments it names are not in"):
        scene(root, dslr="none")
    change(root, f"data/{TRAIN}/scans/segments.json", lambda content: content["segIndices"].pop() and None)
    with pytest.raises(RawDataError, match=r"labels \d+ vertices, the mesh has \d+ .*same release"):
        scene(root, dslr="none")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: {"groups": []}, "has no list 'segGroups'.*please report"),
        (lambda c: c["segGroups"][0].update(objectId="1"), r"segGroups\[0\] needs objectId"),
        (lambda c: c["segGroups"][0].update(segments=[1.5]), r"segGroups\[0\].segments must hold integers"),
        (lambda c: c["segGroups"][0].update(segments=[2**70]), "integers beyond 64 bits"),
    ],
)
def test_what_does_not_look_as_documented_is_refused(
    tmp_path: Path, edit: Callable[[Any], Any], reason: str
) -> None:  # fmt: skip
    root = copy(tmp_path)
    annotation(root, edit)
    with pytest.raises(RawDataError, match=reason):
        scene(root, dslr="none")


def test_half_an_annotation_is_told(tmp_path: Path) -> None:
    root = copy(tmp_path)
    (root / f"data/{TRAIN}/scans/segments.json").unlink()
    found = scene(root, dslr="none")
    assert found.points is not None and not found.points.semantic and found.points.instance is None
    assert Counter(found.dropped) == Counter({
        "file not there: scans/segments.json": 1, "objects: segments.json or segments_anno.json is missing": 1,
    })  # fmt: skip
