"""glTF 2.0 in one binary file: its table of contents, and single arrays and images of it, each by its range.

    "glTF"  version 2  length | JSON: meshes, materials, accessors ... | BIN: what these point to

Files are trusted in nothing: every number is checked against the file before memory is taken, addresses of other files
are not followed, and what needs an extension that is not known is refused. The format:
https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.source import RawFiles
from brickyard.shards.documents import read_document
from brickyard.shards.errors import NONSENSE, RawDataError
from brickyard.shards.scene import Float64

MAX_CONTENTS = 64 << 20
MAX_DEPTH = 64
_HEAD, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")
_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_KNOWN = {"KHR_materials_unlit", "KHR_texture_transform"}
"""Extensions that may be required: the first changes no geometry, the second is looked for where it matters."""
AGAIN = "download it again"


@dataclass(frozen=True)
class Primitive:
    """Triangles with one material: where a mesh stands in the file.

    Attributes:
        name: of the node, or of its mesh where the node has none.
        world_from_mesh: float64 (4, 4).
        mesh, number: of the primitive in the table of contents.
    """

    name: str
    world_from_mesh: Float64
    mesh: int
    number: int


class Glb:
    """The table of contents of a file; arrays and images are read when they are asked for."""

    def __init__(self, files: RawFiles, path: str) -> None:
        self.files, self.path = files, path
        size = files.size(path)
        head = files.read_range(path, 0, min(size, _HEAD.size + _CHUNK.size))
        if len(head) < _HEAD.size + _CHUNK.size or head[:4] != b"glTF":
            raise self.wrong("is no binary glTF", 0)
        _, version, length = _HEAD.unpack_from(head)
        contents, kind = _CHUNK.unpack_from(head, _HEAD.size)
        start = _HEAD.size + _CHUNK.size
        if version != 2 or kind != b"JSON":
            raise self.wrong(f"is version {version} of glTF, beginning with {kind!r}; expected 2 and JSON", 4)
        if length != size or contents > min(MAX_CONTENTS, size - start):
            raise self.wrong(f"says that it has {length} bytes, {contents} of them contents; it has {size}", 8)
        text = files.read_range(path, start, contents)
        self.table = read_document(text, f"{path}: its table of contents", error=self.wrong)
        self.binary = start + contents + _CHUNK.size
        self.binary_bytes = max(0, size - self.binary)
        if unknown := set(self._list("extensionsRequired")) - _KNOWN:
            hint = None
            if "KHR_texture_basisu" in unknown:
                hint = "its textures are Basis Universal: take the archive hm3d-<split>-glb, not -habitat"
            raise self.wrong(f"needs {', '.join(sorted(map(str, unknown)))}, which is not read", hint=hint)

    def wrong(self, problem: str, offset: int | None = None, hint: str | None = None) -> RawDataError:
        return self.files.error(self.path, problem.removeprefix(f"{self.path}: "), offset=offset, hint=hint or AGAIN)

    def _list(self, name: str) -> list[Any]:
        found = self.table.get(name, [])
        if not isinstance(found, list):
            raise self.wrong(f"its {name} are no list")
        return found

    def entry(self, name: str, number: Any) -> dict[str, Any]:
        """Entry `number` of a list of the table of contents."""
        entries = self._list(name)
        if type(number) is not int or not 0 <= number < len(entries) or not isinstance(entries[number], dict):
            raise self.wrong(f"asks for {name}[{number!r}], there are {len(entries)}")
        found: dict[str, Any] = entries[number]
        return found

    def primitives(self) -> list[Primitive]:
        """Of all meshes that stand in the scene, in the order of its nodes."""
        scenes = self._list("scenes")
        roots = self.entry("scenes", self.table.get("scene", 0)).get("nodes", []) if scenes else []
        found: list[Primitive] = []
        todo = [(node, np.eye(4), 0) for node in reversed(roots)]
        visits = 0
        while todo:
            number, above, depth = todo.pop()
            node, visits = self.entry("nodes", number), visits + 1
            if depth > MAX_DEPTH or visits > len(self._list("nodes")):
                raise self.wrong("a node stands below itself, or in several places")
            pose = above @ self._placed(node, number)
            if "mesh" in node:
                mesh = self.entry("meshes", node["mesh"])
                count = len(mesh.get("primitives", []))
                name = str(node.get("name") or mesh.get("name") or "")
                found += [Primitive(name, pose, node["mesh"], k) for k in range(count)]
            todo += [(child, pose, depth + 1) for child in reversed(node.get("children", []))]
        return found

    def _placed(self, node: dict[str, Any], number: Any) -> Float64:
        """parent_from_node of a node, float64 (4, 4)."""
        try:
            if "matrix" in node:
                pose = np.array(node["matrix"], np.float64).reshape(4, 4).T
            else:
                x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
                turn = np.array([
                    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
                ])  # fmt: skip
                pose = np.eye(4)
                pose[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
                pose[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
        except NONSENSE as problem:
            raise self.wrong(f"the pose of node {number!r} is none: {problem}") from None
        if not np.isfinite(pose).all():
            raise self.wrong(f"the pose of node {number!r} is not finite")
        return pose

    def part(self, primitive: Primitive) -> dict[str, Any]:
        """The entry of a primitive."""
        entry = self.entry("meshes", primitive.mesh)["primitives"][primitive.number]
        if not isinstance(entry, dict) or not isinstance(entry.get("attributes"), dict):
            raise self.wrong(f"mesh {primitive.name!r} has no attributes")
        if entry.get("mode", 4) != 4:
            raise self.wrong(f"mesh {primitive.name!r} is not made of triangles")
        return entry

    def count(self, number: Any) -> int:
        """Entries of an accessor."""
        count = self.entry("accessors", number).get("count")
        if type(count) is not int or not 0 <= count < 2**31:
            raise self.wrong(f"accessor {number!r} has {count!r} entries")
        return count

    def array(self, number: Any, kind: str, codes: str) -> NDArray[Any]:
        """The values of an accessor: (N,) for "SCALAR", else (N, width); `codes` are the kinds of numbers allowed."""
        entry, count = self.entry("accessors", number), self.count(number)
        try:
            dtype, width = np.dtype(_TYPES[entry["componentType"]]), _WIDTHS[entry["type"]]
            offset = int(entry.get("byteOffset", 0))
        except NONSENSE as problem:
            raise self.wrong(f"accessor {number!r} is none: {problem!r}") from None
        if entry["type"] != kind or dtype.kind not in codes or "sparse" in entry:
            raise self.wrong(f"accessor {number!r} holds {entry['type']} of {dtype}, or is sparse; expected {kind}")
        row = dtype.itemsize * width
        start, length, stride = self._view(entry.get("bufferView"))
        stride = stride or row
        need = 0 if not count else offset + stride * (count - 1) + row
        if offset < 0 or stride < row or need > length:
            raise self.wrong(f"accessor {number!r} needs {need} bytes, its view has {length}", start)
        if not count:
            return np.zeros((0, width) if width > 1 else 0, dtype)
        data = self.files.read_range(self.path, start + offset, need - offset)
        table = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, np.uint8), (count, row), (stride, 1), writeable=False
        )
        values = np.ascontiguousarray(table).view(dtype)
        return values if width > 1 else values[:, 0]

    def _view(self, number: Any) -> tuple[int, int, int]:
        """(place in the file, bytes, bytes from entry to entry or 0) of a buffer view."""
        view = self.entry("bufferViews", number)
        try:
            start, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
            stride, buffer = int(view.get("byteStride", 0)), view["buffer"]
        except NONSENSE as problem:
            raise self.wrong(f"bufferViews[{number!r}] is none: {problem!r}") from None
        if buffer != 0 or "uri" in self.entry("buffers", 0):
            raise self.wrong(f"bufferViews[{number!r}] lies in another file; only what is inside is read")
        if start < 0 or length < 0 or start + length > self.binary_bytes:
            raise self.wrong(f"bufferViews[{number!r}] ends after the file", self.binary + start)
        return self.binary + start, length, stride

    def image_bytes(self, number: Any, limit: int) -> bytes:
        """An encoded image; raises `RawDataError` if it is not in the file or larger than `limit`."""
        image = self.entry("images", number)
        if "uri" in image:
            raise self.wrong(f"image {number!r} lies in another file or in its name; only what is inside is read")
        start, length, _ = self._view(image.get("bufferView"))
        if length > limit:
            raise self.wrong(f"image {number!r} has {length} bytes, at most {limit} are read", start)
        return self.files.read_range(self.path, start, length)
