"""The tables of a release as compact columns: all that planning asks of them, in about 120 bytes a sensor's file.

The devkit keeps every row as a dictionary: many gigabytes for trainval. Here a token becomes 64 bits, a link the number
of the row it leads to, a pose seven floats and a file name the number of its pattern, because names differ only in the
timestamp they hold. Rows that nobody asked for (radar, cameras that are not wanted, frames between the keyframes) are
not kept. What a table lacks costs what refers to it, no more: rows that are damaged or refer to nothing are noted in
`Index.lost`. Only tokens that are given twice make a table useless, which is an error that names it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.nuscenes.tables import DATASET, Lost, Row, key, scan
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

Wanted = Callable[[str, bool], bool]
"""(channel, is it a keyframe) -> whether planning needs the row."""
NO_ROW, LOST_ROW = -1, -2
_POSES = 1 << 16  # rows of ego_pose.json that are looked up together


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A row of calibrated_sensor.json with its channel; values as the table has them, `read` checks them."""

    channel: str
    rotation: Any
    translation: Any
    intrinsics: Any


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row of sample.json: a keyframe of all sensors."""

    token: str
    next: str
    scene: str


@dataclass
class _Frames:
    """Columns of sample_data.json while they grow; `array` doubles as little as it can."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    poses: array[int] = field(default_factory=lambda: array("Q"))
    before: array[int] = field(default_factory=lambda: array("Q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    samples: array[int] = field(default_factory=lambda: array("i"))
    mounts: array[int] = field(default_factory=lambda: array("i"))
    patterns: array[int] = field(default_factory=lambda: array("i"))
    widths: array[int] = field(default_factory=lambda: array("i"))
    heights: array[int] = field(default_factory=lambda: array("i"))
    is_key: array[int] = field(default_factory=lambda: array("b"))


class Index:
    """The tables of one release, loaded by the constructor.

    Args:
        store: the dataset's root.
        version: folder of the tables.
        wanted: which rows of sample_data.json to keep.

    Attributes:
        scenes: (name, token, token of its first sample) in the table's order.
        samples: rows of sample.json; `sample_number` leads from token to position.
        mounts: rows of calibrated_sensor.json.
        time_us, sample, mount, is_key: int64, int32, int32, bool (n,), of each row that was kept.
        before: int32 (n,), the row that `prev` names; NO_ROW at the beginning, LOST_ROW if it was not kept.
        lost: table -> what of it is missing, damaged, or refers to rows that do not exist.

    Raises:
        RawDataError: a token is given twice.
    """

    def __init__(self, store: Store, version: str, wanted: Wanted) -> None:
        self.store, self.version = store, version
        self.lost: dict[str, Lost] = {}
        self.scenes: list[tuple[str, str, str]] = []
        self.samples: list[Sample] = []
        self.mounts: list[Mount] = []
        self._patterns: list[tuple[str, str]] = []
        self._scan("scene", lambda row: self.scenes.append(_texts(row, "name", "token", "first_sample_token")))
        self._scan("sample", lambda row: self.samples.append(_sample(row)))
        self.sample_number = {sample.token: number for number, sample in enumerate(self.samples)}
        mount_number = self._load_mounts()
        frames = self._load_frames(mount_number, wanted)
        self.time_us = np.frombuffer(frames.times, np.int64)
        self.sample = np.frombuffer(frames.samples, np.int32)
        self.mount = np.frombuffer(frames.mounts, np.int32)
        self.is_key = np.frombuffer(frames.is_key, np.bool_)
        self._size = np.stack([np.frombuffer(side, np.int32) for side in (frames.widths, frames.heights)], axis=1)
        self._pattern = np.frombuffer(frames.patterns, np.int32)
        self._keys = np.frombuffer(frames.keys, np.uint64)
        self._order = np.argsort(self._keys, kind="stable")
        self._sorted = self._keys[self._order]
        if bool((self._sorted[1:] == self._sorted[:-1]).any()):
            raise self._error("sample_data", "two rows have the same token")
        before = np.frombuffer(frames.before, np.uint64)
        self.before = self._rows(before)
        self.before[(self.before == NO_ROW) & (before != np.uint64(key("")))] = LOST_ROW
        self._pose, self._poses = self._load_poses(np.frombuffer(frames.poses, np.uint64))

    def __len__(self) -> int:
        return len(self.time_us)

    def channel(self, row: int) -> str:
        mount: int = self.mount[row]
        return self.mounts[mount].channel

    def filename(self, row: int) -> str:
        head, tail = self._patterns[self._pattern[row]]
        return f"{head}{self.time_us[row]}{tail}" if head else tail

    def rows(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """Row of each token of sample_data, NO_ROW if it was not kept."""
        return self._rows(np.fromiter(map(key, tokens), np.uint64, len(tokens)))

    def sensor(self, row: int) -> dict[str, Any]:
        """What `read` has to know of a row, as plain data; raises LookupError if its pose is in no table."""
        mount, pose = self.mounts[self.mount[row]], self._pose[row]
        if pose == NO_ROW:
            raise LookupError(f"the ego_pose_token of {self.filename(row)} is in no row of ego_pose.json")
        numbers = self._poses[pose].tolist()
        return {
            "timestamp_ns": int(self.time_us[row]) * 1000,
            "size": self._size[row].tolist(),
            "intrinsics": mount.intrinsics,
            "ego_from_sensor": {"rotation": mount.rotation, "translation": mount.translation},
            "global_from_ego": {"rotation": numbers[:4], "translation": numbers[4:]},
        }

    def keyframes(self, channel: str) -> NDArray[np.int32]:
        """Row of each sample's keyframe of a channel, int32 (samples,), NO_ROW where there is none."""
        rows = np.full(len(self.samples), NO_ROW, np.int32)
        chosen = np.flatnonzero(self.is_key & self._of_channel(channel))
        rows[self.sample[chosen]] = chosen
        return rows

    def in_time_order(self, channel: str) -> dict[str, NDArray[np.int64]]:
        """Scene token -> rows of a channel, keyframes and those between, by their times."""
        chosen = np.flatnonzero(self._of_channel(channel))
        tokens = sorted({sample.scene for sample in self.samples})
        number = {token: n for n, token in enumerate(tokens)}
        scenes = np.array([number[sample.scene] for sample in self.samples], np.int64)[self.sample[chosen]]
        order = np.lexsort((self.time_us[chosen], scenes))
        bounds = np.searchsorted(scenes[order], np.arange(len(tokens) + 1))
        return {t: chosen[order[a:b]] for t, a, b in zip(tokens, bounds[:-1], bounds[1:], strict=True) if a < b}

    def _of_channel(self, channel: str) -> NDArray[np.bool_]:
        mine = np.array([mount.channel == channel for mount in self.mounts], np.bool_)
        return mine[self.mount] if len(self) else np.zeros(0, np.bool_)

    def _scan(self, table: str, take: Callable[[Row], object]) -> None:
        scan(self.store, f"{self.version}/{table}.json", take, self.lost.setdefault(table, Lost()))

    def _error(self, table: str, problem: str) -> RawDataError:
        hint = "unpack the metadata again"
        return RawDataError(problem, dataset=DATASET, path=f"{self.version}/{table}.json", hint=hint)

    def _rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        return _find(keys, self._sorted, self._order)

    def _load_mounts(self) -> dict[str, int]:
        """Fills `mounts`; returns token -> position."""
        channels: dict[str, str] = {}
        numbers: dict[str, int] = {}
        self._scan("sensor", lambda row: channels.update([_texts(row, "token", "channel")]))

        def take(row: Row) -> None:
            (token,) = _texts(row, "token")
            mount = Mount(
                channel=channels.get(row["sensor_token"], ""), rotation=row["rotation"],
                translation=row["translation"], intrinsics=row["camera_intrinsic"],
            )  # fmt: skip
            if not mount.channel:
                raise ValueError("its sensor_token is in no row of sensor.json")
            numbers[token] = len(self.mounts)
            self.mounts.append(mount)

        self._scan("calibrated_sensor", take)
        return numbers

    def _load_frames(self, mount_number: dict[str, int], wanted: Wanted) -> _Frames:
        frames = _Frames()
        pattern_number: dict[tuple[str, str], int] = {}

        def take(row: Row) -> None:
            mount = mount_number.get(row["calibrated_sensor_token"])
            if mount is None:
                raise ValueError("its calibrated_sensor_token is in no row of calibrated_sensor.json")
            is_key = bool(row["is_key_frame"])
            if not wanted(self.mounts[mount].channel, is_key):
                return
            sample = self.sample_number.get(row["sample_token"])
            if sample is None:
                raise ValueError("its sample_token is in no row of sample.json")
            time = row["timestamp"]
            if type(time) is not int or not 0 <= time * 1000 < 1 << 63:
                raise ValueError(f"the timestamp {str(time)[:40]} is no time in microseconds")
            pattern = _pattern(row["filename"], time)
            tokens = [key(row[name]) for name in ("token", "ego_pose_token", "prev")]
            width, height = array("i", [row["width"], row["height"]])
            # From here on nothing can fail: the columns grow together.
            frames.keys.append(tokens[0])
            frames.poses.append(tokens[1])
            frames.before.append(tokens[2])
            frames.times.append(time)
            frames.samples.append(sample)
            frames.mounts.append(mount)
            frames.patterns.append(pattern_number.setdefault(pattern, len(pattern_number)))
            frames.widths.append(width)
            frames.heights.append(height)
            frames.is_key.append(is_key)

        self._scan("sample_data", take)
        self._patterns = list(pattern_number)
        return frames

    def _load_poses(self, wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """(row of the poses for each key that is wanted, poses (m, 7) as w x y z of the rotation and translation)."""
        keys = np.unique(wanted)
        poses = np.full((len(keys), 7), np.nan)
        found = np.zeros(len(keys), np.bool_)
        order = np.arange(len(keys))
        tokens, numbers = array("Q"), array("d")

        def settle() -> None:
            rows = _find(np.frombuffer(tokens, np.uint64), keys, order)
            mine, rows = rows != NO_ROW, rows[rows != NO_ROW]
            if len(np.unique(rows)) < len(rows) or found[rows].any():
                raise self._error("ego_pose", "two rows have the same token")
            poses[rows] = np.frombuffer(numbers, np.float64).reshape(-1, 7)[mine]
            found[rows] = True

        def take(row: Row) -> None:
            rotation, translation = row["rotation"], row["translation"]
            if len(rotation) != 4 or len(translation) != 3:
                raise ValueError("expected a rotation of 4 numbers and a translation of 3")
            token, pose = key(row["token"]), array("d", [*rotation, *translation])
            numbers.extend(pose)
            tokens.append(token)
            if len(tokens) == _POSES:
                settle()
                del tokens[:], numbers[:]

        self._scan("ego_pose", take)
        settle()
        rows = _find(wanted, keys, order)
        rows[~found[rows]] = NO_ROW
        return rows, poses


def _find(keys: NDArray[np.uint64], ordered: NDArray[np.uint64], order: NDArray[np.int64]) -> NDArray[np.int32]:
    """Position of each key, NO_ROW where it is unknown; `ordered` is what `order` makes of the known keys."""
    if not len(ordered):
        return np.full(len(keys), NO_ROW, np.int32)
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[places] == keys, order[places], NO_ROW).astype(np.int32)


def _texts(row: Row, *names: str) -> tuple[Any, ...]:
    values = tuple(row[name] for name in names)
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str):
            raise TypeError(f"{name} is no text: {str(value)[:40]!r}")
    return values


def _sample(row: Row) -> Sample:
    token, following, scene = _texts(row, "token", "next", "scene_token")
    return Sample(token=token, next=following, scene=scene)


def _pattern(filename: object, time: int) -> tuple[str, str]:
    """The name around its timestamp, or ("", name) if it holds none."""
    if not isinstance(filename, str):
        raise TypeError(f"filename is no text: {str(filename)[:40]!r}")
    head, found, tail = filename.rpartition(str(time))
    return (head, tail) if found and head else ("", filename)
