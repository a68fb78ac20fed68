"""Which point is seen at which pixel: the link between a cloud and its images that distillation learns from.

A point goes from the scene to the camera at the image's own exposure time, then to a pixel. It is kept if it lies in
front of the camera and strictly inside the image. This is the chain of the nuScenes devkit and of SLidR; they keep
hidden points too, so hidden ones stay here and are flagged. About 15 ms a view for 35,000 points, test included.

Where a view knows its rolling shutter, each point is projected at the time of its own line (see `shards.cameras`): at
15 m/s that moves points at the roadside by tens of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from brickyard.curate.visibility import VisibilityConfig, point_spacing, visible_points
from brickyard.shards.cameras import Projection, project
from brickyard.shards.errors import RecipeError
from brickyard.shards.lenses import LENSES
from brickyard.shards.scene import Correspondences, Float32, Scene, View


@dataclass(frozen=True, kw_only=True)
class CorrespondenceConfig:
    """Which pairs are kept.

    Attributes:
        min_depth_outdoor: metres along the camera's z a point must exceed outdoors (the devkit's 1 m skips the car), or
            metres from its centre where its lens is wide and may see what lies behind.
        min_depth_indoor: the same in every other domain.
        border: a pixel (u, v) must satisfy border < u < width - border, and the same with v and height. The nuScenes
            devkit has 1.
        rolling_shutter: project each point at the time of its own line where the view knows its rolling shutter;
            False takes one pose for the whole image, as the published systems do.
        visibility: the depth test behind the `visible` flag.
    """

    min_depth_outdoor: float = 1.0
    min_depth_indoor: float = 0.2
    border: float = 1.0
    rolling_shutter: bool = True
    visibility: VisibilityConfig = field(default_factory=VisibilityConfig)

    def __post_init__(self) -> None:
        if not (self.min_depth_outdoor > 0 and self.min_depth_indoor > 0 and self.border >= 0):
            raise RecipeError(f"correspondences: depths must be positive and border not negative, found {self}")


def add_correspondences(scene: Scene, config: CorrespondenceConfig) -> Scene:
    """The scene with pairs in every view that has a pose; views without one are counted in `dropped`.

    A scene without points comes back as it is.
    """
    if scene.points is None:
        return scene
    spacing = point_spacing(scene)
    posed = [view.scene_from_camera is not None for view in scene.views]
    views = tuple(
        replace(view, pairs=_pair(scene, view, spacing, config) if has_pose else None)
        for view, has_pose in zip(scene.views, posed, strict=True)
    )
    unposed = {"view without pose": posed.count(False)} if not all(posed) else {}
    return replace(scene, views=views, dropped={**scene.dropped, **unposed}).validate()


def _pair(scene: Scene, view: View, spacing: Float32, config: CorrespondenceConfig) -> Correspondences:
    assert scene.points is not None
    outdoor = scene.identity.domain == "outdoor"
    min_depth = config.min_depth_outdoor if outdoor else config.min_depth_indoor
    shutter = ""
    if view.rolling_shutter is not None:
        on = config.rolling_shutter
        shutter = f" rolling_shutter={view.rolling_shutter.readout_s * 1e3:.1f}ms" if on else " rolling_shutter=off"
        view = view if on else replace(view, rolling_shutter=None)
    wide = LENSES[view.camera_model].wide
    projection = project(scene.points.xyz, view)
    size = np.array((view.width, view.height))
    with np.errstate(invalid="ignore"):  # NaN is where the camera model images nothing, and compares as outside
        inside = (projection.uv > config.border) & (projection.uv < size - config.border)
        rounds_inside = np.rint(projection.uv) < size
        keep = (inside & rounds_inside).all(axis=1) & (projection.along("ray" if wide else "z") > min_depth)
    chosen = np.flatnonzero(keep)
    seen = Projection(*(values[chosen] for values in projection))
    test = config.visibility.describe(with_depth_image=view.depth is not None)
    return Correspondences(
        point=chosen.astype(np.int32),
        pixel=np.rint(seen.uv).astype(np.uint16),
        depth=seen.along("ray" if wide else "z").astype(np.float32),
        visible=visible_points(scene, view, chosen, seen, spacing=spacing, config=config.visibility),
        provenance=f"min_{'distance' if wide else 'depth'}={min_depth:g} border={config.border:g}{shutter}; {test}",
    )
