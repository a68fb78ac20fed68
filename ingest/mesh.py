"""The PLY meshes of ScanNet and ScanNet++: binary little endian, scalar vertex properties, triangles.

The header is text and hostile until proven otherwise: the sizes it declares must add up to exactly the bytes of the
file before anything is made of them. Vertices and faces are then views into the bytes that were read; nothing is
looped over in Python (a mesh of 80,000 vertices parses in a few milliseconds).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import blank_records
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import Float32

MAX_HEADER = 1 << 16
SCALARS = {
    "char": "<i1", "int8": "<i1", "uchar": "<u1", "uint8": "<u1", "short": "<i2", "int16": "<i2",
    "ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4",
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
}  # fmt: skip
FACE = np.dtype([("count", "u1"), ("vertices", "<i4", (3,))])
FACE_LIST = re.compile(r"property list (uchar|uint8) (int|int32|uint|uint32) (vertex_indices|vertex_index)")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """A triangle mesh of N vertices and F faces.

    Attributes:
        xyz: float32 (N, 3), metres, finite.
        color: uint8 (N, 3) RGB, or None.
        label: uint16 (N,) nyu40 ids of a `labels.ply` (whose colours are a palette), or None.
        faces: int32 (F, 3), vertex indices, each in 0..N-1.
    """

    xyz: Float32
    color: NDArray[np.uint8] | None
    label: NDArray[np.uint16] | None
    faces: NDArray[np.int32]


def read_mesh(files: RawFiles, path: str) -> Mesh:
    """Parse a mesh file; raises `RawDataError` with the offset of whatever is not as it must be."""
    data = files.read(path)
    vertex, vertices, faces, start = parse_header(files, path, data)
    faces_start = start + vertices * vertex.itemsize
    expected = faces_start + faces * FACE.itemsize
    if expected != len(data):
        raise files.error(
            path, f"the header declares {vertices} vertices and {faces} triangles, {expected} bytes in all, "
            f"but the file has {len(data)}", offset=min(expected, len(data)), hint="download it again",
        )  # fmt: skip
    table = np.frombuffer(data, vertex, vertices, start)
    blank = blank_records(data[start:faces_start], vertex.itemsize)
    if blank.any():
        problem = f"{int(blank.sum())} vertices stand in a block of zero bytes"
        offset = start + int(blank.argmax()) * vertex.itemsize
        raise files.error(path, problem, offset=offset, hint="the file is damaged; download it again")
    xyz = np.stack([table[axis] for axis in "xyz"], axis=1).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(xyz).all(axis=1))
    if len(bad):
        offset = start + int(bad[0]) * vertex.itemsize
        raise files.error(path, f"{len(bad)} vertices have coordinates that are not finite", offset=offset)
    names = vertex.names or ()
    has_color = all(name in names and vertex[name] == np.uint8 for name in ("red", "green", "blue"))
    has_label = "label" in names and vertex["label"].kind == "u" and vertex["label"].itemsize <= 2
    return Mesh(
        xyz=xyz,
        color=np.stack([table[name] for name in ("red", "green", "blue")], axis=1) if has_color else None,
        label=table["label"].astype(np.uint16) if has_label else None,
        faces=_check_faces(files, path, np.frombuffer(data, FACE, faces, faces_start), vertices, faces_start),
    )


def parse_header(files: RawFiles, path: str, data: bytes) -> tuple[np.dtype[Any], int, int, int]:
    """Vertex record, vertex count, face count, offset of the first vertex, from the first bytes of a file."""
    end = data.find(b"end_header\n", 0, MAX_HEADER)
    if not data.startswith(b"ply\n") or end < 0:
        raise files.error(path, "no PLY header found", offset=0, hint="the file is damaged; download it again")
    lines = data[:end].decode("ascii", "replace").splitlines()[1:]
    counts: dict[str, int] = {}
    fields: list[tuple[str, str]] = []
    layout = "vertex properties x, y, z and triangles as 'property list uchar int vertex_indices'"
    face_lists = 0
    for number, line in enumerate(lines, 2):
        words = line.split()
        element = next(reversed(counts), None)
        if not words or words[0] in ("comment", "obj_info") or line.strip() == "format binary_little_endian 1.0":
            continue
        if re.fullmatch(r"element (vertex|face) \d{1,18}", line.strip()) and words[1] not in counts:
            counts[words[1]] = int(words[2])
        elif element == "vertex" and len(words) == 3 and words[0] == "property" and words[1] in SCALARS:
            fields.append((words[2], SCALARS[words[1]]))
        elif element == "face" and FACE_LIST.fullmatch(line.strip()):
            face_lists += 1
        else:
            raise files.error(path, f"unexpected header line {line[:80]!r}; expected {layout}", line=number)
    names = [name for name, _ in fields]
    whole = list(counts) == ["vertex", "face"] and face_lists == 1 and {"x", "y", "z"} <= set(names)
    if not whole or len(set(names)) != len(names) or "format binary_little_endian 1.0" not in lines:
        raise files.error(path, f"the header must declare binary_little_endian 1.0, {layout}", offset=0)
    return np.dtype(fields), counts["vertex"], counts["face"], end + len(b"end_header\n")


def _check_faces(files: RawFiles, path: str, records: NDArray[Any], vertices: int, start: int) -> NDArray[np.int32]:
    corners: NDArray[np.int32] = records["vertices"].astype(np.int32)
    not_triangles = records["count"] != 3
    outside = ((corners < 0) | (corners >= vertices)).any(axis=1)
    for broken, what in ((not_triangles, "is not a triangle"), (outside, f"leaves the {vertices} vertices")):
        if broken.any():
            first = int(broken.argmax())
            raise files.error(path, f"face {first} {what}", offset=start + first * FACE.itemsize)
    return corners


def vertex_normals(xyz: Float32, faces: NDArray[np.int32]) -> Float32:
    """Area-weighted vertex normals, float32 (N, 3): the normalised sum of the cross products of the adjacent faces.

    The cross product of two edges has twice the triangle's area as its length, so the plain sum is the area-weighted
    mean. Orientation follows the faces' winding. (0, 0, 0) where a vertex has no face or the sum vanishes.
    """
    corner = xyz.astype(np.float64)[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(cross[:, axis], 3), minlength=len(xyz)) for axis in range(3)], axis=1
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=np.zeros_like(total), where=length > 1e-12).astype(np.float32)
