"""Points on triangles: as many as the area asks for, spread evenly, the same on every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from brickyard.ingest.blank import SECTOR, zero_runs
from brickyard.ingest.hm3d.glb import Glb, Primitive
from brickyard.ingest.mesh import vertex_normals
from brickyard.shards.scene import Float32, Float64

MAX_COORDINATE_M = 1e4


@dataclass(frozen=True, eq=False)
class Mesh:
    """xyz float64 (V, 3) in the frame of the file, faces int32 (F, 3), uv float64 (V, 2) or None, unit normals float32
    (V, 3); whether a block of one of its arrays reads as zeros, as if it had been lost."""

    xyz: Float64
    faces: NDArray[np.int32]
    uv: Float64 | None
    normal: Float32
    lost: bool = False


@dataclass(frozen=True, eq=False)
class Draw:
    """Places on a mesh: face int64 (N,), barycentric weights float64 (N, 3)."""

    face: NDArray[np.int64]
    weight: Float64

    def mixed(self, mesh: Mesh, values: NDArray[np.floating[Any]]) -> Float64:
        """Values of vertices (V, K) at the places, float64 (N, K)."""
        corners = values[mesh.faces[self.face]].astype(np.float64)
        found: Float64 = np.einsum("nck,nc->nk", corners, self.weight)
        return found


def read_mesh(glb: Glb, primitive: Primitive) -> Mesh:
    """A primitive where it stands; raises `RawDataError` for arrays that do not make a mesh."""
    entry = glb.part(primitive)
    attributes = entry["attributes"]
    local = glb.array(attributes.get("POSITION"), "VEC3", "f")
    flat = glb.array(entry["indices"], "SCALAR", "u") if "indices" in entry else np.arange(len(local), dtype="<u4")
    uv = glb.array(attributes["TEXCOORD_0"], "VEC2", "f") if "TEXCOORD_0" in attributes else None
    normal = glb.array(attributes["NORMAL"], "VEC3", "f") if "NORMAL" in attributes else None
    pose = primitive.world_from_mesh
    xyz = local.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    if not np.isfinite(xyz).all() or (len(xyz) and np.abs(xyz).max() > MAX_COORDINATE_M):
        raise glb.wrong(f"mesh {primitive.name!r} has coordinates beyond {MAX_COORDINATE_M:.0f} m, or none")
    if len(flat) % 3 or (len(flat) and int(flat.max()) >= len(xyz)):
        raise glb.wrong(f"mesh {primitive.name!r} has faces that leave its {len(xyz)} vertices")
    faces = flat.reshape(-1, 3).astype(np.int32)
    if np.linalg.det(pose[:3, :3]) < 0:
        faces = faces[:, ::-1]
    for what, values in (("texture coordinates", uv), ("normals", normal)):
        if values is not None and (len(values) != len(xyz) or not np.isfinite(values).all()):
            found = f"{len(values)} {what} for {len(xyz)} vertices, or some that are not finite"
            raise glb.wrong(f"mesh {primitive.name!r} has {found}")
    arrays = [values for values in (local, flat, uv, normal) if values is not None and len(values)]
    return Mesh(
        xyz=xyz,
        faces=faces,
        uv=None if uv is None else uv.astype(np.float64),
        normal=_unit_normals(normal, pose, xyz, faces),
        lost=any(len(zero_runs(values, SECTOR)) for values in arrays),
    )


def _unit_normals(normal: Float32 | None, pose: Float64, xyz: Float64, faces: NDArray[np.int32]) -> Float32:
    """Those of the file, turned as the mesh is, or, where it has none, area-weighted ones."""
    if normal is None:
        return vertex_normals((xyz - xyz.min(axis=0, initial=np.inf)).astype(np.float32), faces)
    return unit(normal.astype(np.float64) @ np.linalg.pinv(pose[:3, :3]))


def unit(vectors: Float64) -> Float32:
    """Scaled to length one, float32; (0, 0, 0) where there is no direction."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    good = np.isfinite(length) & (length > 1e-6)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=good).astype(np.float32)


def areas(mesh: Mesh) -> Float64:
    """Square metres of each face, float64 (F,)."""
    corner = mesh.xyz[mesh.faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    found: Float64 = np.linalg.norm(cross, axis=1) / 2
    return found


def draw(mesh: Mesh, density_m: float, key: str) -> Draw:
    """One point for every square of `density_m`, drawn by `key`: the fraction of one that is left decides by lot.

    Places are stratified along the summed areas, so that every face gets its share within one point.
    """
    area = areas(mesh)
    total = float(area.sum())
    rng = np.random.default_rng(xxhash.xxh3_64_intdigest(key.encode()))
    count = int(total / density_m**2 + rng.random())
    if count == 0:
        return Draw(np.zeros(0, np.int64), np.zeros((0, 3)))
    ends = np.cumsum(area)
    places = (np.arange(count) + rng.random(count)) / count * ends[-1]
    face = np.minimum(np.searchsorted(ends, places, side="right"), len(area) - 1)
    first, second = np.sqrt(rng.random(count)), rng.random(count)
    return Draw(face, np.stack([1 - first, first * (1 - second), first * second], axis=1))
