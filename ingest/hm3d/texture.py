"""The texel of a place on a mesh: always one texel as it is stored, never a mixture of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.hm3d.glb import Glb
from brickyard.shards.errors import ImageError
from brickyard.shards.images import MAX_PIXELS, decode, inspect
from brickyard.shards.scene import Float64

MAX_IMAGE = 64 << 20
_REPEAT, _CLAMP, _MIRROR = 10497, 33071, 33648


@dataclass(frozen=True, eq=False)
class Texture:
    """uint8 (H, W, 3), and how coordinates beyond 0..1 are meant, along columns and rows."""

    texels: NDArray[np.uint8]
    wraps: tuple[int, int]

    def at(self, uv: Float64) -> NDArray[np.uint8]:
        """The nearest texels of coordinates (N, 2), uint8 (N, 3); v points down, as in the file."""
        places = []
        for axis, size in ((0, self.texels.shape[1]), (1, self.texels.shape[0])):
            place = np.floor(uv[:, axis] * size).astype(np.int64)
            if self.wraps[axis] == _CLAMP:
                place = np.clip(place, 0, size - 1)
            elif self.wraps[axis] == _MIRROR:
                place %= 2 * size
                place = np.where(place >= size, 2 * size - 1 - place, place)
            else:
                place %= size
            places.append(place)
        column, row = places
        found: NDArray[np.uint8] = self.texels[row, column]
        return found


def read_texture(glb: Glb, entry: dict[str, Any], cache: dict[int, Texture]) -> Texture | None:
    """The base colour of a primitive's material; None where it has none. Raises `RawDataError` for a damaged one."""
    if "material" not in entry:
        return None
    surface = glb.entry("materials", entry["material"]).get("pbrMetallicRoughness", {})
    found = surface.get("baseColorTexture") if isinstance(surface, dict) else None
    if not isinstance(found, dict):
        return None
    if found.get("texCoord", 0) != 0 or "KHR_texture_transform" in found.get("extensions", {}):
        raise glb.wrong("a texture uses other coordinates than TEXCOORD_0 as they are, which is not read")
    number = found.get("index")
    if type(number) is not int or number not in cache:
        texture = glb.entry("textures", number)
        if "source" not in texture:
            hint = "textures of Basis Universal are not read: take the archive hm3d-<split>-glb, not -habitat"
            raise glb.wrong(f"texture {number!r} has no image", hint=hint)
        sampler = glb.entry("samplers", texture["sampler"]) if "sampler" in texture else {}
        wraps = sampler.get("wrapS", _REPEAT), sampler.get("wrapT", _REPEAT)
        assert type(number) is int  # or there would be no such texture
        cache[number] = Texture(_texels(glb, texture["source"]), wraps)
    return cache[number]


def _texels(glb: Glb, number: Any) -> NDArray[np.uint8]:
    data = glb.image_bytes(number, MAX_IMAGE)
    if data.startswith(b"\xabKTX"):
        hint = "textures of Basis Universal are not read: take the archive hm3d-<split>-glb, not -habitat"
        raise glb.wrong(f"image {number!r} is KTX2", hint=hint)
    try:
        header = inspect(data)
        if header.width * header.height > MAX_PIXELS:
            raise glb.wrong(
                f"image {number!r} has {header.width}x{header.height} pixels, at most {MAX_PIXELS} are read"
            )
        return decode(data)
    except ImageError as problem:
        raise glb.wrong(f"image {number!r}: {problem}") from None
