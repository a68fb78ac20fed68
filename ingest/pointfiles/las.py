"""LAS 1.0 - 1.4: header, records of variable length, and points of a fixed record (ASPRS LAS specification 1.4 R15).

Coordinates are int32 * scale + offset, in float64 because projected coordinates have seven digits before the point.
Points are read in blocks of a million, so that one tile of a large file costs the memory of the tile. What is kept:
coordinates, colour, intensity, classification, returns, GPS time. Scan angle, scanner flags, user data and source ids
are left behind; near infrared, waveforms and extra bytes are, too, which is counted. Points flagged as withheld are
deleted ones by the specification: they are dropped and counted, as are points whose bytes are lost (`ingest.blank`).

Formats 0-5 keep the class in the low five bits of byte 15 and flags above it, three bits each for return number and
count in byte 14, GPS time at 20 (not in 0 and 2); formats 6-10 have the class in byte 16, four bits each in byte 14,
GPS time at 22. GPS time is either seconds of a week that is not named, or seconds since 1980-01-06 minus 1e9.

Writers give newer versions the shorter header of older ones: what a short header does not hold is taken as absent.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest import tiles
from brickyard.ingest.blank import SECTOR, blank_records
from brickyard.ingest.pointfiles import cloud, crs, fields, laz
from brickyard.ingest.pointfiles.cloud import ASPRS, Cloud, Scale
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import Float64

START = struct.Struct("<4s20x2B68xHIIBHI")
"""Magic, version, header size, offset to points, number of records, point format, record length, legacy count."""
BASE_HEADER, WAVEFORM_HEADER, LONG_HEADER = 227, 235, 375
"""Bytes of a header: of all versions, with the place of waveforms (1.3), with extended records and counts (1.4)."""
MINORS = range(5)
RECORD_BYTES = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)
TIME_AT = (None, 20, None, 20, 20, 20, 22, 22, 22, 22, 22)
COLOR_AT = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}
VLR_BYTES, EVLR_BYTES = 54, 60
MAX_EXTENDED = 1000
MAX_HEADER_BYTES = 256 << 20
MAX_COUNT = 4_000_000_000
BLOCK_POINTS = 1_000_000
SINGLE = ("intensity", "returns", "class", "time")
NEAR_INFRARED, WAVEFORMS = (8, 10), (4, 5, 9, 10)
UNIT_HINT = "project the file to metres, or set metres_per_unit to say what a unit is"


@dataclass(frozen=True, kw_only=True)
class LasHeader:
    """What a header says, checked against the size of the file.

    Attributes:
        point_format: 0..10. record_bytes: bytes of a point. count: points. start: offset of the first point.
        scale, offset: float64 (3,); coordinate = integer * scale + offset, in the file's unit.
        bounds: (low, high) of x, y and z, as declared.
        units: as the coordinate system says, metres if there is none.
        world_crs: the coordinate system as text, or None.
        absolute_time: GPS times count from 1980-01-06 (minus 1e9 s), not from the start of some week.
        laszip: the LASzip record of a compressed file, else None.
        dropped: records that the header counts and that are not there, and what it says of parts that are not read.
    """

    point_format: int
    record_bytes: int
    count: int
    start: int
    scale: Float64
    offset: Float64
    bounds: tuple[tuple[float, float], ...]
    units: crs.Units
    world_crs: str | None
    absolute_time: bool
    laszip: bytes | None
    dropped: Mapping[str, int]

    def scale_to_metres(self, flat: float | None, height: float | None) -> tuple[Scale, Counter[str]] | None:
        """Metres per unit and what they do not tell, or None where x and y have no known unit.

        Args:
            flat, height: what the options say, which goes before what the file says; `flat` alone is of all axes.
        """
        x = self.units.horizontal if flat is None else flat
        z = height if height is not None else flat if flat is not None else self.units.vertical
        if x is None:
            return None
        unknown = {"heights of no known unit: read in the unit of x and y": 1} if z is None else {}
        return Scale(flat=x, height=x if z is None else z), Counter(unknown)


def read_header(files: RawFiles, path: str) -> LasHeader:
    """Parse and check all that stands before the points; raises `RawDataError`."""
    size = files.size(path)
    data = files.read_range(path, 0, BASE_HEADER)
    magic, major, minor, header_bytes, start, records, point_format, record_bytes, count = START.unpack_from(data)
    if magic != b"LASF":
        raise files.error(path, "does not begin with LASF", offset=0, hint="is this a LAS file?")
    if major != 1 or minor not in MINORS:
        raise files.error(path, f"version {major}.{minor}; 1.0 to 1.4 expected", offset=24)
    if not BASE_HEADER <= header_bytes <= start <= min(size, MAX_HEADER_BYTES):
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
    long = minor >= 4 and header_bytes >= LONG_HEADER
    if long:
        count = struct.unpack_from("<Q", data, 247)[0] or count
    if count > MAX_COUNT or (not compressed and count * record_bytes > size - start):
        raise files.error(
            path, f"{count} points of {record_bytes} bytes are declared, {size - start} bytes are left", offset=107,
            hint="the file is truncated or its header is damaged",
        )  # fmt: skip
    found, missing = _find_records(data, header_bytes, records)
    extended, extended_count = struct.unpack_from("<QI", data, 235) if long else (0, 0)
    if long:
        missing += _find_extended(files, path, found, extended, extended_count)
    projection = {ident: content for (user, ident), content in found.items() if user == crs.USER}
    scale, offset, extremes = np.split(np.frombuffer(data, "<f8", 12, 131), (3, 6))
    if not (np.isfinite([scale, offset]).all() and (scale != 0).all()):
        raise files.error(path, f"impossible scale {scale} or offset {offset}", offset=131)
    waveforms = struct.unpack_from("<Q", data, BASE_HEADER)[0] if minor >= 3 and header_bytes >= WAVEFORM_HEADER else 0
    end = min([size, *(place for place in (waveforms, extended if extended_count else 0) if place > start)])
    behind = 0 if compressed else end - start - count * record_bytes
    lost = {
        "variable length records that are not there": missing,
        "extra bytes of points: not read": record_bytes - RECORD_BYTES[point_format],
        "near infrared: not read": int(point_format in NEAR_INFRARED),
        "waveforms: not read": int(point_format in WAVEFORMS),
        "bytes after the points: not read": behind if behind >= record_bytes and not missing else 0,
    }
    return LasHeader(
        point_format=point_format, record_bytes=record_bytes, count=count, start=start, scale=scale, offset=offset,
        bounds=tuple((float(low), float(high)) for high, low in extremes.reshape(3, 2)),
        units=crs.units(projection), world_crs=crs.crs_text(projection), absolute_time=bool(data[6] & 1),
        laszip=found.get(laz.RECORD, b"") if compressed else None,
        dropped={reason: number for reason, number in lost.items() if number},
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


def read_las(
    files: RawFiles, path: str, metres: float | None, metres_of_height: float | None, tile: Mapping[str, Any] | None
) -> Cloud:
    """The points of a LAS, LAZ or COPC file in file order, or those of them that lie in a tile of `plan`.

    Args:
        metres, metres_of_height: per unit; None takes the units of the file's coordinate system.

    Raises:
        RawDataError: the file is damaged, has no usable unit, or more points than a scene may have.
    """
    header = read_header(files, path)
    found = header.scale_to_metres(metres, metres_of_height)
    if found is None:
        raise files.error(path, header.units.problem, hint=UNIT_HINT)
    scale, unknown = found
    core = None if tile is None else tiles.square(tile)
    blocks = _plain_blocks if header.laszip is None else _compressed_blocks
    kept: list[NDArray[Any]] = []
    dropped = Counter(header.dropped) + unknown
    total = usable = color_top = class_top = 0
    for block, lost in blocks(files, path, header):
        names = block.dtype.names or ()
        colors = (cloud.as_array(block[name]) for name in ("red", "green", "blue") if name in names)
        color_top = max([color_top, *(int(color.max()) for color in colors)])
        class_top = max(class_top, int((cloud.as_array(block["class"]) & _class_mask(header)).max()))
        withheld = (cloud.as_array(block["flags"]) & (0x80 if header.point_format < 6 else 0x04)) != 0
        chosen = ~withheld
        if lost is not None:
            withheld, chosen = withheld & ~lost, chosen & ~lost
            dropped[cloud.LOST_BLOCKS] += int(lost.sum())
        usable += int(np.count_nonzero(chosen))
        if core is not None:
            near = core.near(_coordinates(block, header, scale))
            withheld, chosen = withheld & near, chosen & near
        if withheld.any():
            dropped["withheld points"] += int(withheld.sum())
        kept.append(block if chosen.all() else block[chosen])
        total += len(kept[-1])
        if total > cloud.MAX_POINTS:
            raise files.error(path, f"more than {cloud.MAX_POINTS} points for one scene", hint="set or lower tile_m")
    if not usable:
        raise files.error(path, f"has no points: {header.count} are declared, none can be used")
    points = np.concatenate(kept) if len(kept) > 1 else kept[0]
    return _to_cloud(points, header, scale, color_top=color_top, labelled=class_top > 1, dropped=dropped)


def _to_cloud(
    points: NDArray[Any], header: LasHeader, scale: Scale, *, color_top: int, labelled: bool, dropped: Counter[str]
) -> Cloud:
    color = None
    if header.point_format in COLOR_AT:
        stacked = np.stack([points[name] for name in ("red", "green", "blue")], axis=1)
        color = fields.color_bytes(stacked, dropped, top=color_top)
    xyz = _coordinates(points, header, scale)
    single = {name: cloud.as_array(points[name]) for name in SINGLE if name in (points.dtype.names or ())}
    intensity, intensity_unit = fields.intensity_floats(single["intensity"], dropped)
    bits = 3 if header.point_format < 6 else 4
    both: NDArray[np.uint8] = single["returns"]
    mask = np.uint8((1 << bits) - 1)
    number, count = both & mask, both >> np.uint8(bits) & mask
    told = bool(number.any() or count.any())
    time_s, first_s = fields.time_floats(single.get("time"), dropped)
    return Cloud(
        xyz=xyz,
        color=color,
        intensity=intensity,
        intensity_unit=intensity_unit,
        classes=fields.class_ids(single["class"] & _class_mask(header), ASPRS, dropped) if labelled else None,
        return_number=number if told else None,
        return_count=count if told else None,
        time_offset=time_s,
        timestamp_ns=fields.gps_ns(first_s) if header.absolute_time and first_s is not None else None,
        world_crs=header.world_crs,
        scale=scale,
        bounds=_bounds(header, scale),
        dropped=dropped,
    )


def _bounds(header: LasHeader, scale: Scale) -> Float64:
    """float64 (2, 3), metres: the declared box, wider by a step of the coordinates, which writers round."""
    low, high = np.array(header.bounds).T
    step = np.abs(header.scale) + 1e-9 * np.maximum(np.abs(low), np.abs(high))
    bounds: Float64 = np.stack([low - step, high + step]) * scale.xyz
    return bounds


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


def _coordinates(points: NDArray[Any], header: LasHeader, scale: Scale) -> Float64:
    """float64 (N, 3) in metres, in memory axis after axis."""
    axes = np.empty((3, len(points)))
    with np.errstate(over="ignore", invalid="ignore"):
        for index, axis in enumerate("xyz"):
            axes[index] = points[axis]
            axes[index] *= header.scale[index]
            axes[index] += header.offset[index]
            if scale != Scale():
                axes[index] *= scale.xyz[index]
    return axes.T


Block: TypeAlias = tuple[NDArray[Any], NDArray[np.bool_] | None]
"""Points, and which of them lie in lost blocks of the file."""


def _plain_blocks(files: RawFiles, path: str, header: LasHeader) -> Iterator[Block]:
    """Blocks that end before a run of zeros, which may go on, so that no run is too short in either of two blocks."""
    record, held = _record(header), b""
    for first in range(0, header.count, BLOCK_POINTS):
        length = min(BLOCK_POINTS, header.count - first) * record.itemsize
        data = held + files.read_range(path, header.start + first * record.itemsize, length)
        end = len(data) if first + BLOCK_POINTS >= header.count else _before_zeros(data, record.itemsize)
        held = data[end:]
        if end:
            lost = blank_records(np.frombuffer(data, np.uint8, end), record.itemsize)
            yield np.frombuffer(data, record, end // record.itemsize), lost if lost.any() else None


def _before_zeros(data: bytes, size: int) -> int:
    """Where the records begin whose bytes are the run of zeros at the end of `data`; of a long run, its last part."""
    least = max(SECTOR, 8 * size)
    tail = data[-3 * least :]
    zeros = len(tail) - len(tail.rstrip(b"\0"))
    if zeros < size:  # many records end in zeros
        return len(data)
    return (len(data) - (zeros if zeros < 3 * least else least)) // size * size


def _compressed_blocks(files: RawFiles, path: str, header: LasHeader) -> Iterator[Block]:
    record = _record(header)
    with laz.decompress(
        files, path, start=header.start, count=header.count, record_bytes=record.itemsize, record=header.laszip or b""
    ) as stream:
        while data := stream.read(BLOCK_POINTS * record.itemsize):
            yield np.frombuffer(data, record), None
