"""Pictures of a cloud: plan (from above), oblique, plan by class, each with its cameras.

A picture covers the scene wherever it lies and however far it goes; only stray points far outside are left out, and
rooms lose what lies above head height, so that one looks in. `CloudPictures.note` says how many points that is. Points
are a raster, cameras and the scale bar are vectors over it. About 0.3 s a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.show.colour import RGB, class_colours, height_colours, spread
from brickyard.evaluate.show.html import Html, count, tag
from brickyard.evaluate.show.raster import BACKGROUND_DEPTH, SCALE, data_uri, paint, shade_by_depth, shrink
from brickyard.shards.scene import Points, Scene, View
from brickyard.shards.taxonomy import taxonomy, taxonomy_names

WIDTH, HEIGHT = 640, 480
BACKGROUND = (16, 19, 24)
STRAY, SLACK = 0.5, 0.1
"""Percent of the points at either end of an axis that do not decide how far a scene goes; and how much farther than the
others, as a share of their extent, a point may lie to be drawn all the same."""
HEAD_HEIGHT = 2.1
"""Metres above the floor where rooms are cut."""
MAX_DRAWN = 1_500_000
_MARGIN = 0.04


@dataclass(frozen=True, kw_only=True)
class Camera:
    """An orthographic camera: pixel = (x, y) * scale + offset of the rotated point.

    Attributes:
        rotation: float64 (3, 3), rows are right, down, and away from the viewer, in the scene frame.
        scale: shown pixels per metre.
        offset: shown pixel of the scene's origin.
        width, height: shown pixels.
    """

    rotation: NDArray[np.float64]
    scale: float
    offset: NDArray[np.float64]
    width: int
    height: int

    def project(self, xyz: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Float64 (N, 3): shown column, row, and metres away from the viewer."""
        turned = np.asarray(xyz, np.float64) @ self.rotation.T
        turned[:, :2] = turned[:, :2] * self.scale + self.offset
        return turned


@dataclass(frozen=True, kw_only=True)
class CloudPicture:
    title: str
    picture: RGB
    camera: Camera


@dataclass(frozen=True, kw_only=True)
class CloudPictures:
    """Pictures of a scene's points.

    Attributes:
        taxonomy: of the picture by class, if there is one.
        drawn, points: how many of how many are drawn.
        domain: of the scene.
    """

    pictures: tuple[CloudPicture, ...] = ()
    taxonomy: str | None = None
    drawn: int = 0
    points: int = 0
    domain: str = ""

    @property
    def note(self) -> str:
        """How many points are drawn, and which are not."""
        others = "far outside" if self.domain != "indoor" else "above head height or far outside"
        if self.points > MAX_DRAWN:
            others += ", or are thinned out"
        if self.drawn == self.points:
            return f"All {count(self.points)} points are drawn."
        return f"{count(self.drawn)} of {count(self.points)} points are drawn; the others lie {others}."


def cloud_pictures(scene: Scene) -> CloudPictures:
    """The pictures of a scene's points; none where it has none."""
    points = scene.points
    if points is None or not len(points):
        return CloudPictures()
    chosen = drawn_points(scene, points)
    xyz = points.xyz[chosen]
    outdoor = scene.identity.domain == "outdoor"
    closing = 0.7 if outdoor else 1.5
    plan, slanted = fit(xyz, from_above()), fit(xyz, oblique(xyz))
    if points.color is not None:
        colours, by = points.color[chosen], "colour"
    else:
        low, high = spread(xyz[:, 2])
        colours, by = height_colours(xyz[:, 2]), f"height ({low:.1f} m blue, {high:.1f} m red)"
    pictures = [
        CloudPicture(title=f"From above, by {by}", picture=render(xyz, colours, plan, closing), camera=plan),
        CloudPicture(title=f"Oblique, by {by}", picture=render(xyz, colours, slanted, closing), camera=slanted),
    ]
    name = shown_taxonomy(points)
    if name is not None:
        classes = class_colours(points.semantic[name][chosen], taxonomy(name).palette)
        camera = plan if outdoor else slanted
        picture = render(xyz, classes, camera, closing)
        pictures.append(CloudPicture(title=f"By class ({name})", picture=picture, camera=camera))
    return CloudPictures(
        pictures=tuple(pictures), taxonomy=name, drawn=len(chosen), points=len(points), domain=scene.identity.domain
    )


def shown_taxonomy(points: Points) -> str | None:
    """The labels a page shows: those with the fewest classes that a legend can name."""
    known = [name for name in points.semantic if name in taxonomy_names()]
    return min(known, key=lambda name: (len(taxonomy(name).classes), name), default=None)


def drawn_points(scene: Scene, points: Points) -> NDArray[np.intp]:
    """Indices of the points that pictures show, thinned evenly where they are too many."""
    return drawn(points.xyz, scene.identity.domain)


def drawn(xyz: NDArray[np.floating[Any]], domain: str) -> NDArray[np.intp]:
    """`drawn_points` of a cloud from a domain."""
    keep = _not_stray(xyz)
    if domain == "indoor":
        floor, top = np.percentile(xyz[:, 2], (1, 99))
        keep &= xyz[:, 2] <= floor + min(HEAD_HEIGHT, 0.9 * max(top - floor, 0.1))
    chosen = np.flatnonzero(keep if keep.any() else np.ones(len(xyz), np.bool_))
    return chosen[:: 1 + len(chosen) // MAX_DRAWN]


def _not_stray(xyz: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Bool (N,): the points in a box around all but the outermost."""
    low, high = np.percentile(xyz, (STRAY, 100 - STRAY), axis=0)
    slack = SLACK * np.maximum(high - low, 1.0)
    return np.asarray(((xyz >= low - slack) & (xyz <= high + slack)).all(axis=1))


def from_above() -> NDArray[np.float64]:
    """Rotation of a plan: x to the right, y up, the viewer above."""
    return np.diag([1.0, -1.0, -1.0])


def oblique(xyz: NDArray[np.floating[Any]], elevation: float = 40.0) -> NDArray[np.float64]:
    """Rotation of a view from `elevation` degrees above the horizon, across the cloud's longer side."""
    spread = xyz[:, :2] - xyz[:, :2].mean(axis=0)
    axis = np.linalg.eigh(np.cov(spread.T.astype(np.float64)) if len(xyz) > 2 else np.eye(2))[1][:, -1]
    heading = np.arctan2(axis[1], axis[0]) + np.radians(24)
    right = np.array([np.cos(heading), np.sin(heading), 0.0])
    tilt = np.radians(elevation)
    away = np.array([-np.sin(heading) * np.cos(tilt), np.cos(heading) * np.cos(tilt), -np.sin(tilt)])
    return np.stack([right, np.cross(away, right), away])


def fit(xyz: NDArray[np.floating[Any]], rotation: NDArray[np.float64]) -> Camera:
    """The camera of a rotation in which all points fit into a WIDTH x HEIGHT picture."""
    flat = np.asarray(xyz, np.float64) @ rotation[:2].T
    low, high = flat.min(axis=0), flat.max(axis=0)
    extent = np.maximum(high - low, 0.5)
    scale = (1 - 2 * _MARGIN) * min(WIDTH / extent[0], HEIGHT / extent[1])
    offset = (np.array([WIDTH, HEIGHT]) - 1) / 2 - (low + high) / 2 * scale
    return Camera(rotation=rotation, scale=float(scale), offset=offset, width=WIDTH, height=HEIGHT)


def render(xyz: NDArray[np.floating[Any]], colours: RGB, camera: Camera, closing: float) -> RGB:
    """The cloud as the camera sees it: nearer points cover farther ones, and edges in depth are shaded.

    `closing` is the radius of the dots in units of the gap between them: from 1 on, surfaces close.
    """
    seen = camera.project(xyz)
    order = np.argsort(-seen[:, 2], kind="stable")
    seen, colours = seen[order], colours[order]
    shape = (camera.height * SCALE, camera.width * SCALE)
    centres = (seen[:, :2] + 0.5) * SCALE - 0.5
    owner = paint(shape, centres, float(np.clip(closing * _gap(centres, shape), 1.0, 7.0)))
    canvas = np.empty((*shape, 3), np.uint8)
    canvas[:] = BACKGROUND
    covered = owner >= 0
    canvas[covered] = colours[owner[covered]]
    depth = np.where(covered, seen[owner, 2].astype(np.float32), BACKGROUND_DEPTH)
    shade_by_depth(canvas, depth, strength=camera.scale / 28)
    return shrink(canvas)


def _gap(centres: NDArray[np.float64], shape: tuple[int, int]) -> float:
    """The typical gap between neighbouring dots: the area they really cover, shared among them."""
    cell = 16
    inside = ((centres >= 0) & (centres < (shape[1], shape[0]))).all(axis=1)
    cells = np.unique(np.asarray(centres[inside] // cell, np.int64) @ (1 << 20, 1))
    area = len(cells) * cell * cell / max(int(inside.sum()), 1)
    return float(np.sqrt(area))


def figure(cloud: CloudPicture, views: tuple[View, ...]) -> Html:
    """The picture with its cameras and a scale bar as vectors."""
    camera = cloud.camera
    marks = [_frustum(view, camera) for view in views if view.scene_from_camera is not None]
    vectors = tag("svg", marks, _scale_bar(camera), viewBox=f"0 0 {camera.width} {camera.height}")
    picture = tag("img", src=data_uri(cloud.picture), alt=cloud.title, width=camera.width, height=camera.height)
    return tag("figure", tag("div", picture, vectors, class_="stack"), tag("figcaption", cloud.title))


def _frustum(view: View, camera: Camera) -> Html:
    """The pyramid from a camera's centre through its image's corners, some 5 % of the picture long."""
    assert view.scene_from_camera is not None
    corners = np.array([(0, 0), (view.width, 0), (view.width, view.height), (0, view.height)], np.float64)
    focal = np.maximum(np.abs(np.diag(view.intrinsics)[:2]), 1e-6)
    rays = np.column_stack([np.clip((corners - view.intrinsics[:2, 2]) / focal, -1.5, 1.5), np.ones(4)])
    rays *= 0.055 * camera.width / camera.scale
    pose = view.scene_from_camera
    ends = camera.project(np.vstack([pose[:3, 3], rays @ pose[:3, :3].T + pose[:3, 3]]))[:, :2] + 0.5
    (x, y), base = ends[0], ends[1:]
    path = "".join(f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}" for u, v in base)
    path += "M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in base) + "Z"
    line = tag("path", d=path, fill="none", stroke="#ffd24a", stroke_width=1.4, stroke_linejoin="round")
    halo = tag("path", d=path, fill="none", stroke="#101318", stroke_width=3.4, stroke_opacity=0.7)
    dot = tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.4, fill="#ffd24a")
    return tag("g", tag("title", view.name), halo, line, dot)


def _scale_bar(camera: Camera) -> Html:
    """A bar of a round number of metres, about an eighth of the picture; true across the picture in every view."""
    metres = next(
        m
        for m in (
            100_000,
            50_000,
            20_000,
            10_000,
            5_000,
            2_000,
            1_000,
            500,
            200,
            100,
            50,
            20,
            10,
            5,
            2,
            1,
            0.5,
            0.2,
            0.1,
            0.01,
        )
        if m * camera.scale < WIDTH / 5 or m == 0.01
    )
    x, y, length = 16, camera.height - 16, metres * camera.scale
    line = tag("path", d=f"M{x} {y - 4}v4h{length:.1f}v-4", fill="none", stroke="#e7e6e3", stroke_width=1.5)
    label = tag("text", f"{metres:g} m", x=x + 5, y=y - 6, fill="#e7e6e3", font_size=12, font_family="system-ui")
    return tag("g", line, label)
