"""One S3DIS room -> Scene: the points of its annotation files, one file after another in the order of their names.

The files hold area coordinates (metres, z up). Rooms lie tens of metres from the area's origin, so the scene frame is
shifted: its origin is the centre of the room's bounding box in x and y and its lowest point in z, each rounded to whole
metres, and with `align_rooms` it is turned about z. world_from_scene leads back to area coordinates.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ingest.s3dis.plan import TAXONOMY, class_of
from ingest.s3dis.text import read_rows
from ingest.source import RawFiles, SceneRef
from shards.errors import SceneError
from shards.scene import Float64, Identity, Points, Scene

LICENCE = "LicenseRef-S3DIS"
MAX_COORDINATE = 10_000.0
MAX_ANGLES_BYTES = 1 << 20


def read(ref: SceneRef) -> Scene:
    """Read the room of a reference made by `plan`.

    Returns a validated Scene: xyz, colour, label set "s3dis13" and instances (k for the k-th annotation file).
    Raises `RawDataError` for damaged files; a few damaged lines are repaired or left out and counted in `dropped`.
    """
    files = RawFiles(ref)
    dropped = Counter(ref.details["dropped"])
    try:
        rows, labels, instance = _read_objects(files, dropped)
        turn = _read_rotation(files, dropped) if ref.details["align_rooms"] else np.eye(3)
    finally:
        files.store.close()
    low, high = rows[:, :3].min(axis=0), rows[:, :3].max(axis=0)
    origin = np.rint([*(low + high)[:2] / 2, low[2]])
    world_from_scene = np.eye(4)
    world_from_scene[:3, :3], world_from_scene[:3, 3] = turn.T, origin
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=ref.details["version"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=None, domain="indoor", licence=LICENCE, sources=files.sources(),
        ),
        world_from_scene=world_from_scene,
        points=Points(
            xyz=((rows[:, :3] - origin) @ turn.T).astype(np.float32),
            color=rows[:, 3:].astype(np.uint8),
            semantic={TAXONOMY: labels},
            instance=instance,
        ),
        dropped=dict(dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(f"{ref.scene_id}/Annotations", str(problem)) from problem


def _read_objects(files: RawFiles, dropped: Counter[str]) -> tuple[Float64, NDArray[np.int16], NDArray[np.int32]]:
    """Rows (N, 6), class ids int16 (N,) and instances int32 (N,) of all objects."""
    tables, labels = [], []
    for name in files.ref.details["objects"]:
        path = files.ref.files[name.removesuffix(".txt")]
        rows, damage = read_rows(files, path)
        dropped.update(damage)
        _check_values(files, path, rows)
        tables.append(rows)
        labels.append(class_of(name))
    sizes = [len(rows) for rows in tables]
    if not sum(sizes):
        raise files.error(f"{files.ref.scene_id}/Annotations", "no file has a point", hint="extract the room again")
    instance = np.arange(1, len(sizes) + 1, dtype=np.int32)
    return np.concatenate(tables), np.repeat(np.array(labels, np.int16), sizes), np.repeat(instance, sizes)


def _check_values(files: RawFiles, path: str, rows: Float64) -> None:
    color = rows[:, 3:]
    cases = (
        ((np.abs(rows[:, :3]) > MAX_COORDINATE).any(axis=1), f"a coordinate beyond {MAX_COORDINATE:.0f} m"),
        (((color < 0) | (color > 255) | (color != np.rint(color))).any(axis=1), "a colour that is not 0..255"),
    )
    for bad, what in cases:
        if bad.any():
            text = " ".join(f"{value:g}" for value in rows[bad.argmax()])
            raise files.error(path, f"{int(bad.sum())} points have {what}, such as {text}", hint="extract it again")


def _read_rotation(files: RawFiles, dropped: Counter[str]) -> Float64:
    """Rotation (3, 3) of the room about z, counter-clockwise by its angle; the identity, counted, where there is none.

    The table has a title between `##` and lines `<room> <degrees>`.
    """
    path = files.ref.files.get("alignment")
    room = files.ref.scene_id.rpartition("/")[2]
    text = files.read(path, MAX_ANGLES_BYTES).decode("utf-8", "replace") if path else ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if path and words and words[0] == room:
            try:
                degrees = float(words[1])
            except (IndexError, ValueError) as problem:
                raise files.error(path, f"expected `{room} <degrees>`, found {line[:60]!r}", line=number) from problem
            if not abs(degrees) <= 360:
                raise files.error(path, f"{degrees} is no angle in degrees", line=number)
            c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    dropped["room alignment: there is no angle for this room"] += 1
    return np.eye(3)
