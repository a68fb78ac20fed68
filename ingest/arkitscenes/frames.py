"""Frames as views: which have an image, a camera and a pose, and their depth where the device was confident.

    lowres_wide/<id>_<t>.png   lowres_wide_intrinsics/<id>_<t>.pincam   lowres_depth/   confidence/   (wide/, vga_wide/)

A pincam is one line: width height fx fy cx cy; a pinhole, and another one for each frame, as the lens focuses. Times
are seconds with three decimals; files of one frame may differ by a millisecond. All frames of the wide camera, at
whichever size, share the trajectory. Images are kept as they are stored: turned as the sensor was held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from brickyard.ingest.agreement import agreement
from brickyard.ingest.arkitscenes.depth import DepthImages
from brickyard.ingest.arkitscenes.files import MAX_IMAGE, REPORT, CaptureFiles, beside
from brickyard.ingest.arkitscenes.pincam import read_pincam
from brickyard.ingest.arkitscenes.trajectory import (
    interpolated,
    nearest,
    quarter_turns,
    read_trajectory,
    stands_upright,
)
from brickyard.ingest.clips import spread_evenly, thin
from brickyard.ingest.images import image_header
from brickyard.shards.scene import Float32, Float64, View

MAX_PROBES = 50_000
MARGIN_M = 1.0
NO_TRAJECTORY = "frames: lowres_wide.traj is not there"
NO_IMAGES = "frames: the folder of the images is not there"
NO_CAMERA = "frame without a pincam"
NO_POSE = "frame without a pose near enough in time"
OUTSIDE = "frame taken outside of the mesh"
CONTRADICTED = "frame whose depth contradicts the vertices"
SKY = "frame that is turned another way than sky_direction says: the pose is believed"
NOT_LEVEL = "trajectory in which z is not the axis that is held level: perhaps z is not up"


@dataclass(frozen=True)
class Frame:
    """A frame with all that it needs: time, paths of its image and pincam, scene_from_camera."""

    milliseconds: int
    image: str
    pincam: str
    pose: Float64


def posed_frames(files: CaptureFiles, details: Mapping[str, Any], dropped: Counter[str]) -> list[Frame]:
    """The frames that can be used, in the order of their times; all others are counted by what they lack."""
    if not files.has(files.trajectory):
        dropped[NO_TRAJECTORY] += 1
        return []
    images = files.timed(details["images"])
    if not images:
        dropped[NO_IMAGES] += 1
        return []
    cameras = files.timed(f"{details['images']}_intrinsics")
    trajectory = read_trajectory(files, files.trajectory, dropped)
    if not stands_upright(trajectory.poses):
        dropped[NOT_LEVEL] += 1
    times = np.array(list(images), np.float64) / 1000
    if details["poses"] == "nearest":
        poses = nearest(trajectory, times, details["nearest_s"])
    else:
        poses = interpolated(trajectory, times, details["between_s"])
    frames = []
    for k, (time, image) in enumerate(images.items()):
        pincam = beside(cameras, time)
        if k not in poses:
            dropped[NO_POSE] += 1
        elif pincam is None:
            dropped[NO_CAMERA] += 1
        else:
            frames.append(Frame(time, image, pincam, poses[k]))
    return frames


def capture_views(files: CaptureFiles, xyz: Float32, dropped: Counter[str]) -> list[View]:
    """The chosen frames of a capture, in the order of their times.

    Args:
        xyz: float32 (N, 3), vertices, which cameras and depth images are held against.
    """
    details = files.ref.details
    if details["images"] == "none" or not details["views"]:
        return []
    frames = posed_frames(files, details, dropped)
    low, high = xyz.min(axis=0) - MARGIN_M, xyz.max(axis=0) + MARGIN_M
    within = [frame for frame in frames if ((frame.pose[:3, 3] >= low) & (frame.pose[:3, 3] <= high)).all()]
    if len(within) < len(frames):
        dropped[OUTSIDE] += len(frames) - len(within)
    chosen = [within[k] for k in spread_evenly(len(within), details["views"])]
    return _views(files, chosen, xyz[:: max(1, len(xyz) // MAX_PROBES)], dropped)


def clip_views(files: CaptureFiles, dropped: Counter[str]) -> list[View]:
    """The frames of a clip, in the order of their times."""
    details, lost = files.ref.details, Counter[str]()
    frames = posed_frames(files, details, lost)
    times = [frame.milliseconds / 1000 for frame in frames]
    kept = [frames[k] for k in thin(times, details["clips"]["rate_hz"])]
    members = [frame for frame in kept if details["first"] <= frame.milliseconds <= details["last"]]
    if len(members) != details["count"]:
        what = f"{len(members)} frames of the clip have a pose, the plan saw {details['count']}"
        raise files.error(files.trajectory, what, hint="the files have changed; plan again")
    if lost[NOT_LEVEL]:
        dropped[NOT_LEVEL] += 1
    return _views(files, members, None, dropped)


def _views(files: CaptureFiles, chosen: list[Frame], probes: Float32 | None, dropped: Counter[str]) -> list[View]:
    details = files.ref.details
    depths = None if details["depth"] == "none" else DepthImages(files, details["depth"])
    views = []
    for frame in chosen:
        view = _view(files, frame)
        if depths is not None:
            view = replace(view, depth=depths.read(frame.milliseconds, dropped))
            least = details["min_agreement"]
            if least and probes is not None and view.depth and agreement(view, probes)[0] < least:
                dropped[CONTRADICTED] += 1
                continue
        if details["turns"] is not None and quarter_turns(frame.pose) != details["turns"]:
            dropped[SKY] += 1
        views.append(view)
    return views


def _view(files: CaptureFiles, frame: Frame) -> View:
    data = files.read(frame.image, MAX_IMAGE)
    header = image_header(files, frame.image, data, expected="png")
    size, intrinsics = read_pincam(files, frame.pincam)
    if header.size != size or header.bits != 8 or header.kind not in ("rgb", "rgb+alpha"):
        what = f"{header.kind} of {header.width}x{header.height} pixels and {header.bits} bits, its camera has "
        raise files.error(frame.image, f"{what}{size[0]}x{size[1]} of 8-bit colours", hint=REPORT)
    return View(
        name=frame.image.rpartition("/")[2].removesuffix(".png").partition("_")[2], image=data,
        image_format=header.format, width=header.width, height=header.height, intrinsics=intrinsics,
        scene_from_camera=frame.pose, timestamp_ns=frame.milliseconds * 1_000_000,
    )  # fmt: skip
