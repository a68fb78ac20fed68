"""A ScanNet release of one scan, written byte by byte; every file can be replaced or left out."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brickyard.ingest.scannet import SOURCE
from brickyard.ingest.scannet.plan import ScanNetOptions
from brickyard.ingest.source import SceneRef
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

IDENTITY = np.eye(4)
SCAN = "scene0007_01"
WIDTH, HEIGHT = 16, 12
COLOR_K = np.array([[20.0, 0, 7.5, 0], [0, 21, 5.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
DEPTH_K = np.array([[10.0, 0, 3.5, 0], [0, 10, 2.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
DEPTH = np.arange(48, dtype="<u2").reshape(6, 8) * 100
ALIGNMENT = np.array([[0.0, 1, 0, -2], [-1, 0, 0, 3], [0, 0, 1, -0.25], [0, 0, 0, 1]])
TABLE = (
    "id\traw_category\tcategory\tcount\tnyu40id\n"
    "1\twall\twall\t9\t1\n2\tchair\tchair\t9\t5\n9\tcurious thing\tthing\t1\t\n"
)


def jpeg(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 100, 50)).save(buffer, "jpeg")
    return buffer.getvalue()


def pose(number: int) -> np.ndarray:
    """A camera that looks straight down."""
    matrix = np.diag([1.0, -1, -1, 1])
    matrix[:3, 3] = (number, 0.5, 3)
    return matrix


def sens(
    frames: Sequence[tuple[np.ndarray, bytes, bytes]], *, depth_x: np.ndarray = IDENTITY, imu: int = 1,
    times: Sequence[int] | None = None,
) -> bytes:  # fmt: skip
    out = struct.pack("<IQ", 4, 6) + b"Sensor"
    out += np.stack([COLOR_K, np.eye(4), DEPTH_K, depth_x]).astype("<f4").tobytes()
    out += struct.pack("<2i4IfQ", 2, 1, WIDTH, HEIGHT, 8, 6, 1000.0, len(frames))
    for time, (matrix, color, depth) in zip(times or [0] * len(frames), frames, strict=True):
        out += matrix.astype("<f4").tobytes() + struct.pack("<4Q", time, 0, len(color), len(depth)) + color + depth
    return out + struct.pack("<Q", imu) + bytes(128 * imu)


def ply(xyz: np.ndarray, faces: np.ndarray, label: np.ndarray | None = None) -> bytes:
    header = ["ply", "format binary_little_endian 1.0", "comment VCGLIB generated", f"element vertex {len(xyz)}"]
    header += [f"property float {a}" for a in "xyz"] + [
        f"property uchar {c}" for c in ("red", "green", "blue", "alpha")
    ]
    header += ["property ushort label"] * (label is not None)
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    fields = [("xyz", "<f4", 3), ("rgba", "u1", 4)] + [("label", "<u2")] * (label is not None)
    vertex = np.zeros(len(xyz), np.dtype(fields))
    vertex["xyz"], vertex["rgba"] = xyz, (10, 20, 30, 255)
    if label is not None:
        vertex["label"] = label
    face = np.zeros(len(faces), [("n", "u1"), ("v", "<i4", 3)])
    face["n"], face["v"] = 3, faces
    return "\n".join(header).encode() + vertex.tobytes() + face.tobytes()


LABEL_IMAGE = np.zeros((HEIGHT, WIDTH), np.uint16)
LABEL_IMAGE[:, :8], LABEL_IMAGE[:, 8:12], LABEL_IMAGE[0, 12:] = 1, 2, 5000  # wall, chair, and what no table knows
INSTANCE_IMAGE = np.zeros((HEIGHT, WIDTH), np.uint8)
INSTANCE_IMAGE[:, :8], INSTANCE_IMAGE[:, 8:12] = 1, 5


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()


def pictures(folder: str, images: Mapping[int, np.ndarray | bytes]) -> bytes:
    """A zip of `folder/<frame>.png`, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, image in images.items():
            archive.writestr(f"{folder}/{number}.png", image if isinstance(image, bytes) else png(image))
    return buffer.getvalue()


XYZ = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0], [0, 0, 1], [9, 9, 9]], np.float32)
FACES = np.array([[0, 1, 2], [1, 3, 2], [0, 4, 1]])
SEGMENTS = [5, 5, 2, 2, 77, 0]
GROUPS = [
    {"id": 0, "objectId": 0, "segments": [5, 2], "label": "wall"},
    {"id": 1, "objectId": 4, "segments": [77, 2], "label": "chair"},
]


def release(root: Path, **changes: bytes | None) -> Path:
    """A release of one scan; `changes` replace files by role suffix ('sens', 'ply', ...), None leaves a file out."""
    depth = zlib.compress(DEPTH.tobytes())
    lost = np.full((4, 4), -np.inf)
    frames = [(lost if n == 2 else pose(n), jpeg(), depth) for n in range(4)]
    text = "axisAlignment = " + " ".join(f"{v:.6f}" for v in ALIGNMENT.ravel()) + "\ncolorWidth = 16\n"
    files: dict[str, bytes | None] = {
        "sens": sens(frames),
        "txt": text.encode(),
        "ply": ply(XYZ, FACES),
        "labels": ply(XYZ, FACES, np.array([1, 1, 5, 5, 0, 149])),
        "segs": json.dumps({"sceneId": SCAN, "segIndices": SEGMENTS}).encode(),
        "aggregation": json.dumps({"sceneId": "scannet." + SCAN, "segGroups": GROUPS}).encode(),
        "tsv": TABLE.encode(),
        "label_zip": pictures("label-filt", dict.fromkeys(range(4), LABEL_IMAGE)),
        "instance_zip": pictures("instance-filt", dict.fromkeys(range(4), INSTANCE_IMAGE)),
    }
    names = {
        "sens": f"scans/{SCAN}/{SCAN}.sens", "txt": f"scans/{SCAN}/{SCAN}.txt",
        "ply": f"scans/{SCAN}/{SCAN}_vh_clean_2.ply", "labels": f"scans/{SCAN}/{SCAN}_vh_clean_2.labels.ply",
        "segs": f"scans/{SCAN}/{SCAN}_vh_clean_2.0.010000.segs.json",
        "aggregation": f"scans/{SCAN}/{SCAN}.aggregation.json", "tsv": "scannetv2-labels.combined.tsv",
        "label_zip": f"scans/{SCAN}/{SCAN}_2d-label-filt.zip",
        "instance_zip": f"scans/{SCAN}/{SCAN}_2d-instance-filt.zip",
    }  # fmt: skip
    for role, data in (files | changes).items():
        if data is not None:
            path = root / names[role]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def only(root: Path, **options: Any) -> SceneRef:
    (ref,) = SOURCE.plan(Store(root), ScanNetOptions(**({"frames_every": 1} | options)))
    assert isinstance(ref, SceneRef)
    return ref


def read(root: Path, **options: Any) -> Scene:
    return SOURCE.read(only(root, **options))
