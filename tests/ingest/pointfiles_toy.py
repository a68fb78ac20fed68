"""Small PLY and PCD files for tests, and an LZF encoder."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import plyfile

from brickyard.ingest.pointfiles import SOURCE
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.source import SceneRef
from brickyard.shards.scene import Points, Scene
from brickyard.shards.storage import Store

RNG = np.random.default_rng(1)
VERTICES = np.zeros(40, [
    ("x", "f8"), ("y", "f8"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("alpha", "u1"),
    ("nx", "f4"), ("ny", "f4"), ("nz", "f4"), ("scalar_Intensity", "f4"), ("Scalar_Classification", "f4"),
])  # fmt: skip
VERTICES["x"], VERTICES["y"] = 389_000 + RNG.random(40), 5_800_000 + RNG.random(40)
VERTICES["z"], VERTICES["red"], VERTICES["blue"] = RNG.random(40), RNG.integers(256, size=40), range(200, 240)
VERTICES["nz"], VERTICES["scalar_Intensity"], VERTICES["Scalar_Classification"] = 2, RNG.random(40), [2, 6, 40, 1] * 10
FACES = np.array([([0, 1, 2], 7), ([1, 2, 3], 8)], [("vertex_indices", "i4", (3,)), ("flags", "u1")])


def read(root: Path, name: str, data: bytes, **options: Any) -> Scene:
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(data)
    (ref,) = SOURCE.plan(Store(root), PointFilesOptions(**options))
    assert isinstance(ref, SceneRef)
    return SOURCE.read(ref)


def points(root: Path, name: str, data: bytes) -> Points:
    found = read(root, name, data).points
    assert found is not None
    return found


def ply(header: str, body: bytes, order: str = "ascii") -> bytes:
    return f"ply\nformat {order} 1.0\n{header}end_header\n".encode() + body


def written(path: Path, vertices: np.ndarray, *, faces_first: bool = False, **options: Any) -> bytes:
    elements = [plyfile.PlyElement.describe(vertices, "vertex"), plyfile.PlyElement.describe(FACES, "face")]
    plyfile.PlyData(elements[::-1] if faces_first else elements, **options).write(str(path))
    return path.read_bytes()


def lzf(data: bytes) -> bytes:
    """A greedy LZF encoder: matches of 3..264 bytes within 8 KiB, literals of up to 32."""
    out, literal, seen, place = bytearray(), bytearray(), {}, 0

    def flush() -> None:
        while literal:
            out.append(min(len(literal), 32) - 1)
            out.extend(literal[:32])
            del literal[:32]

    while place < len(data):
        before = seen.get(data[place : place + 3], -9999)
        seen[data[place : place + 3]] = place
        length = 0
        if place - before <= 8192:
            while length < 264 and place + length < len(data) and data[before + length] == data[place + length]:
                length += 1
        if length < 3:
            literal.append(data[place])
            place += 1
            continue
        flush()
        distance = place - before - 1
        short = min(length - 2, 7)
        out.append(short << 5 | distance >> 8)
        out.extend([length - 9] if short == 7 else [])
        out.append(distance & 255)
        place += length
    flush()
    return bytes(out)


ROWS = np.zeros(300, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("intensity", "<f4"), ("_", "V3")])
ROWS["x"], ROWS["y"], ROWS["z"] = RNG.random((3, 300))
ROWS["rgb"], ROWS["intensity"] = RNG.integers(1 << 24, size=300), 100
PCD = """# .PCD v0.7
VERSION 0.7
FIELDS x y z rgb intensity _
SIZE 4 4 4 4 4 1
TYPE F F F U F U
COUNT 1 1 1 1 1 3
WIDTH 300
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 300
DATA """


def pcd(encoding: str, header: str = PCD) -> bytes:
    if encoding == "ascii":
        rows = [f"{r['x']} {r['y']} {r['z']} {r['rgb']} {r['intensity']} 0 0 0\n" for r in ROWS]
        return (header + "ascii\n" + "".join(rows)).encode()
    if encoding == "binary":
        return (header + "binary\n").encode() + ROWS.tobytes()
    plain = b"".join(np.ascontiguousarray(ROWS[name]).tobytes() for name in ROWS.dtype.names or ())
    packed = lzf(plain)
    return (header + "binary_compressed\n").encode() + struct.pack("<II", len(packed), len(plain)) + packed
