"""Lists the rooms of Structured3D, each put together from wherever its files lie (see `listing`).

    Structured3D_panorama_00.zip .. _17.zip, Structured3D_perspective_full_00.zip .., Structured3D_annotation_3d.zip,
    Structured3D_bbox.zip (which holds the instance images), or [Structured3D/]scene_SSSSS/..., anywhere below the root

The release has 21,835 rooms in 3,500 houses, and no list of them: rooms are known by their files alone. A house's
number says its split, and houses are the sequences.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.ingest.structured3d import listing
from brickyard.ingest.structured3d.listing import HOUSE, KIND, OFFSET, PACKED, PLACED, POSITION, ROOM, Survey
from brickyard.ingest.structured3d.names import NEEDED, Wanted, role
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store

DATASET = "structured3d"
HOUSES = {"train": range(3000), "val": range(3000, 3250), "test": range(3250, 3500)}
ROOMS = 21_835
"""Of the release."""
CLOUDS = {"train": 18_348, "val": 1776, "test": 1697}
"""Rooms that Sonata was trained on: those of which Pointcept's preprocessing made a cloud, 14 fewer than there are."""
BYTES = {"color": 900_000, "depth": 250_000, "semantic": 20_000, "instance": 20_000}
"""Of unpacked files, which are not measured; of all others a kilobyte."""
POINTS = {"panorama": 300_000, "perspective": 130_000}
"""Of a picture at a centimetre's spacing, for planning."""
Pictures = Literal["both", "panorama", "perspective"]


@dataclass(frozen=True, kw_only=True)
class Structured3DOptions:
    """What to take from a room.

    Attributes:
        configuration: furniture: "full", "simple" (panoramas only) or "empty".
        light: "raw" (the designer's), "cold" or "warm" (panoramas only).
        points: the pictures whose depth makes the points: "panorama", "perspective", or "both" of them.
        grid_m: at most one point in a cube of this many metres, that of the first picture; 0 keeps every pixel.
        min_cosine: pixels whose surface is seen at a more grazing angle than this cosine become no points: most of
            them blend two surfaces.
        keep_unlabelled: keep the points of class 0, which Pointcept's clouds leave out.
        views: the pictures that become views: "both", "panorama", "perspective" or "none".
        max_views: at most so many perspective views, spread evenly; points come from all of them.
        read_depth, read_labels: attach to each view its depth, and its label and instance images.
        min_agreement: leave out a perspective picture if, of the panorama's points at or in front of its surfaces, a
            smaller share lies on them (see `ingest.agreement`); 0 keeps all. Needs both kinds of pictures.
        invalid_houses: also the six houses that the release's errata call invalid.
    """

    configuration: Literal["full", "simple", "empty"] = "full"
    light: Literal["raw", "cold", "warm"] = "raw"
    points: Pictures = "both"
    grid_m: float = 0.01
    min_cosine: float = 0.15
    keep_unlabelled: bool = False
    views: Literal["both", "panorama", "perspective", "none"] = "both"
    max_views: int = 5
    read_depth: bool = True
    read_labels: bool = True
    min_agreement: float = 0.75
    invalid_houses: bool = False

    def __post_init__(self) -> None:
        special = self.light if self.light != "raw" else "simple" if self.configuration == "simple" else None
        checks = (
            (self.configuration in ("full", "simple", "empty"), f"no configuration {self.configuration!r}"),
            (self.light in ("raw", "cold", "warm"), f"no light {self.light!r}"),
            (self.points in get_args(Pictures), f"points cannot be {self.points!r}"),
            (self.views in (*get_args(Pictures), "none"), f"views cannot be {self.views!r}"),
            (self.grid_m == 0 or 0.001 <= self.grid_m <= 1, f"grid_m must be 0, or 0.001..1, found {self.grid_m}"),
            (0 <= self.min_cosine < 1, f"min_cosine must be 0..1, found {self.min_cosine}"),
            (0 <= self.min_agreement <= 1, f"min_agreement must be 0..1, found {self.min_agreement}"),
            (self.max_views > 0, f"max_views must be above 0, found {self.max_views}"),
            (
                special is None or not self.reads("perspective"),
                f"only panoramas are rendered {special!r}: set points to panorama, and views to panorama or none",
            ),
        )
        for holds, problem in checks:
            if not holds:
                raise RecipeError(f"structured3d options: {problem}")

    def reads(self, kind: str) -> bool:
        """Whether pictures of a kind, "panorama" or "perspective", are read."""
        return self.points in ("both", kind) or self.views in ("both", kind)


@cache
def errata() -> dict[str, frozenset[str]]:
    """The release's errata.txt: "invalid houses", and the rooms with "wrong layouts"."""
    table = json.loads(Path(__file__).with_name("errata.json").read_text())
    return {name: frozenset(entries) for name, entries in table.items()}


def plan(store: Store, options: Structured3DOptions) -> Iterator[SceneRef | Missing]:
    """All rooms, by the numbers of house and room.

    Yields a `Missing` for a zip whose directory cannot be read and for a room whose pictures are not there, a `Notice`
    for volumes that are absent, hold other houses than their number says, or what an earlier one has, too. Raises
    `RawDataError` if there is nothing of the dataset.
    """
    wanted = Wanted(options.configuration, options.light)
    kinds = {"panorama"} if options.reads("panorama") else set()
    kinds |= {f"perspective_{options.configuration}"} if options.reads("perspective") else set()
    found = listing.survey(store, wanted, kinds)
    for path, problem in sorted(found.broken.items()):
        houses = listing.houses_of(path)
        promised = f"; {listing.span(houses)} should be in it" if houses else ""
        yield Missing(dataset=DATASET, scene_id=path, reason=f"{problem}{promised}; download it again")
    if not found.rooms and not found.broken:
        raise RawDataError(
            "no room of Structured3D is here", dataset=DATASET, path=store.uri,
            hint="the root is a folder of its zips, or of what they unpack to: scene_00000/2D_rendering/...",
        )  # fmt: skip
    yield from _notices(found, options)
    yield from _rooms(store, found, options)


def _notices(found: Survey, options: Structured3DOptions) -> Iterator[Notice]:
    told = {place: list(what) for place, what in found.told.items()}
    houses = {f"scene_{house:05d}" for house, _ in found.rooms}
    if not options.invalid_houses:
        reason = "the release's errata call this house invalid: it is not read (see the option invalid_houses)"
        told |= {house: [reason] for house in houses & errata()["invalid houses"]}
    if len(houses) == sum(map(len, HOUSES.values())):  # all are here: the numbers of rooms should be the published ones
        counts = Counter(split_of(house) for house, _ in found.rooms)
        for split, clouds in CLOUDS.items():
            if not clouds <= counts[split] <= clouds + ROOMS - sum(CLOUDS.values()):
                reason = f"{counts[split]} rooms are here, where Sonata was trained on {clouds} and the release has "
                told[f"split {split}"] = [f"{reason}at most {ROOMS - sum(CLOUDS.values())} more"]
    for place in sorted(told):
        yield Notice(dataset=DATASET, scene_id=place, reason="; ".join(told[place]))


def split_of(house: int) -> str:
    return next((split for split, houses in HOUSES.items() if house in houses), "none")


def _rooms(store: Store, found: Survey, options: Structured3DOptions) -> Iterator[SceneRef | Missing]:
    roles = _volume_roles(found.places[:-1])
    table, settings = found.table, asdict(options)
    keys = table[:, HOUSE] * 10**10 + table[:, ROOM] + 1
    for house, room in found.rooms:
        if f"scene_{house:05d}" in errata()["invalid houses"] and not options.invalid_houses:
            continue
        own, first, last = np.searchsorted(keys, np.array([0, room + 1, room + 2]) + house * 10**10)
        rows = table[first:last].tolist()
        if own < len(keys) and keys[own] == house * 10**10:
            rows.insert(0, table[own].tolist())
        yield _room(
            store, f"scene_{house:05d}", room, rows, roles=roles, found=found, options=options, settings=settings
        )


def _volume_roles(volumes: list[str]) -> list[str]:
    """A role for each volume: its name without the dataset's and the suffix; numbered where two are called alike."""
    roles: list[str] = []
    for path in volumes:
        name = re.sub(r"[^A-Za-z0-9_]+", "-", Path(path).stem.removeprefix("Structured3D_")) + ".zip"
        roles.append(f"{len(roles)}-{name}" if name in roles else name)
    return roles


def _room(
    store: Store, house: str, room: int, rows: list[list[int]], *, roles: list[str], found: Survey,
    options: Structured3DOptions, settings: dict[str, Any],
) -> SceneRef | Missing:  # fmt: skip
    members = {role(row[KIND], row[POSITION]): row for row in rows}
    pictures, dropped = _pictures(set(members), options)
    scene_id = f"{house}/room_{room}"
    usable = [picture for picture in pictures if options.points in ("both", picture.partition("/")[0])]
    if not usable:
        absent = "; ".join(dropped) or "no picture of it is here"
        reason = f"{absent}: {options.configuration} {options.points} pictures were asked for"
        return Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
    files, places, weight = {}, [], 0
    for name, row in members.items():
        picture = "panorama" if name == "annotation" else name.rpartition("/")[0]
        if picture not in pictures:
            continue
        if row[PLACED] == len(roles):
            files[name] = found.paths[row[OFFSET]]
            weight += BYTES.get(name.rpartition("/")[2], 1000)
        else:
            files[roles[row[PLACED]]] = found.places[row[PLACED]]
            places.append(" ".join([name, roles[row[PLACED]], *map(str, row[OFFSET:])]))
            weight += row[PACKED]
    return SceneRef(
        dataset=DATASET, scene_id=scene_id, split=split_of(int(house[-5:])), sequence=house, root=store.uri,
        files=files,
        details={
            "house": house, "room": str(room), "options": settings, "pictures": pictures,
            "members": "\n".join(places), "dropped": dropped,
        },
        points_estimate=sum(POINTS[picture.partition("/")[0]] for picture in usable),
        bytes_estimate=max(1, weight),
    )  # fmt: skip


def _pictures(members: set[str], options: Structured3DOptions) -> tuple[list[str], dict[str, int]]:
    """The pictures of a room that can be read, such as "perspective/3", in the order in which they make points; and how
    often something is absent."""
    dropped: Counter[str] = Counter()
    pictures = []
    views = {name.rpartition("/")[0] for name in members if name.startswith("perspective/")}
    wanted = sorted(views, key=lambda name: int(name.partition("/")[2])) if options.reads("perspective") else []
    if options.reads("perspective") and not views:
        dropped["room without a perspective picture"] = 1
    for picture in [*wanted, *(["panorama"] if options.reads("panorama") else [])]:
        kind = picture.partition("/")[0]
        absent = [what for what in NEEDED if f"{picture}/{what}" not in members]
        if len(absent) == len(NEEDED):
            dropped[f"room without a {kind} picture"] = 1
            continue
        if absent:
            dropped[f"{kind} picture without its {' and its '.join(absent)}"] += 1
            continue
        pictures.append(picture)
        labels = ("semantic", "instance") if options.configuration == "full" else ("semantic",)
        dropped.update(
            f"{kind} picture without its {what} image" for what in labels if f"{picture}/{what}" not in members
        )
    return pictures, dict(dropped)
