"""Listings of datasets whose scenes are folders of files, or zips that are not opened for planning."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.ingest.simulate.listings.holes import Tree, part, sizes

PLY = (
    "ply\nformat binary_little_endian 1.0\nelement vertex {vertices}\nproperty float x\nproperty float y\n"
    "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nelement face {faces}\n"
    "property list uchar int vertex_indices\nend_header\n"
)
S3DIS_ROOMS = {1: 44, 2: 40, 3: 23, 4: 49, 5: 68, 6: 48}
"""Area -> rooms."""
S3DIS_CLASSES = ("ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase",
                 "board", "clutter")  # fmt: skip


def list_scannet(out: Path, share: float) -> dict[str, int]:
    """1,201 scans of 565 spaces for training, 312 of 142 for validation, 100 for testing."""
    tree, number, scenes = Tree(out), 0, 0
    for split, scans, spaces in (("train", 1201, 565), ("val", 312, 142), ("test", 100, 100)):
        names = [f"scene{number + k % spaces:04d}_{k // spaces:02d}" for k in range(part(scans, share))]
        tree.text(f"scannetv2_{split}.txt", names)
        for name, mesh in zip(names, sizes(f"scannet-{split}", len(names), 6.1e6), strict=True):
            folder = f"{'scans_test' if split == 'test' else 'scans'}/{name}/{name}"
            tree.hole(f"{folder}_vh_clean_2.ply", mesh)
            tree.hole(f"{folder}.sens", mesh * 170)
            tree.hole(f"{folder}.txt", 400)
            if split != "test":
                tree.hole(f"{folder}_vh_clean_2.labels.ply", mesh)
                tree.hole(f"{folder}_vh_clean_2.0.010000.segs.json", mesh / 7)
                tree.hole(f"{folder}.aggregation.json", mesh / 300)
        number, scenes = number + spaces, scenes + len(names)
    return {"scenes": scenes, "bytes": tree.bytes}


def list_scannetpp(out: Path, share: float) -> dict[str, int]:
    """856 scenes for training, 50 for validation, 50 for testing, of version 2; meshes of a hundred million bytes."""
    tree, number = Tree(out), 0
    for name, count in (("nvs_sem_train", 856), ("nvs_sem_val", 50), ("sem_test", 50)):
        scenes = [f"{number + k:010x}" for k in range(part(count, share))]
        tree.text(f"splits/{name}.txt", scenes)
        for scene, mesh in zip(scenes, sizes(f"scannetpp-{name}", len(scenes), 1.1e8), strict=True):
            vertices = int(mesh / 41)
            head = PLY.format(vertices=vertices, faces=2 * vertices).encode()
            tree.hole(f"data/{scene}/scans/mesh_aligned_0.05.ply", len(head) + 41 * vertices, head)
            if name != "sem_test":
                tree.hole(f"data/{scene}/scans/segments.json", mesh / 7)
                tree.hole(f"data/{scene}/scans/segments_anno.json", mesh / 60)
        number += len(scenes)
    return {"scenes": number, "bytes": tree.bytes}


def list_s3dis(out: Path, share: float) -> dict[str, int]:
    """272 rooms in six areas, as version 1.2, aligned or not, has them."""
    tree, scenes = Tree(out), 0
    for area, rooms in S3DIS_ROOMS.items():
        for room, size in zip(
            range(part(rooms, share)), sizes(f"s3dis-{area}", part(rooms, share), 3.7e7), strict=True
        ):
            folder = f"Area_{area}/office_{room + 1}"
            tree.hole(f"{folder}/office_{room + 1}.txt", size)
            for number in range(36):
                name = S3DIS_CLASSES[number % len(S3DIS_CLASSES)]
                tree.hole(f"{folder}/Annotations/{name}_{number // len(S3DIS_CLASSES) + 1}.txt", size / 36)
            scenes += 1
    return {"scenes": scenes, "bytes": tree.bytes}


def list_arkitscenes(out: Path, share: float) -> dict[str, int]:
    """4,498 captures for training, 549 for validation, three of a visit, as 3dod has them."""
    tree, number = Tree(out), 0
    rows = ["video_id,visit_id,fold"]
    for fold, count in (("Training", 4498), ("Validation", 549)):
        for mesh in sizes(f"arkitscenes-{fold}", part(count, share), 1.2e7):
            video = str(40_000_000 + number)
            rows.append(f"{video},{400_000 + number // 3 + (fold == 'Validation') * 100_000},{fold}")
            tree.hole(f"3dod/{fold}/{video}/{video}_3dod_mesh.ply", mesh)
            tree.hole(f"3dod/{fold}/{video}/{video}_3dod_annotation.json", mesh / 500)
            number += 1
    tree.text("3dod_train_val_splits.csv", rows)
    return {"scenes": number, "bytes": tree.bytes}


def list_hm3d(out: Path, share: float) -> dict[str, int]:
    """800 buildings for training, 100 for validation, of some 14 pieces each, without annotations."""
    tree, pieces, rng = Tree(out), 0, np.random.default_rng(7)
    for split, first, count in (("train", 0, 800), ("val", 800, 100)):
        for number, size in enumerate(sizes(f"hm3d-{split}", part(count, share), 4e7), first):
            rooms = int(rng.integers(8, 21))
            boxes = [(room // 8, room, rng.lognormal(1.3, 0.45, 2).tolist()) for room in range(rooms)]
            head = _glb_head(boxes, int(size))
            tree.hole(f"hm3d-{split}-glb/{number:05d}-listed{number:05d}/listed{number:05d}.glb", int(size), head)
            pieces += rooms
    return {"scenes": pieces, "bytes": tree.bytes}


def _glb_head(pieces: list[tuple[int, int, list[float]]], size: int) -> bytes:
    """The table of contents of a building: six chunks of each piece, whose arrays share what is left of the file."""
    nodes: list[dict[str, Any]] = []
    meshes: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    for storey, room, (width, depth) in pieces:
        for _ in range(6):
            name = f"chunk{len(nodes):03d}_group{storey:03d}_sub{room:03d}"
            nodes.append({"mesh": len(meshes), "name": name})
            chunk = {"attributes": {"POSITION": len(accessors)}}
            meshes.append({"primitives": [chunk]})
            high = [round(width / 2, 2), round(depth / 3, 2), 2.6]
            accessors.append({"componentType": 5126, "count": 9000, "type": "VEC3", "min": [0, 0, 0], "max": high})
    table = {"asset": {"version": "2.0"}, "scenes": [{"nodes": list(range(len(nodes)))}], "nodes": nodes,
             "meshes": meshes, "accessors": accessors, "buffers": [], "bufferViews": []}  # fmt: skip
    text = json.dumps(table, separators=(",", ":")).encode()
    return struct.pack("<4sIII4s", b"glTF", 2, size, len(text), b"JSON") + text


def list_ase(out: Path, share: float) -> dict[str, int]:
    """100,000 walks in 10,000 zips, which together have 23 terabytes."""
    tree = Tree(out)
    count = part(10_000, share)
    for chunk, size in enumerate(sizes("ase", count, 2.3e9, 0.2)):
        tree.hole(f"train_chunk_{chunk:07d}.zip", size)
    return {"scenes": 10 * count, "bytes": tree.bytes}
