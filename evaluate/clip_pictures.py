"""Pictures of new views for the page of a run: what was shown, what is real, what was rendered, and a flight.

Images of a few pixels are enlarged by whole factors, pixels as squares. Errors go from black to white, which is 0.5.
A flight passes along the cameras as the network knows them, in the order of time: between two of them their centres are
joined by a line, their rotations by the shortest turn (Shoemake, SIGGRAPH 1985). What it shows, nobody photographed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from brickyard.evaluate.show.colour import RGB
from brickyard.train.models.cameras import Cameras
from brickyard.train.models.view_network import Look, ViewNetwork

_ERROR, _EDGE, _AT_A_TIME = 0.5, 160, 8


def view_pictures(real: Tensor, found: Mapping[str, Tensor]) -> tuple[tuple[str, RGB], ...]:
    """(caption, uint8 (H, W, 3)) of one view, images (3, h, w) in [0, 1].

    Args:
        found: what a network rendered (""), and what needs none ("_nearest", "_mean").
    """
    error = ((found[""] - real).abs().mean(0, keepdim=True) / _ERROR).expand_as(real)
    named = {
        "Nearest input view": found["_nearest"],
        "Mean of the two neighbours": found["_mean"],
        "Real": real,
        "Rendered": found[""],
        "Error of rendering": error,
    }
    return tuple((caption, enlarged(image)) for caption, image in named.items())


def enlarged(image: Tensor) -> RGB:
    """uint8 (H, W, 3) of an image (3, h, w) in [0, 1]."""
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).numpy()
    factor = max(1, round(_EDGE / min(pixels.shape[:2])))
    return np.asarray(pixels.repeat(factor, 0).repeat(factor, 1))


def flight(network: ViewNetwork, look: Look, times: Sequence[int], frames: int) -> NDArray[np.uint8]:
    """uint8 (frames, H, W, 3), rendered along the cameras of the one clip of a look.

    Args:
        times: frames of the views, all different.
    """
    cameras = between(look.cameras, times, frames)
    with torch.no_grad():
        told = network.tell(cameras)
        parts = [
            network.render(look.scene, told[:, k : k + _AT_A_TIME])[0] for k in range(0, told.shape[1], _AT_A_TIME)
        ]
    return np.stack([enlarged(image) for image in torch.cat(parts)])


def between(cameras: Cameras, times: Sequence[int], count: int) -> Cameras:
    """Cameras (1, count) at equal steps of time along those of one clip, from its first to its last."""
    order = np.argsort(times)
    known = np.asarray(times, np.float64)[order]
    poses, intrinsics = cameras.poses[0].double().cpu().numpy()[order], cameras.intrinsics[0].cpu().numpy()[order]
    found, focal = np.tile(np.eye(4), (count, 1, 1)), np.empty((count, 4))
    for k, time in enumerate(np.linspace(known[0], known[-1], count)):
        after = int(np.clip(np.searchsorted(known, time, side="right"), 1, len(known) - 1))
        share = (time - known[after - 1]) / (known[after] - known[after - 1])
        first, second = poses[after - 1], poses[after]
        found[k, :3, :3] = turned(first[:3, :3], second[:3, :3], share)
        found[k, :3, 3] = (1 - share) * first[:3, 3] + share * second[:3, 3]
        focal[k] = (1 - share) * intrinsics[after - 1] + share * intrinsics[after]
    like = cameras.poses
    return Cameras(
        poses=torch.from_numpy(found).to(like)[None], intrinsics=torch.from_numpy(focal).to(like)[None]
    )  # fmt: skip


def turned(first: NDArray[np.float64], second: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """The rotation (3, 3) that is a share of the shortest turn from one to another."""
    turn = Rotation.from_matrix(first.T @ second).as_rotvec()
    return np.asarray(first @ Rotation.from_rotvec(share * turn).as_matrix())
