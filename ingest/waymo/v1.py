"""Waymo v1 (1.x): one TFRecord file per segment, one `Frame` record per frame.

Planning walks the records by their 12-byte headers, 198 short reads a segment; reading takes one record by its place,
checks both checksums and parses it (about 0.25 s for a frame of 5 MB with 537,000 points). A record that the file's end
cuts off, or whose header is damaged, is `Missing`, since a broken download usually ends so.

Frames are numbered within their segment: their timestamps stand inside the payload. A clip is read record by record,
whole ones, for the sake of their checksums (40 ms each), of which only one camera's fields are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

from brickyard.ingest.source import Missing, RawFiles, SceneRef, Source
from brickyard.ingest.waymo.clip import build_clip, cut_segment
from brickyard.ingest.waymo.frame import POINTS_ESTIMATE, SPLITS, Camera, Frame, Options, split_of
from brickyard.ingest.waymo.message import parse_camera, parse_frame
from brickyard.ingest.waymo.scene import build_scene
from brickyard.ingest.waymo.tfrecord import FOOTER_BYTES, HEADER_BYTES, Record, masked_crc, record_length, scan
from brickyard.ingest.waymo.wire import WireError
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

DATASET = "waymo_v1"
VERSION = "v1"
MAX_RECORD_BYTES = 256 << 20
_SUFFIX = ".tfrecord"


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the frames of all segments, by split, segment and number, or their clips.

    Raises:
        RecipeError: no segment under the root, or a segment asked for is not there.
    """
    segments = _segments(store)
    if not segments:
        raise RecipeError(f"no Waymo v1 segments in {store.uri}: expected training/segment-<name>{_SUFFIX} and so on")
    unknown = sorted(set(options.segments) - {name for name, _ in segments})
    if unknown:
        raise RecipeError(f"no such segment in {store.uri}: {', '.join(unknown)}")
    for name, path in segments:
        if not options.segments or name in options.segments:
            yield from _frames(store, name, path, options)


def _segments(store: Store) -> list[tuple[str, str]]:
    """(context name, path), for the files of the split folders and of the root itself."""
    found = []
    for folder in ("", *SPLITS):
        for file in store.list(folder):
            if file.endswith(_SUFFIX):
                name = file.removesuffix(_SUFFIX).removesuffix("_with_camera_labels").removeprefix("segment-")
                found.append((name, f"{folder}/{file}".lstrip("/")))
    return found


def _frames(store: Store, name: str, path: str, options: Options) -> Iterator[SceneRef | Missing]:
    total = store.size(path) or 0
    if not total:
        yield Missing(dataset=DATASET, scene_id=name, reason=f"{path} is empty")
        return
    whole: list[tuple[int, Record]] = []
    for number, record in enumerate(scan(total, partial(store.read_range, path))):
        scene_id = f"{name}/{number:06d}"
        if record.problem or record.length > MAX_RECORD_BYTES:
            reason = record.problem or f"the record has {record.length} bytes, at most {MAX_RECORD_BYTES} expected"
            yield Missing(dataset=DATASET, scene_id=scene_id, reason=f"{path}: {reason}")
        elif number % options.every == 0 and options.clips is None:
            details = options.details() | {"offset": record.offset, "length": record.length}
            points = POINTS_ESTIMATE * options.returns
            yield _reference(store, name, path, scene_id, details=details, points=points, size=record.length)
        elif number % options.every == 0:
            whole.append((number, record))
    if options.clips is not None:
        for clip in cut_segment(DATASET, name, whole, options.cameras, options.clips):
            if isinstance(clip, Missing):
                yield clip
                continue
            scene_id, camera, records = clip
            places = [[record.offset, record.length] for record in records]
            details = {"camera": camera, "frames": len(records), "records": places}
            size = sum(record.length for record in records)
            yield _reference(store, name, path, scene_id, details=details, points=0, size=size)


def _reference(
    store: Store, name: str, path: str, scene_id: str, *, details: dict[str, Any], points: int, size: int
) -> SceneRef:
    return SceneRef(
        dataset=DATASET,
        scene_id=scene_id,
        split=split_of(store, path.rpartition("/")[0]),
        sequence=name,
        root=store.uri,
        files={"frame": path},
        details=details,
        points_estimate=points,
        bytes_estimate=size,
    )


def read(ref: SceneRef) -> Scene:
    """One frame, in the vehicle's frame at its time; or one clip, in the vehicle's frame at its first picture.

    Raises:
        RawDataError: a record is missing, damaged or not what the format says.
    """
    files, path = RawFiles(ref), ref.files["frame"]
    if "records" in ref.details:
        pictures = [_picture(files, path, offset, length) for offset, length in ref.details["records"]]
        return build_clip(files, path, [picture for picture in pictures if picture is not None], VERSION)
    return build_scene(files, path, path, read_frame(files), VERSION)


def read_frame(files: RawFiles) -> Frame:
    """The frame of a reference, not yet a scene; raises `RawDataError`."""
    ref, path = files.ref, files.ref.files["frame"]
    offset, length = ref.details["offset"], ref.details["length"]
    payload = _payload(files, path, offset, length)
    try:
        return parse_frame(payload, ref.sequence, ref.details, partial(files.error, path, offset=offset))
    except WireError as problem:
        raise files.error(path, f"no Frame message: {problem}", offset=offset + HEADER_BYTES) from None


def _picture(files: RawFiles, path: str, offset: int, length: int) -> Camera | None:
    """A record's picture of the clip's camera; the record itself is let go before the next one is read."""
    payload = _payload(files, path, offset, length)
    try:
        return parse_camera(
            payload, files.ref.sequence, files.ref.details["camera"], partial(files.error, path, offset=offset)
        )
    except WireError as problem:
        raise files.error(path, f"no Frame message: {problem}", offset=offset + HEADER_BYTES) from None


def _payload(files: RawFiles, path: str, offset: int, length: int) -> bytes:
    hint = "the file is damaged or was replaced after planning; download it again and plan again"
    found = record_length(files.read_range(path, offset, HEADER_BYTES))
    if found != length:
        what = "a bad checksum" if found is None else f"{found} bytes"
        raise files.error(path, f"a record of {length} bytes was planned here, its header has {what}",
                          offset=offset, hint=hint)  # fmt: skip
    data = files.read_range(path, offset + HEADER_BYTES, length + FOOTER_BYTES)
    (checksum,) = struct.unpack("<I", data[length:])
    payload = data[:length]
    if masked_crc(payload) != checksum:
        raise files.error(path, "bad checksum of the record's payload", offset=offset, hint=hint)
    return payload


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
