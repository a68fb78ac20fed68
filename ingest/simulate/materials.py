"""What surfaces look like: each material is a periodic tile drawn by a formula, with averages for distant views.

A tile costs a few milliseconds to draw and is drawn anew for every world, with that world's colours and pattern
parameters, so two worlds never share a texture while bricks still look like bricks. Shading a pixel is one look-up:
the level of the pyramid is chosen by how much surface a pixel covers, which keeps distant facades from flickering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float32, Float64

SIZE = 256
"""Texels along a side of a tile."""

Rng = np.random.Generator
Painter = Callable[[Rng], Float64]


@dataclass(frozen=True)
class Material:
    """A kind of surface.

    Attributes:
        metres: side of one tile on the surface.
        reflectance: mean share of laser light sent back at normal incidence, 0..1.
        paint: draws the tile, float (SIZE, SIZE, 3) in 0..1; rows run along the second texture coordinate (up).
    """

    metres: float
    reflectance: float
    paint: Painter


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """The tiles of one world.

    Attributes:
        texels: uint8 (T, 3), every tile's pyramid one after the other.
        start: int64 (M,), first texel of material m.
        per_metre: float32 (M,), texels per metre at the finest level.
        reflectance: float32 (M,).
    """

    texels: NDArray[np.uint8]
    start: NDArray[np.int64]
    per_metre: Float32
    reflectance: Float32

    def look_up(self, material: NDArray[np.integer[Any]], texture: Float32, footprint: Float32) -> Float32:
        """Colours float32 (N, 3) in 0..255 at texture coordinates (N, 2), averaged over `footprint` metres (N,)."""
        scale = self.per_metre[material]
        level = np.log2(np.maximum(footprint * scale, 1.0)).astype(np.int32)
        np.minimum(level, _LEVELS - 1, out=level)
        side = np.right_shift(SIZE, level)
        scale = np.ldexp(scale, -level)
        column = np.floor(texture[:, 0] * scale).astype(np.int32) & (side - 1)
        row = np.floor(texture[:, 1] * scale).astype(np.int32) & (side - 1)
        texel = self.start[material] + _OFFSET[level] + row * side + column
        return np.asarray(self.texels[texel], dtype=np.float32)


_LEVELS = SIZE.bit_length()
_OFFSET = np.concatenate([[0], np.cumsum([(SIZE >> k) ** 2 for k in range(_LEVELS - 1)])]).astype(np.int64)


def build_atlas(names: Sequence[str], rng: Rng) -> Atlas:
    """Draw the tiles of the named materials; index in `names` is the material's number."""
    pyramids, start, total = [], [], 0
    for name in names:
        tile = np.clip(MATERIALS[name].paint(rng), 0, 1)
        start.append(total)
        while True:
            pyramids.append(np.round(tile.reshape(-1, 3) * 255).astype(np.uint8))
            total += len(pyramids[-1])
            if len(tile) == 1:
                break
            tile = (tile[::2, ::2] + tile[1::2, ::2] + tile[::2, 1::2] + tile[1::2, 1::2]) / 4
    return Atlas(
        texels=np.concatenate(pyramids),
        start=np.array(start, np.int64),
        per_metre=np.array([SIZE / MATERIALS[n].metres for n in names], np.float32),
        reflectance=np.array([MATERIALS[n].reflectance for n in names], np.float32),
    )


def _noise(rng: Rng, roughness: float = 1.0, stretch: tuple[float, float] = (1, 1)) -> Float64:
    """Periodic noise (SIZE, SIZE) of mean 0 and deviation 1, spectrum 1 / f^roughness; `stretch` (x, y) elongates."""
    fx, fy = np.fft.fftfreq(SIZE)[None, :] * stretch[0], np.fft.fftfreq(SIZE)[:, None] * stretch[1]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIZE, SIZE))) / frequency**roughness).real
    return np.asarray(field / field.std())


_V, _U = np.mgrid[0:SIZE, 0:SIZE] / SIZE
Hues = Sequence[tuple[float, float, float]]


def _near(rng: Rng, colours: Hues, spread: float = 0.02) -> Float64:
    """One of the colours, a little off."""
    chosen = np.asarray(colours[rng.integers(len(colours))])
    return np.asarray(np.clip(chosen * (1 + rng.normal(0, 0.08)) + rng.normal(0, spread, 3), 0.02, 0.98))


def _tint(colour: Float64, value: Float64) -> Float64:
    return np.asarray(value[..., None] * colour)


def grain(colours: Hues, contrast: float, roughness: float = 1.0, stretch: tuple[float, float] = (1, 1)) -> Painter:
    """A colour under noise: plaster, asphalt, grass, cloth."""

    def paint(rng: Rng) -> Float64:
        return _tint(_near(rng, colours), 1 + contrast * _noise(rng, roughness, stretch))

    return paint


def leaves(colours: Hues) -> Painter:
    """Two greens mixed by fine noise, with dark gaps."""

    def paint(rng: Rng) -> Float64:
        base, fine = _near(rng, colours), _noise(rng, 0.7)
        gaps = np.where(_noise(rng, 0.9) > 0.8, 0.35, 1.0)
        return _tint(base, (1 + 0.35 * fine) * gaps) + np.clip(fine, 0, 2)[..., None] * (0.05, 0.05, 0.0)

    return paint


def blocks(colours: Hues, rows: int, columns: int, *, joint: float, gap: float, stagger: float = 0.5) -> Painter:
    """A wall or floor of blocks (bricks, slabs, tiles, planks), each of its own shade, with joints between.

    Args:
        joint: width of the joint as a share of a row.
        gap: brightness of the joint relative to the blocks.
        stagger: shift of every other row in blocks.
    """

    def paint(rng: Rng) -> Float64:
        base = _near(rng, colours)
        v = _V * rows
        row = v.astype(int)
        u = _U * columns + stagger * (row % 2)
        column = u.astype(int) % columns
        shade = rng.normal(1, 0.09, (rows, columns))[row, column] * (1 + 0.05 * _noise(rng, 1.0))
        edge = np.minimum(v % 1, (u % 1) * rows / columns) < joint
        return _tint(base, np.where(edge, gap, shade))

    return paint


def planks(colours: Hues, rows: int, contrast: float = 0.1) -> Painter:
    """Wooden boards: long grain along the boards, each board its own shade."""

    def paint(rng: Rng) -> Float64:
        base, v = _near(rng, colours), _V * rows
        shade = rng.normal(1, 0.08, rows)[v.astype(int)]
        wood = shade + contrast * _noise(rng, 1.2, (12, 1))
        return _tint(base, np.where(v % 1 < 0.04, 0.55, wood))

    return paint


def stripes(first: Hues, second: Hues, count: int, slope: int = 0, share: float = 0.5) -> Painter:
    """Two colours in bands across the second coordinate; `slope` tilts them (whole turns per tile)."""

    def paint(rng: Rng) -> Float64:
        a, b = _near(rng, first), _near(rng, second)
        band = ((_V * count + _U * slope) % 1 < share)[..., None]
        return np.asarray(np.where(band, a, b) * (1 + 0.04 * _noise(rng, 0.8))[..., None])

    return paint


def facade(walls: Hues, glass: Hues, columns: int, rows: int, window: tuple[float, float]) -> Painter:
    """Rows of framed windows in a plaster wall; some lit, some with blinds."""

    def paint(rng: Rng) -> Float64:
        wall, pane = _near(rng, walls), _near(rng, glass)
        u, v = _U * columns % 1 - 0.5, _V * rows % 1 - 0.5
        cell = (_V * rows).astype(int) * columns + (_U * columns).astype(int)
        inside = (np.abs(u) < window[0] / 2) & (np.abs(v) < window[1] / 2)
        frame = (np.abs(u) < window[0] / 2 + 0.05) & (np.abs(v) < window[1] / 2 + 0.05)
        blind = (v > rng.uniform(-0.5, 0.6, rows * columns)[cell]) & inside
        shade = rng.uniform(0.5, 1.5, rows * columns)[cell] * (1 + 0.5 * v)
        result = _tint(wall, 1 + 0.05 * _noise(rng, 1.2))
        result[frame] = np.clip(wall * 0.5 + 0.4, 0, 1)
        result[inside] = _tint(pane, shade)[inside]
        result[blind] = np.clip(wall * 0.3 + 0.5, 0, 1)
        cross = inside & ((np.abs(u) < 0.02) | (np.abs(v) < 0.015))
        result[cross] = np.clip(wall * 0.5 + 0.35, 0, 1)
        return result

    return paint


def books(rng: Rng) -> Float64:
    """Book spines: two shelves of narrow upright bands of many colours and heights, dark above."""
    result = np.full((SIZE, SIZE, 3), 0.12)
    for shelf in range(2):
        edge = 0
        while edge < SIZE:
            width, height = int(rng.integers(5, 14)), rng.uniform(0.3, 0.46)
            top, bottom = int((shelf * 0.5 + height) * SIZE), int((shelf * 0.5 + 0.02) * SIZE)
            spine = rng.uniform(0.1, 0.9, 3) * rng.uniform(0.5, 1)
            result[bottom:top, edge : edge + width] = spine
            result[bottom:top, edge : edge + 1] = spine * 0.4
            label = int(rng.uniform(bottom, top))
            result[label : label + 6, edge + 1 : edge + width - 1] = 0.85
            edge += width
    return result


def painting(rng: Rng) -> Float64:
    """An abstract picture: overlapping discs and a horizon in strong colours."""
    result = np.empty((SIZE, SIZE, 3))
    result[:] = _near(rng, [(0.8, 0.7, 0.3), (0.2, 0.4, 0.7), (0.8, 0.3, 0.25)], 0.1)
    below = rng.uniform(0.2, 0.6) > _V
    result[below] = rng.uniform(0, 1, 3)
    for _ in range(9):
        x, y, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.25)
        result[np.hypot(_U - x, _V - y) < radius] = rng.uniform(0, 1, 3)
    return result * (1 + 0.06 * _noise(rng, 1.0))[..., None]


def panels(colours: Hues, columns: int, rows: int) -> Painter:
    """Framed panels: doors and cabinet fronts, with a bright edge, a dark groove and a knob."""

    def paint(rng: Rng) -> Float64:
        base = _near(rng, colours)
        u, v = np.abs(_U * columns % 1 - 0.5), np.abs(_V * rows % 1 - 0.5)
        edge = np.maximum(u, v)
        shade = np.select([edge > 0.485, edge > 0.37, edge > 0.34], [0.4, 1.0, 0.65], 0.92)
        result = _tint(base, shade + 0.05 * _noise(rng, 1.1, (1, 8)))
        result[np.hypot((_U * columns % 1 - 0.9) * rows / columns, _V * rows % 1 - 0.5) < 0.04] = (0.8, 0.78, 0.7)
        return result

    return paint


def sky_pane(rng: Rng) -> Float64:
    """A window seen from inside: bright sky above a darker skyline, in a white frame with a cross."""
    skyline = 0.25 + 0.12 * np.repeat(rng.uniform(-1, 1, 8), SIZE // 8)
    result = _tint(_near(rng, [(0.65, 0.8, 0.98), (0.85, 0.88, 0.92)]), 0.9 + 0.2 * _V)
    result[skyline[None, :] > _V] = _near(rng, [(0.35, 0.42, 0.35), (0.45, 0.4, 0.4)])
    edge = np.maximum(np.abs(_U - 0.5), np.abs(_V - 0.5)) > 0.46
    result[edge | (np.abs(_U - 0.5) < 0.02) | (np.abs(_V - 0.5) < 0.015)] = 0.95
    return result


def folds(rng: Rng) -> Float64:
    """A curtain: soft upright folds, sometimes with a printed band."""
    base = _near(rng, [(0.7, 0.25, 0.3), (0.85, 0.8, 0.65), (0.3, 0.45, 0.6), (0.45, 0.6, 0.4)])
    turns = int(rng.integers(7, 13))
    shade = 0.85 + 0.22 * np.sin(2 * np.pi * turns * _U + 1.5 * np.sin(2 * np.pi * 2 * _U)) + 0.03 * _noise(rng, 1.0)
    return _tint(base, shade)


def weave(colours: Hues) -> Painter:
    """Checked cloth."""

    def paint(rng: Rng) -> Float64:
        base, other = _near(rng, colours), _near(rng, colours, 0.15)
        count = int(rng.integers(5, 9))
        checks = 0.5 * ((_U * count % 1 < 0.5).astype(float) + (_V * count % 1 < 0.5))
        mixed = base + checks[..., None] * 0.5 * (other - base)
        return np.asarray(mixed * (1 + 0.1 * _noise(rng, 0.4))[..., None])

    return paint


def dots(ground: Hues, spots: Hues) -> Painter:
    """Bed linen: a staggered pattern of discs."""

    def paint(rng: Rng) -> Float64:
        count = 2 * int(rng.integers(3, 6))
        v = _V * count
        u = _U * count + 0.5 * (v.astype(int) % 2)
        spot = np.hypot(u % 1 - 0.5, v % 1 - 0.5) < rng.uniform(0.2, 0.36)
        cloth = np.where(spot[..., None], _near(rng, spots), _near(rng, ground))
        return np.asarray(cloth * (1 + 0.04 * _noise(rng, 1.2))[..., None])

    return paint


_WOOD = [(0.62, 0.42, 0.24), (0.45, 0.28, 0.16), (0.75, 0.58, 0.38), (0.32, 0.2, 0.13)]
_CLOTH = [(0.25, 0.32, 0.5), (0.55, 0.2, 0.2), (0.3, 0.42, 0.3), (0.55, 0.5, 0.42), (0.35, 0.3, 0.38)]
_WALLS = [(0.82, 0.76, 0.62), (0.78, 0.62, 0.5), (0.72, 0.72, 0.74), (0.86, 0.82, 0.76), (0.62, 0.66, 0.6)]
_GLASS = [(0.25, 0.32, 0.4), (0.18, 0.22, 0.28), (0.35, 0.42, 0.46)]
_GREY = [(0.55, 0.55, 0.54), (0.62, 0.6, 0.56), (0.5, 0.5, 0.53)]
_WHITE = [(0.92, 0.92, 0.9)]

MATERIALS: dict[str, Material] = {
    # streets
    "asphalt": Material(3, 0.18, grain([(0.28, 0.28, 0.29), (0.36, 0.35, 0.34), (0.22, 0.23, 0.25)], 0.12, 0.5)),
    "paint": Material(1, 0.62, grain([(0.88, 0.88, 0.86)], 0.06, 0.6)),
    "slabs": Material(
        2.4, 0.3, blocks([(0.68, 0.64, 0.58), (0.6, 0.58, 0.57), (0.7, 0.58, 0.5)], 6, 4, joint=0.05, gap=0.6)
    ),
    "kerb": Material(1.5, 0.35, blocks(_GREY, 1, 2, joint=0.03, gap=0.6, stagger=0)),
    "grass": Material(3, 0.36, leaves([(0.32, 0.45, 0.16), (0.42, 0.46, 0.2), (0.25, 0.4, 0.15)])),
    "soil": Material(3, 0.28, grain([(0.48, 0.38, 0.27), (0.55, 0.46, 0.34)], 0.2, 0.8)),
    "brick": Material(
        2, 0.3, blocks([(0.6, 0.3, 0.22), (0.5, 0.24, 0.2), (0.7, 0.48, 0.34)], 20, 8, joint=0.12, gap=1.35)
    ),
    "plaster": Material(3, 0.42, grain(_WALLS, 0.05, 1.2)),
    "concrete": Material(4, 0.33, blocks(_GREY, 4, 2, joint=0.015, gap=0.7, stagger=0)),
    "windows": Material(7, 0.33, facade(_WALLS, _GLASS, 3, 2, (0.45, 0.55))),
    "brick windows": Material(6, 0.29, facade([(0.55, 0.28, 0.22), (0.62, 0.4, 0.3)], _GLASS, 2, 2, (0.4, 0.6))),
    "curtain wall": Material(
        6, 0.17, facade([(0.5, 0.52, 0.55), (0.3, 0.32, 0.36)], [(0.4, 0.52, 0.6)], 4, 2, (0.88, 0.7))
    ),
    "roof": Material(3, 0.25, blocks([(0.45, 0.22, 0.18), (0.3, 0.3, 0.32)], 12, 8, joint=0.15, gap=0.6)),
    "shopfront": Material(
        4, 0.24, facade([(0.35, 0.2, 0.15), (0.15, 0.3, 0.3)], [(0.5, 0.45, 0.35)], 1, 1, (0.8, 0.7))
    ),
    "bark": Material(1, 0.3, grain([(0.35, 0.26, 0.19), (0.42, 0.36, 0.3)], 0.25, 0.8, (1, 7))),
    "foliage": Material(2.5, 0.4, leaves([(0.2, 0.42, 0.12), (0.35, 0.45, 0.12), (0.15, 0.33, 0.15), (0.5, 0.4, 0.1)])),
    "car paint": Material(4, 0.42, grain([(0.92, 0.92, 0.92)], 0.015, 1.4)),
    "car glass": Material(2, 0.12, grain([(0.1, 0.12, 0.15)], 0.2, 1.6)),
    "tyre": Material(0.5, 0.08, grain([(0.07, 0.07, 0.07)], 0.15, 0.5)),
    "lamp": Material(0.5, 0.8, grain([(0.95, 0.9, 0.75)], 0.05, 0.8)),
    "tail lamp": Material(0.5, 0.75, grain([(0.75, 0.08, 0.06)], 0.1, 0.8)),
    "livery": Material(3, 0.4, stripes([(0.9, 0.9, 0.9)], [(0.8, 0.15, 0.12), (0.15, 0.35, 0.7), (0.2, 0.55, 0.3)], 2)),
    "cargo": Material(2.4, 0.38, stripes([(0.85, 0.85, 0.82)], [(0.75, 0.76, 0.78)], 12, 0, 0.8)),
    "cloth": Material(0.6, 0.32, grain([(0.8, 0.8, 0.8)], 0.12, 0.8)),
    "skin": Material(0.5, 0.35, grain([(0.8, 0.6, 0.48), (0.5, 0.34, 0.25)], 0.05)),
    "cone": Material(0.5, 0.55, stripes([(0.95, 0.42, 0.08)], [(0.95, 0.95, 0.92)], 2, 0, 0.62)),
    "barrier": Material(1.6, 0.5, stripes([(0.85, 0.12, 0.1)], _WHITE, 0, 2)),
    "galvanised": Material(1, 0.45, grain([(0.55, 0.57, 0.6), (0.35, 0.4, 0.38)], 0.06, 1.0, (1, 5))),
    "sign": Material(0.7, 0.95, stripes([(0.1, 0.25, 0.7), (0.8, 0.1, 0.1)], _WHITE, 1, 0, 0.7)),
    "boards": Material(2, 0.3, planks(_WOOD, 12)),
    # rooms
    "wall paint": Material(3, 0.5, grain([*_WALLS, (0.6, 0.7, 0.72)], 0.02, 1.4)),
    "wallpaper": Material(1.6, 0.5, stripes([*_WALLS, (0.55, 0.62, 0.7)], _WALLS, 0, 10)),
    "parquet": Material(1.6, 0.4, planks(_WOOD, 12, 0.12)),
    "carpet": Material(1.5, 0.3, grain([(0.5, 0.45, 0.4), (0.35, 0.38, 0.45), (0.55, 0.35, 0.3)], 0.14, 0.4)),
    "floor tiles": Material(
        2, 0.4, blocks([(0.75, 0.73, 0.68), (0.6, 0.55, 0.5)], 6, 6, joint=0.04, gap=0.55, stagger=0)
    ),
    "ceiling": Material(2.4, 0.6, blocks([(0.93, 0.93, 0.92)], 4, 4, joint=0.015, gap=0.8, stagger=0)),
    "wood": Material(1.2, 0.38, planks(_WOOD, 3, 0.14)),
    "lacquer": Material(1.5, 0.45, grain([(0.9, 0.9, 0.9)], 0.02, 1.4)),
    "cabinet front": Material(0.9, 0.4, panels([*_WOOD, (0.85, 0.85, 0.82), (0.55, 0.62, 0.6)], 2, 1)),
    "drawers": Material(0.75, 0.4, panels([*_WOOD, (0.8, 0.8, 0.78)], 1, 3)),
    "door": Material(2.1, 0.42, panels([(0.85, 0.83, 0.78), (0.5, 0.33, 0.2), (0.4, 0.48, 0.55)], 2, 2)),
    "upholstery": Material(0.9, 0.33, weave(_CLOTH)),
    "linen": Material(0.9, 0.45, dots([(0.88, 0.86, 0.8), (0.6, 0.7, 0.8)], [*_CLOTH, (0.8, 0.5, 0.3)])),
    "pillow": Material(0.8, 0.5, grain([(0.93, 0.92, 0.9), (0.8, 0.72, 0.6)], 0.05, 1.4)),
    "pane": Material(1.3, 0.2, sky_pane),
    "curtain": Material(1.6, 0.38, folds),
    "books": Material(0.7, 0.35, books),
    "painting": Material(1.0, 0.4, painting),
    "screen": Material(1, 0.1, grain([(0.06, 0.07, 0.1)], 0.3, 1.8)),
    "steel": Material(1, 0.5, grain([(0.72, 0.73, 0.75)], 0.05, 1.0, (1, 14))),
    "cardboard": Material(0.8, 0.4, stripes([(0.68, 0.52, 0.34)], [(0.78, 0.66, 0.46)], 1, 0, 0.85)),
    "shade": Material(0.5, 0.5, grain([(0.98, 0.9, 0.65)], 0.05, 1.0)),
}
