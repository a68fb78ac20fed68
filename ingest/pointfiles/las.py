"""LAS 1.0 - 1.4: header, records of variable length, and points of a fixed record (ASPRS LAS specification 1.4 R15).

Coordinates are int32 * scale + offset, in float64 because projected coordinates have seven digits before the point.
Points are read in blocks of a million, so that one tile of a large file costs the memory of the tile. What is kept:
coordinates, colour, intensity, classification, returns, GPS time. Scan angle and extra bytes are left behind. Points
flagged as withheld are deleted ones by the specification: they are dropped and counted.

Formats 0-5 keep the class in the low five bits of byte 15 and flags above it, three bits each for return number and
count in byte 14, GPS time at 20 (not in 0 and 2); formats 6-10 have the class in byte 16, four bits each in byte 14,
GPS time at 22. GPS time is either seconds of a week that is not named, or seconds since 1980-01-06 minus 1e9.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.pointfiles import cloud, crs, laz, tiles
from ingest.pointfiles.cloud import Cloud
from ingest.source import RawFiles
from shards.scene import Float64

START = struct.Struct("<4s20x2B68xHIIBHI")
"""Magic, version, header size, offset to points, number of records, point format, record length, legacy count."""
BASE_HEADER = 227
HEADER_BYTES = {0: 227, 1: 227, 2: 227, 3: 235, 4: 375}
RECORD_BYTES = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)
TIME_AT = (None, 20, None, 20, 20, 20, 22, 22, 22, 22, 22)
COLOR_AT = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}
VLR_BYTES, EVLR_BYTES = 54, 60
MAX_EXTENDED = 1000
MAX_HEADER_BYTES = 256 << 20
MAX_COUNT = 4_000_000_000
BLOCK_POINTS = 1_000_000
GEOGRAPHIC = "coordinates are degrees of longitude and latitude"
PROJECT = "project the file to metres, or set metres_per_unit to read it as it is"


@dataclass(frozen=True, kw_only=True)
class LasHeader:
    """What a header says, checked against the size of the file.

    Attributes:
        point_format: 0..10. record_bytes: bytes of a point. count: points. start: offset of the first point.
        scale, offset: float64 (3,); coordinate = integer * scale + offset, in the file's unit.
        bounds: (low, high) of x and of y, as declared.
        metres_per_unit: as the coordinate system says, 1 if there is none; 0 for degrees.
        world_crs: the coordinate system as text, or None.
        absolute_time: GPS times count from 1980-01-06 (minus 1e9 s), not from the start of some week.
        laszip: the LASzip record of a compressed file, else None.
        dropped: records that the header counts and that are not there.
    """

    point_format: int
    record_bytes: int
    count: int
    start: int
    scale: Float64
    offset: Float64
    bounds: tuple[tuple[float, float], tuple[float, float]]
    metres_per_unit: float
    world_crs: str | None
    absolute_time: bool
    laszip: bytes | None
    dropped: Mapping[str, int]


def read_header(files: RawFiles, path: str) -> LasHeader:
    """Parse and check all that stands before the points; raises `RawDataError`."""
    size = files.size(path)
    data = files.read_range(path, 0, BASE_HEADER)
    magic, major, minor, header_bytes, start, records, point_format, record_bytes, count = START.unpack_from(data)
    if magic != b"LASF":
        raise files.error(path, "does not begin with LASF", offset=0, hint="is this a LAS file?")
    if major != 1 or minor not in HEADER_BYTES:
        raise files.error(path, f"version {major}.{minor}; 1.0 to 1.4 expected", offset=24)
    if not HEADER_BYTES[minor] <= header_bytes <= start <= min(size, MAX_HEADER_BYTES):
        problem = f"a header of {header_bytes} bytes and points at {start} in a file of {size} bytes"
        raise files.error(path, problem, offset=94, hint="the header is damaged or the file is truncated")
    # A hostile count makes common readers walk the record list until the memory is gone.
    if records * VLR_BYTES > start - header_bytes:
        raise files.error(
            path, f"{records} variable length records do not fit into the {start - header_bytes} bytes before the "
            "points", offset=100, hint="the header is damaged",
        )  # fmt: skip
    compressed, point_format = point_format >= 64, point_format & 0x3F
    if point_format >= len(RECORD_BYTES) or record_bytes < RECORD_BYTES[point_format]:
        raise files.error(path, f"point format {point_format} with records of {record_bytes} bytes", offset=104)
    data += files.read_range(path, BASE_HEADER, start - BASE_HEADER)
    if minor >= 4:
        count = struct.unpack_from("<Q", data, 247)[0] or count
    if count > MAX_COUNT or (not compressed and count * record_bytes > size - start):
        raise files.error(
            path, f"{count} points of {record_bytes} bytes are declared, {size - start} bytes are left", offset=107,
            hint="the file is truncated or its header is damaged",
        )  # fmt: skip
    found, missing = _find_records(data, header_bytes, records)
    if minor >= 4 and header_bytes >= HEADER_BYTES[4]:
        missing += _find_extended(files, path, found, *struct.unpack_from("<QI", data, 235))
    projection = {ident: content for (user, ident), content in found.items() if user == crs.USER}
    scale, offset, extremes = np.split(np.frombuffer(data, "<f8", 12, 131), (3, 6))
    if not (np.isfinite([scale, offset]).all() and (scale != 0).all()):
        raise files.error(path, f"impossible scale {scale} or offset {offset}", offset=131)
    return LasHeader(
        point_format=point_format, record_bytes=record_bytes, count=count, start=start, scale=scale, offset=offset,
        bounds=((float(extremes[1]), float(extremes[0])), (float(extremes[3]), float(extremes[2]))),
        metres_per_unit=_unit(projection), world_crs=crs.crs_text(projection), absolute_time=bool(data[6] & 1),
        laszip=found.get(laz.RECORD, b"") if compressed else None,
        dropped={"variable length records that are not there": missing} if missing else {},
    )  # fmt: skip


def _find_records(data: bytes, place: int, records: int) -> tuple[dict[tuple[str, int], bytes], int]:
    """(user, id) -> content of the variable length records, and how many of them do not fit before the points."""
    found: dict[tuple[str, int], bytes] = {}
    for number in range(records):
        if place + VLR_BYTES > len(data):
            return found, records - number
        user, ident, length = struct.unpack_from("<2x16sHH", data, place)
        place += VLR_BYTES
        if place + length > len(data):
            return found, records - number
        found.setdefault((user.split(b"\0")[0].decode("ascii", "replace"), ident), data[place : place + length])
        place += length
    return found, 0


def _find_extended(
    files: RawFiles, path: str, found: dict[tuple[str, int], bytes], place: int, records: int
) -> int:  # fmt: skip
    """Add the coordinate systems among the extended records behind the points; returns how many do not fit there.

    Only these are read: others may be gigabytes (waveforms). A record before the points goes first.
    """
    size = files.size(path)
    for number in range(min(records, MAX_EXTENDED)):
        if place + EVLR_BYTES > size:
            return records - number
        user, ident, length = struct.unpack_from("<2x16sHQ", files.read_range(path, place, EVLR_BYTES))
        place += EVLR_BYTES
        if place + length > size:
            return records - number
        key = (user.split(b"\0")[0].decode("ascii", "replace"), ident)
        if key[0] == crs.USER and length <= crs.MAX_TEXT:
            found.setdefault(key, files.read_range(path, place, length))
        place += length
    return 0


def _unit(projection: Mapping[int, bytes]) -> float:
    try:
        return crs.metres_per_unit(projection)
    except crs.GeographicCRS:
        return 0.0


def read_las(files: RawFiles, path: str, metres_per_unit: float | None, tile: Mapping[str, Any] | None) -> Cloud:
    """The points of a LAS, LAZ or COPC file in file order, or those of them that lie in a tile of `plan`.

    Args:
        metres_per_unit: None takes the unit of the file's coordinate system.

    Raises:
        RawDataError: the file is damaged, has no usable unit, or more points than a scene may have.
    """
    header = read_header(files, path)
    unit = header.metres_per_unit if metres_per_unit is None else metres_per_unit
    if not unit:
        raise files.error(path, GEOGRAPHIC, hint=PROJECT)
    core = None if tile is None else tiles.square(tile)
    blocks = _plain_blocks if header.laszip is None else _compressed_blocks
    kept: list[NDArray[Any]] = []
    dropped = Counter(header.dropped)
    total = color_top = class_top = 0
    for block in blocks(files, path, header):
        names = block.dtype.names or ()
        color_top = max([color_top, *(int(block[name].max()) for name in ("red", "green", "blue") if name in names)])
        class_top = max(class_top, int((block["class"] & _class_mask(header)).max()))
        withheld = (block["flags"] & (0x80 if header.point_format < 6 else 0x04)) != 0
        chosen = ~withheld
        if core is not None:
            near = core.near(_coordinates(block, header) * unit)
            withheld, chosen = withheld & near, chosen & near
        if withheld.any():
            dropped["withheld points"] += int(withheld.sum())
        kept.append(block if chosen.all() else block[chosen])
        total += len(kept[-1])
        if total > cloud.MAX_POINTS:
            raise files.error(path, f"more than {cloud.MAX_POINTS} points for one scene", hint="set or lower tile_m")
    points = np.concatenate(kept) if len(kept) > 1 else kept[0] if kept else np.zeros(0, _record(header))
    return _to_cloud(points, header, unit, color_top=color_top, labelled=class_top > 1, dropped=dropped)


def _to_cloud(
    points: NDArray[Any], header: LasHeader, unit: float, *, color_top: int, labelled: bool, dropped: Counter[str]
) -> Cloud:
    color = None
    if header.point_format in COLOR_AT:
        stacked = np.stack([points[name] for name in ("red", "green", "blue")], axis=1)
        color = cloud.color_bytes(stacked, dropped, top=color_top)
    xyz = _coordinates(points, header)
    if unit != 1:
        xyz *= unit
    intensity, intensity_unit = cloud.intensity_floats(points["intensity"], dropped)
    bits = 3 if header.point_format < 6 else 4
    returns = np.stack([points["returns"] & (1 << bits) - 1, points["returns"] >> bits & (1 << bits) - 1])
    time_s, first_s = cloud.time_floats(points["time"] if "time" in (points.dtype.names or ()) else None, dropped)
    return Cloud(
        xyz=xyz,
        color=color,
        intensity=intensity,
        intensity_unit=intensity_unit,
        classes=cloud.asprs_classes(points["class"] & _class_mask(header)) if labelled else None,
        return_number=returns[0] if returns.any() else None,
        return_count=returns[1] if returns.any() else None,
        time_offset=time_s,
        timestamp_ns=cloud.gps_ns(first_s) if header.absolute_time and first_s is not None else None,
        world_crs=header.world_crs,
        metres_per_unit=unit,
        dropped=dropped,
    )


def _record(header: LasHeader) -> np.dtype[Any]:
    """The fields of a point that are read, at their places in the record."""
    late = header.point_format >= 6
    fields = {"x": ("<i4", 0), "y": ("<i4", 4), "z": ("<i4", 8), "intensity": ("<u2", 12), "returns": ("u1", 14)}
    fields |= {"flags": ("u1", 15), "class": ("u1", 16 if late else 15)}
    clock = TIME_AT[header.point_format]
    if clock is not None:
        fields["time"] = ("<f8", clock)
    at = COLOR_AT.get(header.point_format)
    if at is not None:
        fields |= {name: ("<u2", at + 2 * index) for index, name in enumerate(("red", "green", "blue"))}
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": header.record_bytes})


def _class_mask(header: LasHeader) -> int:
    return 0x1F if header.point_format < 6 else 0xFF


def _coordinates(points: NDArray[Any], header: LasHeader) -> Float64:
    """float64 (N, 3) in the file's unit."""
    coordinates = np.empty((len(points), 3))
    with np.errstate(over="ignore"):
        for index, axis in enumerate("xyz"):
            coordinates[:, index] = points[axis] * header.scale[index] + header.offset[index]
    return coordinates


def _plain_blocks(files: RawFiles, path: str, header: LasHeader) -> Iterator[NDArray[Any]]:
    record = _record(header)
    for first in range(0, header.count, BLOCK_POINTS):
        length = min(BLOCK_POINTS, header.count - first) * record.itemsize
        yield np.frombuffer(files.read_range(path, header.start + first * record.itemsize, length), record)


def _compressed_blocks(files: RawFiles, path: str, header: LasHeader) -> Iterator[NDArray[Any]]:
    record = _record(header)
    with laz.decompress(
        files, path, start=header.start, count=header.count, record_bytes=record.itemsize, record=header.laszip or b""
    ) as stream:
        while data := stream.read(BLOCK_POINTS * record.itemsize):
            yield np.frombuffer(data, record)
