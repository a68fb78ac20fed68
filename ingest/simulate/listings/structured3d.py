"""The listing of Structured3D: zips that are nothing but their directories, which planning reads.

3,500 houses, 200 in a zip, with the 21,835 rooms that the release has; pictures of panoramas in one kind of zip, of
perspectives in another. Packed sizes are about those that people report; checksums are made up.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brickyard.ingest.simulate.listings.holes import Tree, part

HOUSES = {"train": 3000, "val": 250, "test": 250}
ROOMS = {"train": 18_362, "val": 1776, "test": 1697}
PER_ZIP = 200
_ENTRY = struct.Struct("<4s6H3I5H2I")
_EXTRA = struct.Struct("<HHQ")
_END64, _LOCATOR64, _END = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI"), struct.Struct("<4s4H2IH")
_FURNISHED = {"rgb_rawlight": 900_000, "depth": 250_000, "semantic": 20_000, "normal": 150_000, "albedo": 500_000}
_LIT = {"rgb_coldlight": 900_000, "rgb_warmlight": 900_000}


def list_structured3d(out: Path, share: float) -> dict[str, int]:
    """All zips but those of empty perspectives, which nothing reads unless it is asked to."""
    tree, rng = Tree(out), np.random.default_rng(3)
    rooms: dict[int, int] = {}
    first = 0
    for split, houses in HOUSES.items():
        shared = part(houses, share)
        for house in range(shared):
            rooms[first + house] = ROOMS[split] * (house + 1) // houses - ROOMS[split] * house // houses
        first += houses
    for volume in sorted({house // PER_ZIP for house in rooms}):
        held = {house: count for house, count in rooms.items() if house // PER_ZIP == volume}
        _write_zip(tree, f"Structured3D_panorama_{volume:02d}.zip", _panoramas(held))
        _write_zip(tree, f"Structured3D_perspective_full_{volume:02d}.zip", _perspectives(held, rng))
    _write_zip(tree, "Structured3D_annotation_3d.zip", ((_house(h) + "annotation_3d.json", 60_000) for h in rooms))
    _write_zip(tree, "Structured3D_bbox.zip", _instances(rooms))
    return {"scenes": sum(rooms.values()), "bytes": tree.bytes}


def _house(house: int) -> str:
    return f"Structured3D/scene_{house:05d}/"


def _room(house: int, number: int) -> str:
    return f"{_house(house)}2D_rendering/{1000 + 7 * number}/"


def _panoramas(rooms: dict[int, int]) -> Iterator[tuple[str, int]]:
    """(name, packed bytes) of the files of a zip."""
    for house, count in rooms.items():
        for number in range(count):
            base = f"{_room(house, number)}panorama/"
            yield base + "camera_xyz.txt", 40
            yield base + "layout.txt", 120
            for state in ("full", "simple", "empty"):
                for name, size in (_FURNISHED | (_LIT if state != "empty" else {})).items():
                    yield f"{base}{state}/{name}.png", size


def _perspectives(rooms: dict[int, int], rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    for house, count in rooms.items():
        for number in range(count):
            for position in range(int(rng.integers(2, 6))):
                base = f"{_room(house, number)}perspective/full/{position}/"
                yield base + "camera_pose.txt", 90
                yield base + "layout.json", 3000
                for name, size in _FURNISHED.items():
                    yield f"{base}{name}.png", size


def _instances(rooms: dict[int, int]) -> Iterator[tuple[str, int]]:
    for house, count in rooms.items():
        for number in range(count):
            yield f"{_room(house, number)}panorama/full/instance.png", 20_000


def _write_zip(tree: Tree, name: str, members: Iterator[tuple[str, int]]) -> None:
    """A hole where the members would be, then their directory."""
    entries, place = [], 0
    for number, (member, size) in enumerate(members):
        text = member.encode()
        wide = place >= 0xFFFFFFFF
        extra = _EXTRA.pack(1, 8, place) if wide else b""
        offset = 0xFFFFFFFF if wide else place
        entries.append(
            _ENTRY.pack(
                b"PK\1\2", 45, 45, 0, 0, 0, 0, number * 2654435761 % 2**32, size, size, len(text), len(extra), 0, 0, 0,
                0, offset,
            )
            + text
            + extra
        )  # fmt: skip
        place += 30 + len(text) + size
    directory = b"".join(entries)
    end = _END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, len(entries), len(entries), len(directory), place)
    end += _LOCATOR64.pack(b"PK\6\7", 0, place + len(directory), 1)
    end += _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    tree.hole(name, place)
    with (tree.root / name).open("ab") as file:
        file.write(directory + end)
    tree.bytes += len(directory) + len(end)
