"""Which files of Structured3D lie below a root, and where: in zips as they are downloaded, in folders, or in both.

One walk over the names below the root, and one read of each zip's directory; no folder is listed twice, no file is
opened or measured but the zips. What lies in two places is taken from a zip rather than from a folder, and from a zip
without a number (annotation_3d, bbox: they came later, with corrections) rather than from a numbered one. Whatever is
strange about a place is told once: `Survey.told`.

A table of integers holds what was found, a row each, because the whole release has 1.5 million files that are read: 80
bytes a file.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.structured3d.names import PLACE, Wanted
from brickyard.ingest.zips import Member, VolumeError, list_members
from brickyard.shards.storage import Store

PER_VOLUME = 200
"""Houses in a numbered zip."""
VOLUME = re.compile(r"(?:.*/)?[^/]*(panorama|perspective_full|perspective_empty)_([0-9]{2})\.zip")
LOST = range(1600, 1800)
"""Houses without perspective views: their zip was published with the contents of the next one."""
FOLDERS = "the unpacked folders"
HOUSE, ROOM, KIND, POSITION, PLACED, OFFSET, PACKED, SIZE, CRC, METHOD = range(10)
"""Columns of the table. A house's own file has the room -1; an unpacked file's offset is the number of its path."""


@dataclass
class Survey:
    """What was found.

    Attributes:
        table: int64 (F, 10), sorted by the first five columns, each file once.
        places: the volumes, then `FOLDERS`.
        paths: of the unpacked files.
        rooms: (house, room) of whatever names a room, used or not, sorted.
        told: place -> what is to be said about it.
        broken: volume -> why its directory cannot be read.
    """

    table: NDArray[np.int64]
    places: list[str]
    paths: list[str]
    rooms: list[tuple[int, int]]
    told: dict[str, list[str]]
    broken: dict[str, str]


@dataclass
class _Collector:
    wanted: Wanted
    columns: tuple[array[int], ...] = field(default_factory=lambda: tuple(array("q") for _ in range(10)))
    places: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    rooms: set[tuple[int, int]] = field(default_factory=set)
    told: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, member: Member | None) -> int | None:
        """Note a file of the latest place; returns its house, or None where it is none of the dataset's."""
        match = PLACE.fullmatch(name)
        if match is None:
            return None
        house, room, kind = int(match[1]), -1, (0, 0)
        if match[2] is not None:
            room = int(match[2])
            found = self.wanted.kind(match[3]) if match[2] == str(room) else None
            if match[2] == str(room):
                self.rooms.add((house, room))
            if found is None:
                return house
            kind = found
        if member is None:
            member = Member(len(self.paths), 0, 0, 0, 0)
            self.paths.append(name)
        for column, value in zip(self.columns, (house, room, *kind, len(self.places) - 1, *member), strict=True):
            column.append(value)
        return house

    def tell(self, place: str, what: str) -> None:
        self.told.setdefault(place, []).append(what)


def survey(store: Store, wanted: Wanted, kinds: set[str]) -> Survey:
    """All that lies below the root of the store.

    Args:
        wanted: which files of a room are read.
        kinds: of the numbered volumes that hold these, as in `VOLUME`: others are not opened, gaps are told.
    """
    found, broken = _Collector(wanted), {}
    names = list(store.walk())
    volumes = sorted((name for name in names if name.lower().endswith(".zip")), key=_numbered)
    for path in volumes:
        found.places.append(path)
        if (match := VOLUME.fullmatch(path)) and match[1] not in kinds:
            continue
        try:
            _read_volume(store, path, found)
        except VolumeError as problem:
            broken[path] = str(problem)
    found.places.append(FOLDERS)
    for name in names:
        found.add(name, None)
    for path, what in _gaps(volumes, kinds):
        found.tell(path, what)
    table = np.stack([np.frombuffer(column, np.int64) for column in found.columns], axis=1)
    table = table[np.lexsort(table[:, PLACED::-1].T)]
    first = np.ones(len(table), np.bool_)
    first[1:] = (table[1:, :PLACED] != table[:-1, :PLACED]).any(axis=1)
    for place, what in _duplicates(table, first, found.places):
        found.tell(place, what)
    return Survey(table[first], found.places, found.paths, sorted(found.rooms), found.told, broken)


def houses_of(path: str) -> range:
    """The houses that a volume's number promises; none where it has no number."""
    match = VOLUME.fullmatch(path)
    return range(int(match[2]) * PER_VOLUME, (int(match[2]) + 1) * PER_VOLUME) if match else range(0)


def span(houses: range) -> str:
    return f"houses {houses[0]:05d} to {houses[-1]:05d}"


def _numbered(path: str) -> tuple[bool, str]:
    return VOLUME.fullmatch(path) is not None, path


def _read_volume(store: Store, path: str, found: _Collector) -> None:
    houses = {house for name, member in list_members(store, path) if (house := found.add(name, member)) is not None}
    expected = houses_of(path)
    if not houses:
        found.tell(path, "no file of Structured3D is in this zip: it is not used")
    elif expected and not houses <= set(expected):
        known = "perspective_full" in path and expected == LOST
        why = " (the release has lost these views)" if known else ""
        held = span(range(min(houses), max(houses) + 1))
        found.tell(path, f"it holds {held}, its number says {span(expected)}{why}")


def _gaps(volumes: list[str], kinds: set[str]) -> Iterator[tuple[str, str]]:
    """Numbers that are not there, up to the last one that is."""
    seen: dict[str, set[int]] = {}
    stems: dict[str, str] = {}
    for path in volumes:
        if (match := VOLUME.fullmatch(path)) and match[1] in kinds:
            stems.setdefault(match[1], path[: match.start(1)])
            seen.setdefault(match[1], set()).add(int(match[2]))
    last = max((number for numbers in seen.values() for number in numbers), default=-1)
    for kind, numbers in sorted(seen.items()):
        absent = [f"{number:02d}" for number in sorted(set(range(last + 1)) - numbers)]
        if absent:
            what = f"of the numbers up to {last:02d}, these are not here: {' '.join(absent)}"
            yield f"{stems[kind]}{kind}_*.zip", f"{what}; number 07 has houses 01400 to 01599, and so on"


def _duplicates(table: NDArray[np.int64], first: NDArray[np.bool_], places: list[str]) -> Iterator[tuple[str, str]]:
    """What a place has and an earlier one has, too. Most panorama zips have the annotations as they are elsewhere: that
    is not worth a word."""
    kept = table[np.maximum.accumulate(np.where(first, np.arange(len(table)), 0))[~first]]
    again = table[~first]
    for one, other in sorted(set(zip(kept[:, PLACED].tolist(), again[:, PLACED].tolist(), strict=True))):
        mine = (kept[:, PLACED] == one) & (again[:, PLACED] == other)
        houses = again[mine, HOUSE]
        differ = int((kept[mine][:, [SIZE, CRC]] != again[mine][:, [SIZE, CRC]]).any(axis=1).sum())
        if not differ and not again[mine, KIND].any():
            continue
        what = "" if places[other] == FOLDERS else f", {differ or 'none'} of them with another content"
        where = "in it twice" if one == other else f"in {places[one]}, too"
        held = span(range(int(houses.min()), int(houses.max()) + 1))
        yield places[other], f"{int(mine.sum())} files of {held} are {where}{what}: those are read, not these"
