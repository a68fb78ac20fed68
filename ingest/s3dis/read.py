"""One S3DIS room, or a chunk of one -> Scene: the points of its annotation files, in the order of their names.

The files hold area coordinates (metres, z up). Rooms lie tens of metres from the area's origin, so the scene frame is
shifted: its origin is the centre of the room's bounding box in x and y and its lowest point in z, each rounded to whole
metres, and with `align_rooms` it is turned about z. world_from_scene leads back to area coordinates. All chunks of a
room share its frame; a view belongs to the chunk that holds most of the points it sees.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.s3dis.chunks import core_of, inside
from brickyard.ingest.s3dis.plan import TAXONOMY, class_of
from brickyard.ingest.s3dis.text import read_rows
from brickyard.ingest.s3dis.total import check_total
from brickyard.ingest.s3dis.views import read_views
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.tiles import to_scene
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import Float32, Float64, Identity, Part, Points, Scene, View

LICENCE = "LicenseRef-S3DIS"
MAX_ANGLES_BYTES = 1 << 20


def read(ref: SceneRef) -> Scene:
    """Read the room or chunk of a reference made by `plan`.

    Returns a validated Scene: xyz, colour, label set "s3dis13" and instances (k for the k-th annotation file of the
    room), and views if they were planned. Raises `RawDataError` for damaged files; a few damaged lines are repaired or
    left out and counted in `dropped`, as are views whose pose cannot be trusted.
    """
    files = RawFiles(ref)
    dropped = Counter(ref.details["dropped"])
    try:
        world, points = _read_points(files, dropped)
        turn = _read_rotation(files, dropped) if ref.details["align_rooms"] else np.eye(3)
        low, high = (np.array([pick(world[:, axis]) for axis in range(3)]) for pick in (np.min, np.max))
        origin = np.rint([*(low + high)[:2] / 2, low[2]])
        world_from_scene = np.eye(4)
        world_from_scene[:3, :3], world_from_scene[:3, 3] = turn.T, origin
        if np.array_equal(turn, np.eye(3)):  # no turn by nothing: huge rooms are what the memory is for
            xyz = to_scene(world, origin, None)
        else:
            xyz = (np.ascontiguousarray(world - origin) @ turn.T).astype(np.float32)
        points = replace(points, xyz=xyz)
        del world, xyz
        views = read_views(files, np.linalg.inv(world_from_scene), points.xyz, dropped)
        part, points, kept = _take_chunk(files, points, views)
    finally:
        files.store.close()
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=ref.details["version"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=None, domain="indoor", licence=LICENCE, sources=files.sources(),
        ),
        world_from_scene=world_from_scene,
        part=part,
        points=points,
        views=kept,
        dropped=dict(dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(f"{ref.details['folder']}/Annotations", str(problem)) from problem


def _read_points(files: RawFiles, dropped: Counter[str]) -> tuple[Float64, Points]:
    """World coordinates (N, 3) of all points of the room, and the points without coordinates yet."""
    places, colors, labels = [], [], []
    damages: Counter[str] = Counter()
    for name in files.ref.details["objects"]:
        xyz, color, damage = read_rows(files, files.ref.files[name.removesuffix(".txt")])
        damages.update(damage)
        places.append(xyz)
        colors.append(color)
        labels.append(class_of(name))
    sizes = [len(color) for color in colors]
    if not sum(sizes):
        raise files.error(
            f"{files.ref.details['folder']}/Annotations", "no file has a point", hint="extract the room again"
        )
    check_total(files, sum(sizes), damages)
    dropped.update(+damages)
    instance = np.arange(1, len(sizes) + 1, dtype=np.int32)
    points = Points(
        xyz=np.empty((0, 3), np.float32),
        color=np.concatenate(colors),
        semantic={TAXONOMY: np.repeat(np.array(labels, np.int16), sizes)},
        instance=np.repeat(instance, sizes),
    )
    return np.concatenate(places), points


def _take_chunk(
    files: RawFiles, points: Points, views: list[tuple[View, Float32]]
) -> tuple[Part | None, Points, tuple[View, ...]]:
    """What belongs to the planned chunk, or everything."""
    chunk = files.ref.details["chunk"]
    if chunk is None:
        return None, points, tuple(view for view, _ in views)
    try:
        cores = [core_of(points.xyz, k, chunk["count"]) for k in range(chunk["count"] if views else 0)]
        low, high = core_of(points.xyz, chunk["number"], chunk["count"])
    except SceneError as problem:
        raise files.error(
            f"{files.ref.details['folder']}/Annotations", str(problem), hint="raise chunk_points"
        ) from problem
    kept = []
    for view, seen in views:
        if not len(seen) and view.scene_from_camera is not None:  # no depth: the chunk it stands in
            seen = view.scene_from_camera[None, :3, 3].astype(np.float32)
        counts = [int(inside(seen, *core, 0.0).sum()) for core in cores]
        if int(np.argmax(counts)) == chunk["number"]:
            kept.append(view)
    mine = inside(points.xyz, low, high, chunk["overlap_m"])
    whole = files.ref.scene_id.rpartition("/")[0]
    return Part(whole=whole, core_min=low, core_max=high), _select(points, mine), tuple(kept)


def _select(points: Points, mine: NDArray[np.bool_]) -> Points:
    assert points.color is not None and points.instance is not None
    return Points(
        xyz=points.xyz[mine],
        color=points.color[mine],
        semantic={name: labels[mine] for name, labels in points.semantic.items()},
        instance=points.instance[mine],
    )


def _read_rotation(files: RawFiles, dropped: Counter[str]) -> Float64:
    """Rotation (3, 3) of the room about z, counter-clockwise by its angle; the identity, counted, where there is none.

    The table has a title between `##`, which names its area, and lines `<room> <degrees>`.
    """
    path = files.ref.files.get("alignment")
    room = files.ref.details["room"]
    text = files.read(path, MAX_ANGLES_BYTES).decode("utf-8", "replace") if path else ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        named = re.search(r"Area_\d+", line) if line.startswith("##") else None
        if path and named and named[0] != files.ref.sequence:
            raise files.error(path, f"these are the angles of {named[0]}", line=number, hint="extract it again")
        if path and words and words[0] == room:
            try:
                degrees = float(words[1])
            except (IndexError, ValueError) as problem:
                raise files.error(path, f"expected `{room} <degrees>`, found {line[:60]!r}", line=number) from problem
            if not abs(degrees) <= 360:
                raise files.error(path, f"{degrees} is no angle in degrees", line=number)
            if line == text[-len(line) :]:
                dropped["room alignment: the line of its angle may be cut off"] += 1
            c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    dropped["room alignment: there is no angle for this room"] += 1
    return np.eye(3)
