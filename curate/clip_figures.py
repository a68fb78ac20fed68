"""Figures of clips, by which one chooses what is worth training on: motion, stillness, cuts, light, sharpness.

They are written when a corpus is built, stand in the index, and `select` knows their names. Frames are decoded at an
eighth to a half of their size; sharpness looks at every eighth frame at 256 pixels or more: 9 ms a frame of 1920x1080
on one core, 4 of 640x480, nearly all of it for decoding. No figure is a verdict: rooms are darker than streets, and a
slow walk moves less than a car.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.shards.errors import ImageError
from brickyard.shards.images import decode_reduced
from brickyard.shards.scene import Float32, Float64, Scene, View
from brickyard.shards.shots import SIDE, find_cuts

FIGURES: Mapping[str, str] = {
    "motion": "by how much the picture shifts from frame to frame, as a share of its width (median)",
    "still_share": "share of frames that differ from the one before by less than a grey level in the mean",
    "cuts": "places where another shot begins",
    "brightness": "mean of the pixels, 0 to 1 (median over frames)",
    "dark_share": "share of pixels that are black, below 8 of 255",
    "bright_share": "share of pixels that are white, above 247 of 255",
    "sharpness": "deviation of the Laplacian over that of the pixels, at 256 pixels or more (median); blur lowers it",
    "baseline_m": "metres from camera to camera of neighbouring frames (median); only where poses are known",
    "turn_degrees": "degrees that the camera turns from frame to frame (median); only where poses are known",
}
"""Name -> what it is."""
LEAST_SMALL, LEAST_SHARP, EVERY = 72, 256, 8
GREY = (96, 72)
DARK, BRIGHT, STILL = 8, 247, 1.0
DAMAGED = "frame that cannot be decoded: the figures leave it out"


@dataclass(frozen=True, kw_only=True)
class ClipFiguresConfig:
    """There is nothing to set."""


def add_clip_figures(scene: Scene, config: ClipFiguresConfig) -> Scene:
    """The scene with its figures; unchanged if it has points or fewer than two frames.

    Frames that cannot be decoded stay in the clip, say nothing, and are counted in `dropped`.
    """
    del config
    if scene.points is not None or len(scene.views) < 2:
        return scene
    seen = [frame for view in scene.views if (frame := _decoded(view, LEAST_SMALL)) is not None]
    damaged = len(scene.views) - len(seen)
    figures = {**scene.figures, **(_looks(scene, seen) if len(seen) > 1 else {}), **_moves(scene)}
    return replace(scene, figures=figures, dropped={**scene.dropped, **({DAMAGED: damaged} if damaged else {})})


def _looks(scene: Scene, seen: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """What the pictures tell, two or more."""
    frames = [Image.fromarray(pixels) for pixels in seen]
    small = np.stack([np.asarray(frame.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) for frame in frames])
    grey = np.stack([np.asarray(frame.convert("L").resize(GREY, Image.Resampling.BOX), np.float32) for frame in frames])
    change = np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2))
    large = (_decoded(view, LEAST_SHARP) for view in scene.views[::EVERY])
    sharp = [sharpness(pixels) for pixels in large if pixels is not None]
    return {
        "motion": float(np.median([_shift(one, other) for one, other in pairwise(grey)]) / GREY[0]),
        "still_share": float((change < STILL).mean()),
        "cuts": float(len(find_cuts(small))),
        "brightness": float(np.median(grey.mean(axis=(1, 2))) / 255),
        "dark_share": float((grey < DARK).mean()),
        "bright_share": float((grey > BRIGHT).mean()),
        **({"sharpness": float(np.median(sharp))} if sharp else {}),
    }


def _decoded(view: View, least: int) -> NDArray[np.uint8] | None:
    try:
        return decode_reduced(view.image, least, (view.width, view.height))
    except ImageError:
        return None


def _shift(one: Float32, other: Float32) -> float:
    """Pixels that the second picture is shifted by: the peak of the correlation of phases (Kuglin and Hines, 1975). For
    pictures without content 0."""
    from skimage.registration import phase_cross_correlation

    if min(one.std(), other.std()) < 1:
        return 0.0
    shift, _, _ = phase_cross_correlation(one, other, normalization="phase", upsample_factor=4)
    return float(np.hypot(*shift))


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Of a picture (h, w, 3): the deviation of its Laplacian over that of its pixels, 0 for one without content."""
    grey = pixels.mean(axis=2)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    deviation = float(grey.std())
    return float((around - 4 * grey[1:-1, 1:-1]).std() / deviation) if deviation > 1 else 0.0


def _moves(scene: Scene) -> dict[str, float]:
    """Of neighbouring frames whose poses are both known; none where there are no such."""
    steps = [
        _step(one.scene_from_camera, other.scene_from_camera)
        for one, other in pairwise(scene.views)
        if one.scene_from_camera is not None and other.scene_from_camera is not None
    ]
    if not steps:
        return {}
    metres, degrees = np.median(np.array(steps), axis=0)
    return {"baseline_m": float(metres), "turn_degrees": float(degrees)}


def _step(one: Float64, other: Float64) -> tuple[float, float]:
    cosine = (np.trace(one[:3, :3].T @ other[:3, :3]) - 1) / 2
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
