"""Superpixels as files that any tool reads and writes: one grey PNG a view, one folder a scene, one JSON beside them.

    <root>/<dataset>/<scene id>/superpixels.json      {"scene": key, "views": {name: {"file": ..., "method": ...}}}
    <root>/<dataset>/<scene id>/<view>.png            ids, at the image's full size

In names of folders and files all but letters, digits and `_.-~` is written as in URLs (`/` is `%2F`). A PNG of 8 bits
holds 255 superpixels, ids 0 to 254 (255 is what tools write where there is none, which superpixels do not know); one of
16 bits as many as a Scene may have, 65536. `count` and `xxh3` of a view are checked where they are given.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.documents import Every, Maybe
from brickyard.shards.errors import ImageError
from brickyard.shards.png import GREY, START, PngHeader, walk_png

MANIFEST = "superpixels.json"
SHAPE = {
    "scene": str,
    "views": Every({"file": str, "method": str, "count": Maybe(int), "xxh3": Maybe(str)}),
}
"""Of a scene's manifest."""
ONE_BYTE = 255
"""Superpixels that 8 bits may hold."""


def folder_of(dataset: str, scene_id: str) -> str:
    """Of a scene, below the root."""
    return f"{quote(dataset, safe='')}/{quote(scene_id, safe='')}"


def file_of(view: str) -> str:
    """Of a view, in its scene's folder."""
    return f"{quote(view, safe='')}.png"


def map_bytes(labels: NDArray[np.uint16]) -> bytes:
    """A map (H, W) as PNG: 8 bits where they hold its ids, else 16; equal maps give equal bytes."""
    from PIL import Image

    narrow = int(labels.max()) < ONE_BYTE
    sink = io.BytesIO()
    Image.fromarray(labels.astype(np.uint8) if narrow else labels).save(sink, "PNG", optimize=True)
    return sink.getvalue()


def read_map(data: bytes, width: int, height: int) -> NDArray[np.uint16]:
    """uint16 (H, W), the ids of a PNG.

    Raises:
        ImageError: it is damaged, has another size or kind, or ids that its bits may not hold; what its header says is
            compared before anything is decoded.
    """
    from brickyard.shards.images import load

    header = walk_png(data)
    if (header.width, header.height) != (width, height):
        raise ImageError(f"a map of {header.width}x{header.height} pixels, its image has {width}x{height}", 16)
    if header.colour != GREY or header.bits not in (8, 16):
        raise ImageError("no grey PNG of 8 or 16 bits, as a map of ids must be", 24)
    if data[28]:
        raise ImageError("an interlaced PNG: write the map without", 28)
    _refuse_missing_rows(data, header)
    with load(data) as image:
        labels: NDArray[Any] = np.asarray(image)
    if header.bits == 8 and int(labels.max()) >= ONE_BYTE:
        raise ImageError(
            f"id {int(labels.max())} in a map of 8 bits, which holds {ONE_BYTE} superpixels, ids 0 to {ONE_BYTE - 1}: "
            "write 16 bits, which hold 65536",
            24,
        )
    return labels.astype(np.uint16)


def _refuse_missing_rows(data: bytes, header: PngHeader) -> None:
    """Pillow takes rows that are not there for zeros, which are ids like others."""
    whole, place, compressed = header.height * (1 + header.width * header.bits // 8), len(START), []
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            compressed.append(data[place + 8 : place + 8 + length])
        if kind == b"IEND":
            break
        place += 12 + length
    try:
        found = len(zlib.decompressobj().decompress(b"".join(compressed), whole + 1))
    except zlib.error as problem:
        raise ImageError(f"the map cannot be decompressed: {problem}", len(START)) from problem
    if found != whole:
        raise ImageError(f"{min(found, whole)} bytes of pixels, its header says {whole}", len(START))
