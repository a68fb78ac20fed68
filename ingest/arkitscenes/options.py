"""What to take from a capture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from brickyard.ingest.clips import ClipOptions
from brickyard.shards.errors import RecipeError

Images = Literal["lowres_wide", "wide", "vga_wide", "none"]
DepthImages = Literal["lowres", "highres", "none"]
Poses = Literal["nearest", "interpolated"]
Subset = Literal["", "3dod", "raw"]


@dataclass(frozen=True, kw_only=True)
class ARKitScenesOptions:
    """What to take from a capture.

    Attributes:
        subset: the folder below the root, "3dod" or "raw"; empty: 3dod where both are there. They were exported at
            different times, so they are never mixed.
        partial: the download has a part of the captures on purpose: those of the list that are not there are no missing
            scenes, one notice counts them.
        images: frames of 256 x 192 pixels ("lowres_wide", in both subsets), 640 x 480 ("vga_wide") or 1920 x 1440
            ("wide"; both in raw alone), or "none". They are turned as the sensor is, never upright.
        views: at most so many frames of a capture, spread evenly over those with a pose.
        poses: the trajectory has ten poses a second and the camera up to 60 frames. "nearest": a frame takes the pose
            that is next to it in time; "interpolated": it takes one between two poses, by great arc and straight line.
        nearest_s: seconds between a frame and its nearest pose, at most. Frames farther away have none.
        between_s: seconds between two poses that are interpolated, at most.
        depth: "lowres": 256 x 192, made on the device; "highres": 1920 x 1440, of the laser scanner (raw alone, and
            the captures for upsampling alone); "none".
        min_confidence: leave depth out (0) where the device's confidence is below this, 0 to 2, and count the pixels.
            Confidence is in raw alone.
        boxes: give the points inside of annotated boxes the class and the number of the box.
        min_agreement: leave out frames if, of the vertices at or in front of the surface in their depth image, a
            smaller share lies on it (see `ingest.agreement`); 0 keeps all.
        clips: yield clips of the frames with poses instead of captures; planning then reads the trajectories.
    """

    subset: Subset = ""
    partial: bool = False
    images: Images = "lowres_wide"
    views: int = 16
    poses: Poses = "nearest"
    nearest_s: float = 0.005
    between_s: float = 0.25
    depth: DepthImages = "lowres"
    min_confidence: int = 0
    boxes: bool = True
    min_agreement: float = 0.5
    clips: ClipOptions | None = None

    def __post_init__(self) -> None:
        times = (self.nearest_s, self.between_s)
        checks = (
            (self.subset in get_args(Subset), f"subset is 3dod or raw, found {self.subset!r}"),
            (self.images in get_args(Images), f"images is none of {', '.join(get_args(Images))}"),
            (self.depth in get_args(DepthImages), f"depth is none of {', '.join(get_args(DepthImages))}"),
            (self.poses in get_args(Poses), f"poses is none of {', '.join(get_args(Poses))}"),
            (self.views >= 0, "views must not be negative"),
            (all(math.isfinite(t) and 0 <= t <= 10 for t in times), "nearest_s and between_s are 0 to 10 seconds"),
            (self.min_confidence in (0, 1, 2), f"min_confidence is 0, 1 or 2, found {self.min_confidence}"),
            (0 <= self.min_agreement <= 1, f"min_agreement must be 0..1, found {self.min_agreement}"),
            (self.clips is None or self.images != "none", "clips need images"),
        )
        for holds, problem in checks:
            if not holds:
                raise RecipeError(f"arkitscenes options: {problem}")
