"""Pictures of a rendered view: what was taken beside what was rendered, and how far they are apart.

Depths are coloured from near (red) to far (blue) over the range of the real ones; normals by their direction in the
scene: x, y, z from -1 to 1 as red, green, blue from dark to bright; errors of colour by their size, white for 0.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.posed_views import PosedView
from brickyard.evaluate.rendered_views import Shown
from brickyard.evaluate.show.colour import RGB, depth_colours, spread
from brickyard.evaluate.warping import Warped

_ERROR = 0.5
_GREY = (96, 102, 112)


def view_pictures(view: PosedView, shown: Shown, warped: Warped | None) -> tuple[tuple[str, RGB], ...]:
    """(caption, uint8 (H, W, 3)) of each.

    Args:
        view: as it was taken. shown: as it was rendered. warped: another view, warped into this one.
    """
    near, far = spread(view.depth[view.depth > 0])
    near = max(near, 1e-3)
    known = view.depth > 0
    pictures = [("Real", _bytes(view.color))]
    if shown.color is not None:
        color = shown.color.numpy()
        error = np.abs(color - view.color).mean(2, keepdims=True) / _ERROR
        pictures += [("Rendered", _bytes(color)), ("Error of colour", _bytes(np.repeat(error, 3, 2)))]
    if warped is not None:
        pictures.append(("Another view, warped", _bytes(warped.color * view.shown[..., None])))
    pictures += [
        ("Real depth", _grey(depth_colours(view.depth, near, max(far, 1.01 * near)), known)),
        ("Rendered depth", depth_colours(shown.depth.numpy(), near, max(far, 1.01 * near))),
        ("Real normals", _grey(_bytes((view.normal + 1) / 2), np.abs(view.normal).max(2) > 0)),
        ("Rendered normals", _bytes((shown.normal.numpy() + 1) / 2)),
    ]
    return tuple(pictures)


def _bytes(values: NDArray[Any]) -> RGB:
    return np.asarray(values.clip(0, 1) * 255 + 0.5, np.uint8)


def _grey(picture: RGB, known: NDArray[np.bool_]) -> RGB:
    return np.asarray(np.where(known[..., None], picture, np.array(_GREY, np.uint8)), np.uint8)
