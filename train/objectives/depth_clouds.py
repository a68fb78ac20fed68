"""The points of a scene that has none: what its depth images show, of a posed clip such as those of 7-Scenes.

Places alone, without colours or normals: they say where the box to be rendered lies, as the points of a room do, and
what of a surface was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from brickyard.shards.errors import UnfitSceneError
from brickyard.train.clouds import Cloud
from brickyard.train.objectives.view_rays import depth_rays, evenly, read_depth

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Sample

PER_VIEW = 4096
"""Points of each depth image, at most."""


def has_points(header: SceneHeader) -> bool:
    """Whether a scene has points of its own."""
    return "points/xyz" in header.fields


def depth_cloud(sample: Sample, numbers: Sequence[int]) -> Cloud:
    """What the depth images of some views show, spread evenly over each; the same at every call.

    Args:
        numbers: of views with a finite pose and a depth image that was read, see `view_rays.usable_views`.

    Raises:
        UnfitSceneError: they show less than two places.
    """
    header = sample.header
    parts = [
        depth_rays(header, number, read_depth(sample, number), None, evenly(PER_VIEW, 0)).seen for number in numbers
    ]
    xyz = np.concatenate(parts) if parts else np.empty((0, 3))
    if len(np.unique(xyz, axis=0)) < 2:
        raise UnfitSceneError(f"it has no points, and the {len(numbers)} depth images that stand for them show nothing")
    return Cloud(key=sample.key, domain=header.identity.domain, xyz=torch.from_numpy(xyz).float(), values={})
