"""The raw layouts without names or places of their own: how many points a file holds.

semantickitti    16 bytes a point; the size that the build recorded will do
scannet          "element vertex" in the head of the mesh
s3dis            lines of the annotation files
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from brickyard.infra.answers.raw import Raw, points_of, source_like
from brickyard.ingest.kitti.velodyne import POINT_BYTES
from brickyard.ingest.mesh import MAX_HEADER
from brickyard.ingest.s3dis.plan import class_of
from brickyard.ingest.scannet.plan import ROLES
from brickyard.shards.encode import SceneHeader
from brickyard.shards.errors import BrickyardError

_VERTICES = re.compile(rb"\nelement vertex (\d{1,12})\r?\n")
_PIECE = 16 << 20


class SemanticKittiRaw(Raw):
    """Scans are records without a header."""

    needs_root = False

    def place(self, header: SceneHeader) -> Mapping[str, Any]:
        path = source_like(header, ".bin", "velodyne/")
        return {"raw_points": points_of(header, path, self.size(header, path), POINT_BYTES)}


class ScanNetRaw(Raw):
    """The server's vertices are those of the decimated mesh."""

    def place(self, header: SceneHeader) -> Mapping[str, Any]:
        assert self.root is not None
        path = source_like(header, ROLES["mesh"])
        head = self.root.read_range(path, 0, min(MAX_HEADER, self.size(header, path)))
        found = _VERTICES.findall(head[: head.find(b"end_header")])
        if len(found) != 1:
            raise BrickyardError(f"{header.identity.key}: no number of vertices in the head of {path}")
        return {"raw_points": int(found[0])}


class S3DISRaw(Raw):
    """A room is its annotation files, a point a line."""

    def place(self, header: SceneHeader) -> Mapping[str, Any]:
        paths = [source.path for source in header.identity.sources if "/Annotations/" in source.path]
        named = [path for path in paths if class_of(path.rpartition("/")[2]) is not None]
        return {"raw_points": sum(self._lines(header, path) for path in named)}

    def _lines(self, header: SceneHeader, path: str) -> int:
        assert self.root is not None
        size, count, last = self.size(header, path), 0, b"\n"
        for start in range(0, size, _PIECE):
            piece = self.root.read_range(path, start, min(_PIECE, size - start))
            count, last = count + piece.count(b"\n"), piece[-1:]
        return count + (last != b"\n")
