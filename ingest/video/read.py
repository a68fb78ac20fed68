"""Reads one clip: a window of a video, a shot of RealEstate10K, or a run of images."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.bounded import BoundedError, Limits, run_bounded
from brickyard.ingest.clips import thin
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.video import cameras, images
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import Identity, Scene, View
from brickyard.shards.shots import SIDE, find_shots, motion

DECODER = Path(__file__).with_name("decode.py")
FRAME = struct.Struct("<qII")
SMALL_BYTES = SIDE * SIDE * 3
OPEN_SECONDS = 1800
SECONDS_A_SECOND = 20
SLACK_NS = 5_000_000
DAMAGED = "the file is damaged; download it again"

Decode = Callable[[RawFiles, str, Mapping[str, Any], int], Iterator[bytes]]


@dataclass(frozen=True, kw_only=True)
class Frames:
    """All F frames that were decoded of a window.

    Attributes:
        times: ns, rising.
        small: uint8 (F, 24, 24, 3).
        images: index of a frame -> (width, height, JPEG), for those that were kept.
        tally: what was damaged.
    """

    times: list[int]
    small: NDArray[np.uint8]
    images: dict[int, tuple[int, int, bytes]]
    tally: dict[str, int]


def read(ref: SceneRef) -> Scene:
    """One clip; raises `RawDataError` with the reason if the files give none."""
    return read_with(decode_in_child, ref)


def read_with(decode: Decode, ref: SceneRef) -> Scene:
    """`read` with another way to run the decoder."""
    files = RawFiles(ref)
    try:
        if ref.details["kind"] == "images":
            views, world_from_scene, dropped = images.read_images(files)
        else:
            make = _read_posed if ref.details["kind"] == "cameras" else _read_window
            views, dropped = make(files, decode)
            views, world_from_scene = images.near_origin(views)
        identity = Identity(
            dataset=ref.dataset, version=ref.details["version"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=views[0].timestamp_ns, domain="video", licence=ref.details["licence"],
            sources=files.sources(),
        )  # fmt: skip
        scene = Scene(identity=identity, world_from_scene=world_from_scene, views=tuple(views), dropped=dropped)
        return scene.validate()
    finally:
        files.store.close()


def decode_in_child(files: RawFiles, path: str, request: Mapping[str, Any], seconds: int) -> Iterator[bytes]:
    """Messages of `decode.main`, run in a bounded child process."""
    try:
        yield from run_bounded(
            DECODER, request, lambda offset, length: files.read_range(path, offset, length), files.size(path),
            Limits(seconds=seconds),
        )  # fmt: skip
    except BoundedError as problem:
        raise files.error(path, f"cannot be decoded: {problem}", hint=DAMAGED) from problem


def _decode(files: RawFiles, decode: Decode, window: tuple[int, int | None], wanted: list[int] | None) -> Frames:
    details, path = files.ref.details, files.ref.files["video"]
    start, stop = window
    request = {name: details[name] for name in ("rate_hz", "short_side", "quality", "max_frames")}
    request |= {"start_ns": start, "stop_ns": stop, "times_ns": wanted}
    seconds = OPEN_SECONDS if stop is None else min(60 + SECONDS_A_SECOND * (stop - start) // 10**9, OPEN_SECONDS)
    times: list[int] = []
    small: list[bytes] = []
    kept: dict[int, tuple[int, int, bytes]] = {}
    tally: dict[str, int] = {}
    for message in decode(files, path, request, seconds):
        try:
            if message[:1] == b"S":
                tally = {str(name): int(count) for name, count in json.loads(message[1:]).items()}
                continue
            time, width, height = FRAME.unpack_from(message, 1)
            place = 1 + FRAME.size + SMALL_BYTES
            if len(message) < place:
                raise ValueError("a message is too short")
        except NONSENSE as problem:
            raise files.error(path, f"the decoder sent nonsense: {problem}", hint=DAMAGED) from problem
        if len(message) > place:
            kept[len(times)] = (width, height, message[place:])
        times.append(time)
        small.append(message[1 + FRAME.size : place])
    tally.pop("decoded", None)
    pictures = np.frombuffer(b"".join(small), np.uint8).reshape(-1, SIDE, SIDE, 3)
    return Frames(times=times, small=pictures, images=kept, tally=tally)


def _read_window(files: RawFiles, decode: Decode) -> tuple[list[View], dict[str, int]]:
    """The longest shot of a window."""
    details, path = files.ref.details, files.ref.files["video"]
    start, stop = details["start_ns"], details["stop_ns"]
    found = _decode(files, decode, (start, stop), None)
    where = f"from {start / 1e9:g} s to {'the end' if stop is None else f'{stop / 1e9:g} s'}"
    if len(found.times) < 2:
        what = "no frame" if not found.times else "a single frame"
        damage = "".join(f", {count} {name}" for name, count in found.tally.items())
        raise files.error(path, f"{what} {where}, a clip needs 2{damage}", hint=DAMAGED if damage else None)
    shots = find_shots(found.small)
    if not shots:
        raise files.error(path, f"no picture with any content {where}")
    members = [[frame for frame in found.images if first <= frame < last] for first, last in shots]
    chosen = max(range(len(shots)), key=lambda k: len(members[k]))
    frames = members[chosen]
    if len(frames) < 2:
        rate = details["rate_hz"]
        raise files.error(path, f"{len(shots)} shots {where}, none has 2 frames at {rate:g} Hz, as a clip needs")
    moved = motion(found.small[frames])
    if moved < details["min_motion"]:
        least = f"min_motion is {details['min_motion']:g}"
        raise files.error(path, f"a still picture {where}: it changes by {moved:.2f} grey levels, {least}")
    dropped = dict(found.tally)
    dropped["frames of other shots"] = len(found.images) - len(frames)
    dropped["frames beyond the clip"] = max(0, len(frames) - details["frames"])
    views = [_view(found, frame, details["focal"]) for frame in frames[: details["frames"]]]
    dropped["views with assumed intrinsics"] = len(views)
    return views, {what: count for what, count in dropped.items() if count}


def _view(found: Frames, frame: int, focal: float) -> View:
    width, height, data = found.images[frame]
    time = found.times[frame]
    return View(
        name=f"frame-{time // 1000:012d}", image=data, image_format="jpeg", width=width, height=height,
        intrinsics=images.assumed_intrinsics(width, height, focal), timestamp_ns=time,
    )  # fmt: skip


def _read_posed(files: RawFiles, decode: Decode) -> tuple[list[View], dict[str, int]]:
    """The frames of a camera file."""
    details, path = files.ref.details, files.ref.files["video"]
    shot = cameras.read_cameras(files, files.ref.files["cameras"])
    kept = [shot[k] for k in thin([camera.time_ns / 1e9 for camera in shot], details["rate_hz"])]
    asked, kept = len(kept), kept[: details["frames"]]
    wanted = [camera.time_ns for camera in kept]
    found = _decode(files, decode, (max(0, wanted[0] - SLACK_NS), wanted[-1] + SLACK_NS), wanted)
    views: list[View] = []
    dropped = dict(found.tally)
    for frame, (width, height, _) in found.images.items():
        camera = min(kept, key=lambda c: abs(c.time_ns - found.times[frame]))
        if camera.world_from_camera is None:
            dropped["invalid pose"] = dropped.get("invalid pose", 0) + 1
        view = _view(found, frame, details["focal"])
        intrinsics = cameras.pixels(camera.intrinsics, width, height)
        views.append(replace(view, intrinsics=intrinsics, scene_from_camera=camera.world_from_camera))
    if len(views) < 2:
        raise files.error(path, f"{len(views)} of the {len(wanted)} times of {files.ref.files['cameras']} are in it")
    dropped["poses without a frame"] = len(wanted) - len(views)
    dropped["frames beyond the clip"] = asked - len(kept)
    return views, {what: count for what, count in dropped.items() if count}
