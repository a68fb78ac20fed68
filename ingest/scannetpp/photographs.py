"""The photographs of a scene as views: fisheye pictures of 1752 x 1168 pixels, or the toolkit's undistorted ones.

Poses and calibration are COLMAP's. Where there are none, nerfstudio's file has the same in another world, which the
vertices tell. A photograph is used unless it is held out for the evaluation of new views, marked as bad (blurred), not
there, taken outside of the scene, or painted over in too many pixels; all but the held out ones are counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from brickyard.ingest.clips import spread_evenly
from brickyard.ingest.images import image_error, image_header
from brickyard.ingest.scan import Scan
from brickyard.ingest.scannetpp.colmap import REPORT, PosedCamera, read_colmap
from brickyard.ingest.scannetpp.nerfstudio import WORLDS, Transforms, find_world, inside, read_transforms
from brickyard.ingest.source import RawFiles
from brickyard.ingest.tiles import Core
from brickyard.shards.errors import NONSENSE, ImageError
from brickyard.shards.images import decode
from brickyard.shards.scene import Float32, Float64, View

FOLDERS = {
    "fisheye": ("resized_images", "resized_anon_masks"),
    "undistorted": ("resized_undistorted_images", "resized_undistorted_masks"),
}
MAX_IMAGE_BYTES = 64 << 20
MAX_JSON = 16 << 20
MAX_DISTANCE_M, MAX_TURN = 0.02, 0.02
"""Metres, and about radians, by which the two files may place a camera differently."""
NO_POSES = "photographs: neither COLMAP's files nor transforms.json with a camera are there"
NO_WORLD = "photographs: transforms.json is in no world that puts its cameras among the vertices"
BAD = "photograph that is marked bad"
GONE = "photograph that is not there"
OUTSIDE = "photograph taken outside of the scene"
CONTRADICTED = "photograph whose pose in transforms.json is another than COLMAP's"
HIDDEN = "photograph that is painted over in too many pixels"
UNMASKED = "photograph without its mask of painted-over pixels"
NO_LISTS = "photographs: without train_test_lists.json and transforms.json nobody knows the held out ones"


def photograph_views(scan: Scan, xyz: Float32, core: Core | None) -> list[View]:
    """The chosen photographs in the order of their names.

    Args:
        xyz: float32 (N, 3), all vertices, which are in the scene frame.
        core: of the chunk; photographs taken elsewhere are another's. None takes all.

    Raises:
        RawDataError: a damaged file.
    """
    details, files, dropped = scan.ref.details, scan.files, scan.dropped
    if details["dslr"] == "none" or not details["dslr_views"]:
        return []
    transforms = read_transforms(files, files.ref.files["transforms"]) if scan.path("transforms") else None
    posed = _undistorted(scan, _posed(scan, transforms, xyz))
    there = _there(scan, _usable(scan, posed, transforms))
    if not there:
        return []
    centres = np.array([posed[name].scene_from_camera[:3, 3] for name in there])
    within = inside(centres, xyz)
    _count(dropped, OUTSIDE, int((~within).sum()))
    mine = within if core is None else within & core.holds(centres)
    chosen = [there[k] for k in np.flatnonzero(mine)]
    return _views(scan, [chosen[k] for k in spread_evenly(len(chosen), details["dslr_views"])], posed, transforms)


def photograph_clip(scan: Scan) -> list[View]:
    """The posed photographs of a clip in the order of their names."""
    files, details = scan.files, scan.ref.details
    transforms = read_transforms(files, files.ref.files["transforms"]) if scan.path("transforms") else None
    posed = _undistorted(scan, read_colmap(files, files.ref.files["dslr_cameras"], files.ref.files["dslr_images"]))
    mine = {name: there for name, there in posed.items() if details["first"] <= name <= details["last"]}
    return _views(scan, _there(scan, _usable(scan, mine, transforms)), mine, transforms)


def _there(scan: Scan, usable: list[str]) -> list[str]:
    """Those photographs of which there is a file."""
    images = _files_of(scan, 0)
    there = [name for name in usable if name in images]
    _count(scan.dropped, GONE, len(usable) - len(there))
    return there


def _files_of(scan: Scan, kind: int) -> dict[str, str]:
    """Name without suffix -> path, of the photographs (kind 0) or of their masks (kind 1)."""
    folder = f"{scan.ref.details['folder']}/dslr/{FOLDERS[scan.ref.details['dslr']][kind]}"
    return {name.rpartition(".")[0]: f"{folder}/{name}" for name in scan.files.store.sizes(folder)}


def _views(
    scan: Scan, names: list[str], posed: Mapping[str, PosedCamera], transforms: Transforms | None
) -> list[View]:  # fmt: skip
    files, details, dropped = scan.files, scan.ref.details, scan.dropped
    images, masks = _files_of(scan, 0), _files_of(scan, 1) if details["max_hidden"] < 1 else {}
    views = []
    for name in names:
        if transforms is not None and _contradicts(transforms, name, posed[name].scene_from_camera):
            dropped[CONTRADICTED] += 1
        view = _read_view(files, images[name], name, posed[name])
        if name not in masks:
            _count(dropped, UNMASKED, 1 if masks else 0)
        elif hidden_share(files, masks[name], (view.width, view.height)) > details["max_hidden"]:
            dropped[HIDDEN] += 1
            continue
        views.append(view)
    return views


def _count(dropped: Counter[str], what: str, count: int) -> None:
    if count:
        dropped[what] += count


def _posed(scan: Scan, transforms: Transforms | None, xyz: Float32) -> Mapping[str, PosedCamera]:
    """Photograph -> camera and pose, from COLMAP's files or else from nerfstudio's."""
    cameras, images = scan.path("dslr_cameras"), scan.path("dslr_images")
    if cameras and images:
        return read_colmap(scan.files, cameras, images)
    if transforms is None or transforms.camera is None:
        scan.dropped[NO_POSES] += 1
        return {}
    world = find_world(transforms, xyz)
    if world is None:
        scan.dropped[NO_WORLD] += 1
        return {}
    return {
        name: PosedCamera(camera=transforms.camera, scene_from_camera=WORLDS[world] @ frame.world_from_camera)
        for name, frame in transforms.frames.items()
        if frame.world_from_camera is not None
    }


def _undistorted(scan: Scan, posed: Mapping[str, PosedCamera]) -> Mapping[str, PosedCamera]:
    """The same poses with the pinhole of the undistorted photographs, where these are wanted.

    The toolkit hands COLMAP's principal point to OpenCV, which counts pixels from the centre of the first one. So what
    it undistorts is off by up to half a pixel, beside what the intrinsics say; no intrinsics could mend that.
    """
    if scan.ref.details["dslr"] != "undistorted":
        return posed
    path = scan.path("transforms_undistorted")
    if path is None:
        return {}
    camera = read_transforms(scan.files, path).camera
    if camera is None or camera.model != "pinhole":
        raise scan.files.error(path, "names no camera of the model PINHOLE with fl_x, fl_y, cx, cy, w, h", hint=REPORT)
    return {name: replace(there, camera=camera) for name, there in posed.items()}


def _usable(scan: Scan, posed: Mapping[str, PosedCamera], transforms: Transforms | None) -> list[str]:
    """Names of photographs that are posed, not held out and not bad, sorted."""
    held_out = _held_out(scan, transforms)
    wanted = sorted(name for name in posed if scan.ref.details["test_views"] or name not in held_out)
    frames = transforms.frames if transforms is not None else {}
    good = [name for name in wanted if not (name in frames and frames[name].bad)]
    _count(scan.dropped, BAD, len(wanted) - len(good))
    return good


def _held_out(scan: Scan, transforms: Transforms | None) -> set[str]:
    path = scan.path("photograph_lists")
    if path is None and transforms is None:
        scan.dropped[NO_LISTS] += 1
    held_out = {name for name, frame in (transforms.frames if transforms else {}).items() if frame.held_out}
    if path is not None:
        try:
            names = json.loads(scan.files.read(path, MAX_JSON))["test"]
            held_out |= {name.rpartition(".")[0] for name in names}
        except NONSENSE as problem:
            what = f"expected an object with the lists train and test of file names: {problem}"
            raise scan.files.error(path, what[:200], hint=REPORT) from problem
    return held_out


def _contradicts(transforms: Transforms, name: str, pose: Float64) -> bool:
    frame = transforms.frames.get(name)
    if frame is None or frame.world_from_camera is None:
        return False
    for scene_from_world in WORLDS.values():
        difference = np.abs(scene_from_world @ frame.world_from_camera - pose)
        if difference[:3, :3].max() < MAX_TURN and difference[:3, 3].max() < MAX_DISTANCE_M:
            return False
    return True


def _read_view(files: RawFiles, path: str, name: str, posed: PosedCamera) -> View:
    data = files.read(path, MAX_IMAGE_BYTES)
    header = image_header(files, path, data)
    intrinsics = posed.camera.sized(*header.size)
    if intrinsics is None:
        found, known = (
            f"{width}x{height}" for width, height in (header.size, (posed.camera.width, posed.camera.height))
        )
        raise files.error(path, f"the photograph is {found}, its camera {known}, another shape", hint=REPORT)
    return View(
        name=name, image=data, image_format=header.format, width=header.width, height=header.height,
        camera_model=posed.camera.model, intrinsics=intrinsics, distortion=posed.camera.distortion,
        scene_from_camera=posed.scene_from_camera,
    )  # fmt: skip


def hidden_share(files: RawFiles, path: str, size: tuple[int, int]) -> float:
    """Share of the pixels of a mask that are 0: those were painted over; raises `RawDataError` for another size."""
    data = files.read(path, MAX_IMAGE_BYTES)
    header = image_header(files, path, data, expected="png")
    if header.size != size:
        raise files.error(path, f"the mask has {header.width}x{header.height} pixels, its image {size[0]}x{size[1]}")
    try:
        pixels = decode(data)
    except ImageError as problem:
        raise image_error(files, path, problem) from None
    return float((pixels[..., 0] == 0).mean())
