"""The text files of a walk: its trajectory, its semi-dense points, and what its instances are."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from brickyard.ingest.ase.camera import DEVICE_FROM_CAMERA, rigid
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import UNLABELLED, Float32, Float64
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "ase43"
TRAJECTORY, POINTS = "trajectory.csv", "semidense_points.csv.gz"
LANGUAGE = "ase_scene_language.txt"
MAX_LANGUAGE = 4 << 20
MAX_TRAJECTORY, MAX_NAMES, MAX_PACKED, MAX_POINTS_TEXT = 64 << 20, 4 << 20, 256 << 20, 2 << 30
MAX_INSTANCE = 65535
_COMMAND, _COORDINATE = re.compile(r"make_[a-z_]{1,30}"), re.compile(r"(?:a|b|position)_([xyz])")
_POSE = ("tx_world_device", "ty_world_device", "tz_world_device",
         "qx_world_device", "qy_world_device", "qz_world_device", "qw_world_device")  # fmt: skip


@dataclass(frozen=True)
class Trajectory:
    """Poses by frame: frame k is row k.

    Attributes:
        world_from_camera: float64 (N, 4, 4), NaN where a row holds no pose.
        timestamp_ns: int64 (N,).
    """

    world_from_camera: Float64
    timestamp_ns: NDArray[np.int64]


def read_trajectory(files: RawFiles, path: str, dropped: Counter[str]) -> Trajectory:
    """Raises `RawDataError` for a table without the columns or with nothing but impossible rows."""
    table = _table(files, path, files.read(path, MAX_TRAJECTORY), ("tracking_timestamp_us", *_POSE))
    numbers = np.stack([_numbers(files, path, table, name) for name in _POSE], axis=1)
    times = _numbers(files, path, table, "tracking_timestamp_us")
    length = np.linalg.norm(numbers[:, 3:], axis=1)
    good = np.isfinite(numbers).all(axis=1) & (np.abs(length - 1) < 1e-3) & np.isfinite(times) & (np.abs(times) < 2**52)
    if not good.any():
        raise files.error(path, "none of its rows holds a pose", hint="download it again")
    dropped["frame whose pose is impossible"] += int((~good).sum())
    poses = np.full((len(numbers), 4, 4), np.nan)
    poses[good] = rigid(numbers[good, 3:] / length[good, None], numbers[good, :3]) @ DEVICE_FROM_CAMERA
    return Trajectory(poses, np.where(good, times, 0).astype(np.int64) * 1000)


def read_semidense(files: RawFiles, path: str, options: dict[str, Any], dropped: Counter[str]) -> Float32:
    """Points float32 (N, 3) of the world, metres, in the order of the file, those that are precise enough."""
    names = ("px_world", "py_world", "pz_world", "inv_dist_std", "dist_std")
    table = _table(files, path, _inflated(files, path), names)
    numbers = np.stack([_numbers(files, path, table, name) for name in names], axis=1)
    known = np.isfinite(numbers).all(axis=1)
    precise = (numbers[:, 3] <= options["max_inverse_std"]) & (numbers[:, 4] <= options["max_std"])
    dropped["point that is no number"] += int((~known).sum())
    dropped["point that is not precise enough"] += int((known & ~precise).sum())
    return numbers[known & precise, :3].astype(np.float32)


def read_names(files: RawFiles, path: str, dropped: Counter[str]) -> NDArray[np.int16]:
    """Instance id -> class id, int16 (65536,); ids of unknown classes are unlabelled, and their classes counted."""
    data = files.read(path, MAX_NAMES)
    try:
        names = json.loads(data)
        entries = {int(key): str(name) for key, name in names.items()}
    except (ValueError, AttributeError, RecursionError) as problem:
        raise files.error(path, f"is no table of instances: {problem}"[:200], hint="download it again") from None
    ids, found = (
        {name: ident for ident, name in enumerate(taxonomy(TAXONOMY).classes)},
        np.full(MAX_INSTANCE + 1, UNLABELLED, np.int16),
    )
    for key, name in entries.items():
        if not 0 <= key <= MAX_INSTANCE:
            raise files.error(path, f"instance {key} does not fit into 16 bits")
        if name in ids:
            found[key] = ids[name]
        elif name != "empty_space":
            dropped[f"instance of the unknown class {name[:40]!r}"] += 1
    return found


def read_language(files: RawFiles, path: str, origin: Float64) -> list[dict[str, Any]]:
    """The commands that build the walls, doors and windows: [{"command": "make_wall", "id": 0.0, "a_x": ...}, ...].

    Coordinates are turned from the world's to those of the frame whose origin lies at (3,) of it; all else is as it
    stands there, in metres. Raises `RawDataError` for lines that are no commands.
    """
    text, commands = files.read(path, MAX_LANGUAGE).decode("utf-8", "replace"), []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        command, *settings = (word.strip() for word in line.split(","))
        try:
            values = {name.strip(): float(value) for name, value in (word.split("=") for word in settings)}
            if not _COMMAND.fullmatch(command) or not np.isfinite(list(values.values())).all():
                raise ValueError("no command")
        except ValueError:
            raise files.error(path, f"is no command: {line[:80]!r}", line=number, hint="download it again") from None
        for name in values:
            if (axis := _COORDINATE.fullmatch(name)) is not None:
                values[name] -= float(origin["xyz".index(axis[1])])
        commands.append({"command": command, **values})
    return commands


def _table(files: RawFiles, path: str, data: bytes, wanted: tuple[str, ...]) -> pa.Table:
    try:
        header = data[: data.index(b"\n")].decode("utf-8").strip().split(",")
        columns = [name.strip() for name in header]
        missing = [name for name in wanted if name not in columns]
        if missing:
            raise files.error(path, f"has no column {missing[0]}; its columns are {', '.join(columns)[:200]}", line=1)
        read = pc.ReadOptions(column_names=columns, skip_rows=1)
        types = dict.fromkeys(wanted, pa.float64())
        convert = pc.ConvertOptions(include_columns=list(wanted), column_types=types)
        return pc.read_csv(io.BytesIO(data), read_options=read, convert_options=convert)
    except (ValueError, UnicodeDecodeError, pa.ArrowInvalid, pa.ArrowException) as problem:
        hint = "download it again"
        raise files.error(path, f"is no table of numbers: {problem}"[:300], hint=hint) from None


def _numbers(files: RawFiles, path: str, table: pa.Table, name: str) -> Float64:
    """A column, NaN where it is empty."""
    del files, path
    values: Float64 = table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def _inflated(files: RawFiles, path: str) -> bytes:
    """The text of a gzip file, within limits."""
    packed = files.read(path, MAX_PACKED)
    stream = zlib.decompressobj(wbits=31)
    try:
        text = stream.decompress(packed, MAX_POINTS_TEXT)
    except zlib.error as problem:
        raise files.error(path, f"is a damaged gzip file: {problem}", hint="download it again") from None
    if not stream.eof:
        what = f"holds more than {MAX_POINTS_TEXT} bytes" if stream.unconsumed_tail else "ends in the middle"
        raise files.error(path, what, hint="download it again")
    return text
