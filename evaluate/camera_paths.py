"""Paths of cameras drawn in space: where each camera was, where it looked, and where it was found to be.

An oblique view of both paths in the frame of the true cameras, seen from the side on which they are longest; green is
true, red is predicted, a line leads from each camera to its counterpart. Frusta are of one size, whatever the lens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from brickyard.evaluate.camera_errors import Float64, Similarity, path_extent
from brickyard.evaluate.show.colour import RGB

TRUE, FOUND, BETWEEN, GROUND = (46, 160, 67), (214, 69, 65), (150, 150, 150), (250, 250, 250)
_SIZE, _MARGIN, _SCALE = 360, 28, 2
_CORNERS = np.array([[-0.6, -0.45, 1.0], [0.6, -0.45, 1.0], [0.6, 0.45, 1.0], [-0.6, 0.45, 1.0]])


def path_picture(true: Float64, found: Float64, aligned: Similarity, order: NDArray[np.int64]) -> RGB:
    """uint8 (H, W, 3) of two paths.

    Args:
        true, found: poses (V, 4, 4), world from camera, each in a world of its own. aligned: leads from that of `found`
            to that of `true`. order: of the views in time.
    """
    centres = true[order, :3, 3]
    reach = max(0.35 * path_extent(centres), 1e-6)
    moved = found[order].copy()
    moved[:, :3, :3], moved[:, :3, 3] = aligned.rotation @ moved[:, :3, :3], aligned(found[order, :3, 3])
    both = [_frusta(poses, reach) for poses in (true[order], moved)]
    flat = _flattening(centres)
    points = [frusta @ flat.T for frusta in both]
    every = np.concatenate([one.reshape(-1, 2) for one in points])
    low, span = every.min(0), np.ptp(every, axis=0).max()
    place = [(one - low) * ((_SIZE - 2 * _MARGIN) / max(span, 1e-9)) + _MARGIN for one in points]
    rest = (_SIZE - 2 * _MARGIN) * (1 - np.ptp(every, axis=0) / max(span, 1e-9)) / 2
    place = [(one + rest) * _SCALE for one in place]
    picture = Image.new("RGB", (_SIZE * _SCALE, _SIZE * _SCALE), GROUND)
    draw = ImageDraw.Draw(picture)
    for ours, theirs in zip(place[0][:, 0], place[1][:, 0], strict=True):
        draw.line([*map(tuple, (ours, theirs))], fill=BETWEEN, width=_SCALE)
    for frusta, colour in zip(place, (TRUE, FOUND), strict=True):
        draw.line([*map(tuple, frusta[:, 0])], fill=colour, width=2 * _SCALE)
        for eye, *corners in frusta:
            for corner, after in zip(corners, [*corners[1:], corners[0]], strict=True):
                draw.line([tuple(eye), tuple(corner), tuple(after)], fill=colour, width=_SCALE)
    return np.asarray(picture.resize((_SIZE, _SIZE), Image.Resampling.LANCZOS))


def _frusta(poses: Float64, reach: float) -> Float64:
    """(V, 5, 3): the eye and four corners ahead of it."""
    corners = np.concatenate((np.zeros((1, 3)), reach * _CORNERS))
    return np.asarray(np.einsum("vij,cj->vci", poses[:, :3, :3], corners) + poses[:, None, :3, 3])


def _flattening(centres: Float64) -> Float64:
    """(2, 3): right and down of the picture, tilted so that no direction of the path vanishes."""
    _, _, axes = np.linalg.svd(centres - centres.mean(0))
    axes = axes * np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]
    right = axes[0] * 0.94 + axes[2] * 0.34
    down = axes[1] * 0.8 + axes[2] * 0.56 - axes[0] * 0.2
    return np.stack((right, down))
