"""Frames of the phone's film as views, with its depth and its pose at each frame.

    pose_intrinsic_imu.json   "frame_000000": {"timestamp": s, "pose", "aligned_pose": 4 x 4, "intrinsic": 3 x 3, ...}

`pose` is in the phone's own world, `aligned_pose` in the mesh's: camera to world, x right, y down, z forward.
Intrinsics are for frames of 1920 x 1440 pixels and differ from frame to frame, as the lens focuses. Poses can be off by
centimetres and more, so that each depth image is held against the vertices. COLMAP's poses are of some frames alone.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from brickyard.ingest.agreement import agreement
from brickyard.ingest.bounded import BoundedError, Limits, run_bounded
from brickyard.ingest.clips import spread_evenly
from brickyard.ingest.images import image_header
from brickyard.ingest.scan import Scan
from brickyard.ingest.scannetpp import depth
from brickyard.ingest.scannetpp.clips import clip_frames
from brickyard.ingest.scannetpp.colmap import REPORT, Camera, PosedCamera, read_colmap
from brickyard.ingest.scannetpp.nerfstudio import inside, rigid
from brickyard.ingest.tiles import Core
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import Depth, Float32, View

FILM = Path(__file__).with_name("film.py")
FRAME = struct.Struct("<IIId")
"""As in `film.py`, which this process does not import."""
FRAME_SIZE = (1920, 1440)
"""Width and height that the intrinsics of the phone are for."""
MAX_JSON = 512 << 20
MAX_IMAGE_BYTES = 64 << 20
MAX_PROBES = 50_000
NAME = re.compile(r"frame_(\d{6})")
SECONDS_PER_FRAME, SECONDS_PER_GIGABYTE = 60, 120
INVALID = "frame of the phone with an invalid pose"
OUTSIDE = "frame of the phone taken outside of the scene"
CONTRADICTED = "frame of the phone whose depth contradicts the vertices"
HIDDEN = "frame of the phone that is painted over in too many pixels"
NO_FILM = "frames of the phone: neither rgb.mkv nor the folder rgb is there"
NO_POSES = "frames of the phone: no poses are there"
GONE = "frame of the phone that is not in the folder rgb"


@dataclass(frozen=True)
class _Frame:
    """A frame: its number, time (ns), camera and pose of the picture, and intrinsics of the phone itself."""

    number: int
    time_ns: int
    posed: PosedCamera
    phone: Camera


def phone_views(scan: Scan, xyz: Float32, core: Core | None) -> list[View]:
    """The chosen frames in the order of the film; parameters and errors as of `photographs.photograph_views`."""
    details, dropped = scan.ref.details, scan.dropped
    if not details["iphone_views"]:
        return []
    if scan.path("arkit") is None:
        dropped[NO_POSES] += 1
        return []
    frames, total = _frames(scan)
    centres = np.array([frame.posed.scene_from_camera[:3, 3] for frame in frames]).reshape(-1, 3)
    within = inside(centres, xyz)
    if outside := int((~within).sum()):
        dropped[OUTSIDE] += outside
    mine = within if core is None else within & core.holds(centres)
    usable = [frames[k] for k in np.flatnonzero(mine)]
    chosen = [usable[k] for k in spread_evenly(len(usable), details["iphone_views"])]
    return _views(scan, chosen, total, xyz[:: max(1, len(xyz) // MAX_PROBES)])


def phone_clip(scan: Scan) -> list[View]:
    """The posed frames of a clip in the order of the film."""
    details, path = scan.ref.details, scan.ref.files["arkit"]
    frames, total = _frames(scan)
    if details["last"] >= total:
        what = f"it has {total} frames, the plan saw {details['last'] + 1} or more"
        raise scan.files.error(path, what, hint="the file has changed; plan again")
    members = {n for n in clip_frames(details["last"] + 1, details["clips"]["rate_hz"]) if n >= details["first"]}
    return _views(scan, [frame for frame in frames if frame.number in members], total, None)


def _views(scan: Scan, chosen: list[_Frame], total: int, probes: Float32 | None) -> list[View]:
    """Frames as views, with depth, which is held against vertices (K, 3) where there are any."""
    details = scan.ref.details
    chosen = _visible(scan, chosen, total)
    pictures = _pictures(scan, chosen, total)
    path = scan.path("depth")
    depths = depth.read_depth(scan.files, path, [f.number for f in chosen], total) if path and chosen else {}
    views = []
    for frame in (frame for frame in chosen if frame.number in pictures):
        view = _view(scan, frame, pictures[frame.number])
        if frame.number in depths:
            intrinsics = frame.phone.sized(depth.WIDTH, depth.HEIGHT)
            assert intrinsics is not None  # both are 4 : 3
            view = replace(view, depth=Depth(values=depths[frame.number], scale=depth.SCALE, intrinsics=intrinsics))
            least = details["min_agreement"]
            if least and probes is not None and agreement(view, probes)[0] < least:
                scan.dropped[CONTRADICTED] += 1
                continue
        views.append(view)
    return views


def _frames(scan: Scan) -> tuple[list[_Frame], int]:
    """The posed frames in order, and how many frames the film has."""
    path, colmap = scan.ref.files["arkit"], scan.ref.details["iphone_poses"] == "colmap"
    try:
        table = json.loads(scan.files.read(path, MAX_JSON))
        numbers = {name: int(NAME.fullmatch(name)[1]) for name in table}  # type: ignore[index]
        if sorted(numbers.values()) != list(range(len(numbers))) or not numbers:
            raise ValueError(f"{len(numbers)} frames whose numbers are not 0, 1, 2, ...")
        if colmap:
            posed = _colmap(scan)
            unknown = sorted(posed.keys() - numbers.keys())
            if unknown:
                raise ValueError(f"there is no {unknown[0]}, of which COLMAP has a pose")
        else:
            posed = None
        frames = [_frame(name, number, table[name], posed) for name, number in numbers.items()]
    except NONSENSE as problem:
        what = f"expected frame_000000 and so on with timestamp, aligned_pose and intrinsic: {problem}"
        raise scan.files.error(path, what[:200], hint=REPORT) from problem
    invalid = sum(frame is None for frame in frames) - (len(numbers) - len(posed) if posed is not None else 0)
    if invalid:
        scan.dropped[INVALID] += invalid
    return sorted((f for f in frames if f is not None), key=lambda frame: frame.number), len(numbers)


def _colmap(scan: Scan) -> Mapping[str, PosedCamera]:
    cameras, images = scan.path("iphone_cameras"), scan.path("iphone_images")
    if cameras and images:
        return read_colmap(scan.files, cameras, images)
    scan.dropped[NO_POSES] += 1
    return {}


def _frame(
    name: str, number: int, entry: Mapping[str, object], colmap: Mapping[str, PosedCamera] | None
) -> _Frame | None:
    """A frame; None where it has no pose, or one that is no rigid motion."""
    matrix = np.array(entry["intrinsic"], np.float64)
    fine = matrix.shape == (3, 3) and np.isfinite(matrix).all() and np.abs(matrix).max() < 1e5
    if not (fine and matrix[0, 0] > 0 and matrix[1, 1] > 0 and np.array_equal(matrix[2], (0, 0, 1))):
        raise ValueError(f"{name}: intrinsic is no camera matrix")
    phone = Camera(model="pinhole", width=FRAME_SIZE[0], height=FRAME_SIZE[1], intrinsics=matrix, distortion=())
    time = float(entry["timestamp"])  # type: ignore[arg-type]
    if not 0 <= time < 9e9:
        raise ValueError(f"{name}: timestamp {time} is none in seconds")
    if colmap is not None:
        return _Frame(number, round(time * 1e9), colmap[name], phone) if name in colmap else None
    pose = rigid(entry.get("aligned_pose"), np.eye(4))
    return (
        None
        if pose is None
        else _Frame(number, round(time * 1e9), PosedCamera(camera=phone, scene_from_camera=pose), phone)
    )


def _visible(scan: Scan, chosen: list[_Frame], total: int) -> list[_Frame]:
    """Those of the frames that are not painted over in too many pixels, where the film of masks is there."""
    path = scan.path("mask_film")
    if path is None or not chosen or scan.ref.details["max_hidden"] >= 1:
        return chosen
    shares = {number: black for number, _, _, black, _ in _take(scan, path, chosen, total, mask=True)}
    kept = [frame for frame in chosen if shares.get(frame.number, 0.0) <= scan.ref.details["max_hidden"]]
    if len(kept) < len(chosen):
        scan.dropped[HIDDEN] += len(chosen) - len(kept)
    return kept


def _pictures(scan: Scan, chosen: list[_Frame], total: int) -> dict[int, bytes]:
    """Frame -> its picture: a file that the dataset's toolkit took from the film, or a JPEG that is made here."""
    folder = f"{scan.ref.details['folder']}/iphone/rgb"
    extracted = {name.rpartition(".")[0]: name for name in scan.files.store.sizes(folder)}
    if extracted:
        names = {frame.number: extracted.get(f"frame_{frame.number:06d}") for frame in chosen}
        if gone := sum(name is None for name in names.values()):
            scan.dropped[GONE] += gone
        return {
            k: scan.files.read(f"{folder}/{name}", MAX_IMAGE_BYTES) for k, name in names.items() if name is not None
        }
    path = scan.path("film")
    if path is None or not chosen:
        if path is None:
            scan.dropped[NO_FILM] += 1
        return {}
    return {number: data for number, _, _, _, data in _take(scan, path, chosen, total, mask=False)}


def _take(
    scan: Scan, path: str, chosen: list[_Frame], total: int, *, mask: bool
) -> list[tuple[int, int, int, float, bytes]]:
    """(number, width, height, share of black pixels, JPEG) of frames of a film, decoded in a bounded child process."""
    size, files = scan.files.size(path), scan.files
    if find_spec("av") is None:
        raise files.error(
            path, "films are decoded with PyAV, which is not here", hint="pip install 'brickyard[ingest]'"
        )
    limits = Limits(seconds=60 + SECONDS_PER_FRAME * len(chosen) + SECONDS_PER_GIGABYTE * size // 10**9)
    request = {"numbers": [frame.number for frame in chosen], "frames": total, "mask": mask}
    try:
        messages = list(run_bounded(FILM, request, lambda at, n: files.read_range(path, at, n), size, limits))
    except BoundedError as problem:
        raise files.error(path, f"cannot be decoded: {problem}", hint="download it again") from problem
    return [(*FRAME.unpack_from(message), message[FRAME.size :]) for message in messages]


def _view(scan: Scan, frame: _Frame, data: bytes) -> View:
    path = scan.path("film") or f"{scan.ref.details['folder']}/iphone/rgb"
    header = image_header(scan.files, path, data)
    camera = frame.posed.camera
    intrinsics = camera.sized(*header.size)
    if intrinsics is None:
        what = (
            f"frame {frame.number} has {header.width}x{header.height} pixels, its camera {camera.width}x{camera.height}"
        )
        raise scan.files.error(path, what, hint=REPORT)
    return View(
        name=f"frame_{frame.number:06d}", image=data, image_format=header.format, width=header.width,
        height=header.height, camera_model=camera.model, intrinsics=intrinsics, distortion=camera.distortion,
        scene_from_camera=frame.posed.scene_from_camera, timestamp_ns=frame.time_ns,
    )  # fmt: skip
