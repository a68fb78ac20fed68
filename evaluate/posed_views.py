"""Posed views with depth as pictures to compare with: colour, depth and normals of the same pixels, and their rays.

The pixels are those of the depth image, every n-th of them, so that depths and normals are measured ones; colours are
looked up in the colour image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.cameras import depth_camera
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError, UnfitSceneError
from brickyard.shards.scene import DepthAxis, View
from brickyard.shards.stream import Stream
from brickyard.train.clouds import Cloud, read_cloud
from brickyard.train.objectives.depth_clouds import depth_cloud, has_points
from brickyard.train.objectives.view_rays import depth_rays, read_depth, read_image, usable_views
from brickyard.train.rendering.network import SceneRenderer

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

FIELDS = ("views/*/image", "views/*/depth")
_STEP = 0.1
"""Largest difference of depth between neighbours on one surface, as a share of it."""


@dataclass(frozen=True, kw_only=True)
class PosedView:
    """A view of H x W pixels, in the scene's frame, metres.

    Attributes:
        name: of the camera.
        eye: float64 (3,).
        seen: float64 (H, W, 3), what each pixel shows; with an unknown depth, at 1 m.
        shown: bool (H, W), pixels that lie in the colour image, too.
        color: float32 (H, W, 3) in [0, 1], 0 elsewhere.
        depth: float32 (H, W), metres along what `along` says, see `shards.scene.Depth`; 0 where it is unknown.
        normal: float32 (H, W, 3) towards the camera, 0 where it is unknown.
        camera: of these pixels.
    """

    name: str
    eye: Float64
    seen: Float64
    shown: NDArray[np.bool_]
    color: Float32
    depth: Float32
    normal: Float32
    camera: View
    along: DepthAxis


def read_posed_view(sample: Sample, number: int, side: int) -> PosedView:
    """View `number` of a scene, of those that `usable_views` names.

    Args:
        side: pixels of the shorter edge, about; every n-th pixel of the depth image makes so many or a few more.

    Raises:
        ImageError: its image is damaged.
    """
    depth = read_depth(sample, number)
    every = max(1, min(depth.shape) // side)
    rows, columns = (np.arange(every // 2, size, every) for size in depth.shape)
    shape = (len(rows), len(columns))
    chosen = np.zeros(shape, bool)

    def choose(good: NDArray[np.bool_]) -> NDArray[np.int64]:
        chosen[:] = good[np.ix_(rows, columns)]
        row, column = np.nonzero(chosen)
        return np.stack((columns[column], rows[row]), 1)

    image = read_image(sample, number, min(shape))
    rays = depth_rays(sample.header, number, np.where(depth > 0, depth, 1.0), image, choose)
    seen, color = np.zeros((*shape, 3)), np.zeros((*shape, 3), np.float32)
    seen[chosen], color[chosen] = rays.seen, rays.color
    view, measured = sample.header.view(number), sample.header.depth(number, np.empty(depth.shape, np.uint16))
    assert view.scene_from_camera is not None
    few = np.where(chosen, depth[np.ix_(rows, columns)], 0).astype(np.float32)
    fewer = np.array([[1 / every, 0, -rows[0] / every], [0, 1 / every, -rows[0] / every], [0, 0, 1]])
    camera = replace(depth_camera(view, measured), width=shape[1], height=shape[0])
    return PosedView(
        name=view.name,
        eye=view.scene_from_camera[:3, 3],
        seen=seen,
        shown=chosen,
        color=color,
        depth=few,
        normal=normals(seen, few, view.scene_from_camera[:3, 3]),
        camera=replace(camera, intrinsics=fewer @ measured.intrinsics),
        along=measured.along,
    )


def normals(seen: Float64, depth: Float32, eye: Float64) -> Float32:
    """Unit normals (H, W, 3) of a depth image, by differences of neighbours on both sides; 0 at edges and where one of
    them is unknown or on another surface.

    Args:
        seen: (H, W, 3), what each pixel shows. depth: (H, W), 0 where it is unknown. eye: (3,), where the camera is.
    """
    result = np.zeros(seen.shape, np.float32)
    inner = (slice(1, -1), slice(1, -1))
    sides: list[tuple[Any, Any]] = [
        ((slice(1, -1), slice(2, None)), (slice(1, -1), slice(None, -2))),
        ((slice(2, None), slice(1, -1)), (slice(None, -2), slice(1, -1))),
    ]
    across, down = (seen[after] - seen[before] for after, before in sides)
    normal = np.cross(across, down)
    middle = depth[inner]
    good = middle > 0
    for place in (place for pair in sides for place in pair):
        good &= (depth[place] > 0) & (np.abs(depth[place] - middle) <= _STEP * middle)
    length = np.linalg.norm(normal, axis=2)
    good &= length > 0
    towards = np.sign((normal * (eye - seen[inner])).sum(2))
    result[inner] = np.where(good[..., None], normal * (towards / np.where(good, length, 1))[..., None], 0)
    return result


@dataclass(frozen=True, kw_only=True)
class PosedCloud:
    """A scene's points (of a clip without any, what its depth images show), what the network is shown of it, and its
    views, those that are rendered first."""

    cloud: Cloud
    given: Any
    views: tuple[PosedView, ...]
    rendered: int


def posed_clouds(
    corpus: Corpus, network: SceneRenderer, rows: NDArray[np.int64], *, views: int, side: int, threads: int
) -> Iterator[PosedCloud]:
    """The scenes of the rows that have a view with an image, a depth image and a pose.

    Args:
        views: so many come first, spread evenly over them. side: see `read_posed_view`. threads: of the stream.

    Raises:
        RecipeError: no scene has one.
    """

    def prepare(sample: Sample, rng: np.random.Generator) -> PosedCloud | None:
        del rng
        try:
            usable = usable_views(sample.header, "depth")
        except UnfitSceneError:
            return None
        count = min(views, len(usable))
        first = [usable[place] for place in np.linspace(0, len(usable) - 1, count + 2).round().astype(int)[1:-1]]
        order = list(dict.fromkeys((*first, *usable)))
        try:
            given = network.read(sample, first)
        except UnfitSceneError:
            return None
        shown = tuple(read_posed_view(sample, number, side) for number in order)
        cloud = read_cloud(sample, ()) if has_points(sample.header) else depth_cloud(sample, usable)
        return PosedCloud(cloud=cloud, given=given, views=shown, rendered=count)

    fields, found = (*network.fields, *FIELDS), 0
    stream = Stream(corpus, fields, batch=1, rows=rows, threads=threads, prepare=prepare, epochs=1, shuffle=False)
    for items in stream:
        for scene in items:
            if scene is not None:
                found += 1
                yield scene
    if not found:
        raise RecipeError(
            f"none of the {len(rows)} scenes that are scored has a view with an image, a depth image and a pose: there"
            " is nothing to compare with"
        )
