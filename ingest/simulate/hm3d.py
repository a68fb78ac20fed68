"""Writes simulated buildings as Habitat-Matterport 3D ships its own: one textured GLB each, some with annotations.

    hm3d-<split>-glb/<index>-<id>/<id>.glb
    hm3d-<split>-habitat/<index>-<id>/<id>.basis.glb
    hm3d-<split>-semantic-annots/<index>-<id>/{<id>.semantic.glb, <id>.semantic.txt}

A building is a row of rooms, the last one upstairs; a room is a piece, in several chunks. Each triangle has a square of
its own in the texture of its chunk, filled with one colour, so that the truth is one colour, class and instance for
each triangle. The semantic mesh has other texture coordinates, its squares lie in the reverse order. The first building
has what the release has: a chunk moved by its node, coordinates that wrap around, normals in the file, categories with
commas. Truth: of each piece the corners, colour, class (as its category's text) and instance of its triangles.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.sensors import shading
from brickyard.ingest.simulate.truth import write_arrays, write_json
from brickyard.shards.scene import Float32, Float64

Rng = np.random.Generator
BUILDINGS = ((3, "train"), (801, "val"), (902, "test"))
CHUNK_FACES, BLOCK = 1500, 8
"""Triangles of a chunk, and pixels of a triangle's square."""
STOREY_M = 3.0
CATEGORIES = {
    "wall": "wall", "floor": "floor", "ceiling": "ceiling", "door": "door", "window": "window", "bed": "bed",
    "chair": "chair", "table": "table", "desk": "desk", "couch": "couch", "curtain": "curtain",
    "picture": "picture", "lamp": "lamp", "pillow": "pillow", "cabinet": "cabinet",
    "bookshelf": "magazines, albums, bookshelf", "mirror": "mirror", "rug": "rug", "plant": "plant",
}  # fmt: skip
"""Label of the room's models -> category; all else is a "box"."""


@dataclass(frozen=True, eq=False)
class _Chunk:
    """float64 (F, 3, 3) corners, uint8 (F, 3) colours and semantic colours."""

    name: str
    corners: Float64
    color: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    odd: bool


@dataclass(frozen=True, eq=False)
class _Building:
    """Chunks of all rooms, and the lines of the annotation."""

    chunks: list[_Chunk]
    lines: list[str]


def write_hm3d(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.hm3d_buildings` buildings below `out`; returns counts."""
    triangles = 0
    for index in range(config.hm3d_buildings):
        rng = np.random.default_rng((seed, 12, index))
        number, split = BUILDINGS[index % len(BUILDINGS)]
        name = f"{number + index // len(BUILDINGS):05d}-{_identity(rng)}"
        building = _build(truth / name, config, rng)
        _write_building(out, name, split, building, annotated=index % 2 == 0)
        triangles += sum(len(chunk.corners) for chunk in building.chunks)
        tick(index + 1, config.hm3d_buildings)
    return {"buildings": config.hm3d_buildings, "pieces": config.hm3d_buildings * config.hm3d_rooms,
            "triangles": triangles}  # fmt: skip


def _identity(rng: Rng) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(letters[k] for k in rng.integers(0, len(letters), 11))


def _build(truth: Path, config: SimulationConfig, rng: Rng) -> _Building:
    """Rooms side by side, the last one upstairs; their truth is written."""
    building, taken, shift = _Building([], ["HM3D Semantic Annotations"]), set[int](), 0.0
    categories = {}
    for number in range(config.hm3d_rooms):
        room = build_room(rng, list(ROOMS)[number % len(ROOMS)], spacing=config.hm3d_spacing)
        upstairs = number > 0 and number == config.hm3d_rooms - 1
        corners, color = _triangles(room, np.array([shift, 0.0, STOREY_M if upstairs else 0.0]))
        shift += room.size[0] + 0.2
        piece = f"{int(upstairs):03d}_{number:03d}"
        names = [CATEGORIES.get(name, "box") for name in (*room.instances, *room.world.labels)]
        labels = len(room.instances) + room.world.label.astype(np.int64)
        key = np.where(room.world.instance > 0, room.world.instance - 1, labels)
        colors, first = _instance_colors(len(names), taken, rng), 1000 * (number + 1)
        building.lines.extend(f'{first + k},{_hex(colors[k])},"{names[k]}",{number}' for k in np.unique(key).tolist())
        for start in range(0, len(corners), CHUNK_FACES):
            held = slice(start, start + CHUNK_FACES)
            name = f"chunk{len(building.chunks):03d}_group{piece[:3]}_sub{piece[4:]}"
            chunk = _Chunk(name, corners[held], color[held], colors[key[held]], odd=not building.chunks)
            building.chunks.append(chunk)
        categories[piece] = [names[k] for k in key.tolist()]
        arrays: dict[str, NDArray[Any]] = {"corners": corners.astype(np.float32), "color": color}
        write_arrays(truth / piece, arrays | {"instance": (first + key).astype(np.int32)})
    write_json(truth / "categories.json", categories)
    return building


def _write_building(out: Path, name: str, split: str, building: _Building, *, annotated: bool) -> None:
    ident = name.partition("-")[2]
    _write(out / f"hm3d-{split}-glb/{name}/{ident}.glb", _glb(building.chunks, semantic=False))
    _write(out / f"hm3d-{split}-habitat/{name}/{ident}.basis.glb", _basis())
    if annotated:
        base = out / f"hm3d-{split}-semantic-annots/{name}"
        _write(base / f"{ident}.semantic.glb", _glb(building.chunks, semantic=True))
        _write(base / f"{ident}.semantic.txt", ("\n".join(building.lines) + "\n").encode())


def _triangles(room: Room, place: Float64) -> tuple[Float64, NDArray[np.uint8]]:
    """Corners (F, 3, 3) in the building, and the colour at the middle of each."""
    world = room.world
    corners = world.vertices[world.faces].astype(np.float64) + place
    mapping = world.texture_map
    middle = mapping[:, :2] + (mapping[:, 2:4] + mapping[:, 4:]) / 3
    drawn = world.atlas.look_up(world.material, middle, np.full(len(corners), 0.02, np.float32))
    color = np.clip(drawn * shading(world.at(0))[0], 0, 255).astype(np.uint8)
    return corners, color


def _instance_colors(count: int, taken: set[int], rng: Rng) -> NDArray[np.uint8]:
    """uint8 (count, 3), none of them black or used before in the building."""
    found: list[int] = []
    while len(found) < count:
        color = int(rng.integers(1, 1 << 24))
        if color not in taken:
            taken.add(color)
            found.append(color)
    values = np.array(found)
    colors: NDArray[np.uint8] = np.stack([values >> 16, (values >> 8) & 255, values & 255], axis=1).astype(np.uint8)
    return colors


def _hex(color: NDArray[np.uint8]) -> str:
    return "".join(f"{int(value):02X}" for value in color)


def _glb(chunks: list[_Chunk], *, semantic: bool) -> bytes:
    """All chunks, each a node with a mesh, a material and a texture of its own."""
    table: dict[str, Any] = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(range(len(chunks)))}], "nodes": [],
        "meshes": [], "materials": [], "textures": [], "images": [], "samplers": [{"wrapS": 10497, "wrapT": 10497}],
        "accessors": [], "bufferViews": [], "buffers": [],
    }  # fmt: skip
    binary = bytearray()

    def view(data: bytes) -> int:
        table["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        binary.extend(data + bytes(-len(data) % 4))
        return len(table["bufferViews"]) - 1

    def accessor(values: NDArray[Any], kind: str, code: int) -> int:
        entry = {"bufferView": view(values.tobytes()), "componentType": code, "count": len(values), "type": kind}
        if kind == "VEC3":
            entry |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        table["accessors"].append(entry)
        return len(table["accessors"]) - 1

    for number, chunk in enumerate(chunks):
        shown = chunk.semantic if semantic else chunk.color
        picture, uv = _atlas(shown, reverse=semantic)
        corners = chunk.corners.reshape(-1, 3)
        node: dict[str, Any] = {"mesh": number, "name": chunk.name + ("" if not semantic else "_semantic")}
        if chunk.odd:
            corners = corners - np.array([10.0, 0.0, 0.0])
            node["translation"] = [10.0, 0.0, 0.0]
            uv = uv + np.array([2.0, -1.0])
        attributes = {
            "POSITION": accessor(corners.astype(np.float32), "VEC3", 5126),
            "TEXCOORD_0": accessor(uv.astype(np.float32), "VEC2", 5126),
        }
        if chunk.odd:
            attributes["NORMAL"] = accessor(_flat_normals(chunk.corners), "VEC3", 5126)
        indices = accessor(np.arange(len(corners), dtype=np.uint32), "SCALAR", 5125)
        table["nodes"].append(node)
        primitive = {"attributes": attributes, "indices": indices, "material": number}
        table["meshes"].append({"name": chunk.name, "primitives": [primitive]})
        table["materials"].append({"pbrMetallicRoughness": {"baseColorTexture": {"index": number}}})
        table["textures"].append({"source": number, "sampler": 0})
        mime = "image/png" if semantic else "image/jpeg"
        table["images"].append({"bufferView": view(_encoded(picture, semantic)), "mimeType": mime})
    table["buffers"].append({"byteLength": len(binary)})
    return _packed(table, bytes(binary))


def _packed(table: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def _atlas(colors: NDArray[np.uint8], *, reverse: bool) -> tuple[NDArray[np.uint8], Float64]:
    """A square picture with a block of each colour, and the coordinates (3 F, 2) of a triangle inside each block."""
    side = int(np.ceil(np.sqrt(len(colors))))
    place = np.arange(len(colors))[:: -1 if reverse else 1]
    row, column = np.divmod(place, side)
    blocks = np.zeros((side, side, 3), np.uint8)
    blocks[row, column] = colors
    inner = np.array([[2.0, 2.0], [BLOCK - 2.0, 2.0], [2.0, BLOCK - 2.0]])
    pixel = np.stack([column, row], axis=1)[:, None] * BLOCK + inner
    return blocks.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1), pixel.reshape(-1, 2) / (side * BLOCK)


def _encoded(picture: NDArray[np.uint8], semantic: bool) -> bytes:
    data = io.BytesIO()
    settings: dict[str, Any] = {"format": "PNG"} if semantic else {"format": "JPEG", "quality": 95, "subsampling": 0}
    Image.fromarray(picture).save(data, **settings)
    return data.getvalue()


def _flat_normals(corners: Float64) -> Float32:
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    flat = np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)
    return flat.repeat(3, axis=0).astype(np.float32)


def _basis() -> bytes:
    """A mesh whose textures are Basis Universal, as the archive for the simulator has them; there is nothing in it."""
    table = {"asset": {"version": "2.0"}, "extensionsUsed": ["KHR_texture_basisu"],
             "extensionsRequired": ["KHR_texture_basisu"]}  # fmt: skip
    return _packed(table, b"")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
