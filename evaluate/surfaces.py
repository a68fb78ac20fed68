"""The surface of a scene that can be rendered, and how far it is from the points that were measured.

The signed distance is asked on a fine grid over the box, and its zero becomes triangles (marching cubes, Lorensen and
Cline, SIGGRAPH 1987, as scikit-image computes them). A field says something everywhere, also behind walls and where no
camera looked, and nothing taught it that: what no view sees is cut off on both sides before they are compared, as is
customary (a point is seen that lies in the picture and no farther than what the picture shows, but for `SLACK`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from brickyard.evaluate.posed_views import PosedView
from brickyard.shards.cameras import project
from brickyard.train.rendering.renderer import Filled, Renderer
from brickyard.train.rendering.volume import rows_of

Float64 = NDArray[np.float64]

SLACK = 0.1
"""Metres behind what a view shows at which something still counts as seen."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Triangles: vertices float64 (V, 3), metres; faces int64 (F, 3)."""

    vertices: Float64
    faces: NDArray[np.int64]


@torch.no_grad()
def surface_of(renderer: Renderer, filled: Filled, cells: int, chunk: int = 1 << 17) -> Surface:
    """The zero of the signed distance of the first scene, in the box that is rendered.

    Args:
        cells: of the grid along the box's longest side. chunk: points that are asked at a time.
    """
    from skimage.measure import marching_cubes

    grid = renderer.grid
    low, high = (np.array(corner, np.float64) for corner in (grid.low, grid.high))
    step = (high - low).max() / cells if renderer.config.range is None else (high - low) / cells
    shape = np.maximum(np.round((high - low) / step).astype(int), 2) + 1
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, shape, strict=True)]
    places = torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)).float()
    folded, rows = renderer.field.folded(), rows_of(filled.volume[0].float())
    parts = [folded.distances(rows, grid, part.to(rows.device)).cpu() for part in torch.split(places, chunk)]
    distance = torch.cat(parts).view(*shape.tolist()).numpy()
    if not distance.min() < 0 < distance.max():
        return Surface(vertices=np.empty((0, 3)), faces=np.empty((0, 3), np.int64))
    vertices, faces, _, _ = marching_cubes(distance, 0.0)
    inside = torch.from_numpy(low + vertices * (high - low) / (shape - 1)).float().to(rows.device)
    scene = torch.zeros(len(inside), dtype=torch.int64, device=rows.device)
    metres = filled.frame.to_metres(inside, scene).double().cpu().numpy()
    return Surface(vertices=metres, faces=faces.astype(np.int64))


def seen_surface(surface: Surface, views: Sequence[PosedView]) -> Surface:
    """The triangles of which some view sees every corner."""
    known = seen_points(surface.vertices, views)
    faces = surface.faces[known[surface.faces].all(1)]
    used, number = np.unique(faces, return_inverse=True)
    return Surface(vertices=surface.vertices[used], faces=number.reshape(-1, 3).astype(np.int64))


def seen_points(xyz: Float64, views: Sequence[PosedView]) -> NDArray[np.bool_]:
    """bool (N,): which points (N, 3), metres, some view sees."""
    seen = np.zeros(len(xyz), bool)
    for view in views:
        found = project(xyz, view.camera)
        place, reach = np.rint(np.nan_to_num(found.uv, nan=-1.0, posinf=-1.0, neginf=-1.0)), found.along(view.along)
        inside = np.flatnonzero(((place >= 0) & (place < (view.camera.width, view.camera.height))).all(1))
        column, row = place[inside].astype(np.int64).T
        depth = view.depth[row, column]
        seen[inside[(depth > 0) & (reach[inside] <= depth + SLACK)]] = True
    return seen


def surface_points(surface: Surface, count: int, seed: int = 0) -> Float64:
    """Points (count, 3) spread evenly over the triangles' area; none where there is no triangle."""
    corners = surface.vertices[surface.faces]
    if not len(corners):
        return np.empty((0, 3))
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.linalg.norm(np.cross(one, two), axis=1)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(area), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    points: Float64 = corners[chosen, 0] + u * one[chosen] + v * two[chosen]
    return points


def surface_errors(found: Float64, real: Float64, near: float) -> dict[str, float]:
    """How far points on a surface and points that were measured are from each other.

    Args:
        found: (N, 3). real: (M, 3), metres. near: metres within which a point counts as met.

    Returns:
        "accuracy" and "completeness", mean metres from what was found to what is real and back; "precision" and
        "recall", shares within `near`; "f_score", their harmonic mean. Without a surface nothing is met, and distances
        are NaN.
    """
    if not len(found) or not len(real):
        return {"accuracy": np.nan, "completeness": np.nan, "precision": 0.0, "recall": 0.0, "f_score": 0.0}
    there, back = cKDTree(real).query(found)[0], cKDTree(found).query(real)[0]
    precision, recall = float((there < near).mean()), float((back < near).mean())
    score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    lengths = {"accuracy": float(there.mean()), "completeness": float(back.mean())}
    return {**lengths, "precision": precision, "recall": recall, "f_score": score}


def surface_ply(surface: Surface) -> bytes:
    """The triangles as a binary little-endian PLY file."""
    vertices = surface.vertices.astype("<f4")
    faces = np.empty(len(surface.faces), [("count", "u1"), ("corner", "<i4", 3)])
    faces["count"], faces["corner"] = 3, surface.faces
    head = [
        "ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"), f"element face {len(faces)}",
        "property list uchar int vertex_indices", "end_header", "",
    ]  # fmt: skip
    return "\n".join(head).encode() + vertices.tobytes() + faces.tobytes()
