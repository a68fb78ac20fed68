"""Features of images at places of the scene: every place is projected into every view, and what the views say of it is
told by its mean and variance over those that see it. A view sees what lies before it and within its image, whatever
stands between: what is hidden, the network behind has to find out. Source: the multi-view input of Zhu et al.,
"PonderV2", T-PAMI 2025, arXiv 2310.08586, after Murez et al., "Atlas", ECCV 2020, and Yao et al., "MVSNet", ECCV 2018.

Only pinholes: a straight line in the scene is one in the image, so a matrix is all that is needed of a camera. Places
are projected in float64: in float32 a scene 1 km from its origin is off by half a pixel, in the bfloat16 or TF32 of a
matrix product any scene by more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from brickyard.shards.scene import View
from brickyard.train.precision import float32_island
from brickyard.train.rendering.rays import Frame
from brickyard.train.rendering.volume import Grid

NEAREST = 0.05
"""Metres along the camera's z within which nothing is seen."""


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """What the views say of N places.

    Attributes:
        features: (N, 2 C), means, then variances over the views; 0 where none sees the place.
        views: int64 (N,), how many do.
    """

    features: Tensor
    views: Tensor


def image_matrix(view: View) -> NDArray[np.float64]:
    """float64 (3, 4): homogeneous places of the scene, metres -> (u z, v z, z), where u and v go from 0 to 1 over the
    image, from edge to edge, whatever the size to which it was resized.

    Raises:
        ValueError: the view has no pose, or is no pinhole.
    """
    if not is_pinhole(view):
        raise ValueError(f"view {view.name} is no pinhole ({view.camera_model}), so its image cannot be lifted")
    if view.scene_from_camera is None or not np.isfinite(view.scene_from_camera).all():
        raise ValueError(f"view {view.name} has no finite pose")
    matrix = np.asarray(view.intrinsics, np.float64)
    edges = np.array([[1 / view.width, 0, 0.5 / view.width], [0, 1 / view.height, 0.5 / view.height], [0, 0, 1]])
    result: NDArray[np.float64] = edges @ matrix @ np.linalg.inv(view.scene_from_camera)[:3]
    return result


def is_pinhole(view: View) -> bool:
    """Whether straight lines stay straight, and all lines of the image are of one moment."""
    straight = view.camera_model == "pinhole" or (view.camera_model == "opencv" and not any(view.distortion))
    return straight and view.rolling_shutter is None


def lifted_volume(maps: Tensor, to_image: Tensor, counts: Sequence[int], frame: Frame, grid: Grid) -> Tensor:
    """The features of images at the cells of a volume, (B, 2 C, X, Y, Z), memory channels_last_3d.

    Args:
        maps: (V, C, h, w). to_image: float64 (V, 3, 4). Both of one scene after another.
        counts: views of each scene.
        frame: of the scenes' boxes.
    """
    cells, scenes = grid.centres(frame.origin), []
    views = (torch.split(given, list(counts)) for given in (maps, to_image))
    for number, (some, matrices) in enumerate(zip(*views, strict=True)):
        places = frame.to_metres(cells.double(), torch.full((len(cells),), number, device=cells.device))
        scenes.append(lift(some, matrices, places).features)
    return torch.stack(scenes).view(len(scenes), *grid.shape, -1).permute(0, 4, 1, 2, 3)


def lift(maps: Tensor, to_image: Tensor, places: Tensor) -> Lifted:
    """The features of one scene's images at its places.

    Args:
        maps: (V, C, h, w), any sizes.
        to_image: float64 (V, 3, 4), as `image_matrix` gives them, of the same metres as places.
        places: (N, 3).

    Returns:
        Features in float32, under autocast, too.
    """
    count = torch.zeros(len(places), dtype=torch.long, device=places.device)
    total = torch.zeros(len(places), maps.shape[1], device=places.device)
    squares = torch.zeros_like(total)
    with float32_island(places.device):
        for one, matrix in zip(maps.float(), to_image.double(), strict=True):
            ahead = places.double() @ matrix[:, :3].T + matrix[:, 3]
            uv = ahead[:, :2] / ahead[:, 2:].clamp(min=NEAREST)
            seen = ((ahead[:, 2] > NEAREST) & (uv >= 0).all(1) & (uv < 1).all(1)).nonzero().squeeze(1)
            grid = (2 * uv[seen] - 1)[None, None].float()
            found = functional.grid_sample(one[None], grid, padding_mode="border", align_corners=False)[0, :, 0].T
            total = total.index_add(0, seen, found)
            squares = squares.index_add(0, seen, found.square())
            count[seen] += 1
        share = 1 / count.clamp(min=1)[:, None]
        mean = total * share
        spread = (squares * share - mean.square()).clamp(min=0)
    return Lifted(features=torch.cat((mean, spread), 1), views=count)
