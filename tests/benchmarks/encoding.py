"""Bytes a point and decoding speed of every field as we store it, beside the usual ways, with the error each one makes.

Decoding starts from bytes in memory and ends in an array of the type a training loop asks for (xyz and normals float32,
colours uint8, labels int16), on one thread. Output buffers are reused wherever a library can write into the caller's
memory, so nobody is charged for fresh pages without need; npz, Parquet and LAZ hand out memory of their own. "codes"
rows end in the integers as stored: that is what the stream gives, dequantising is left to the training device.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import laspy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from brickyard.shards import codecs
from brickyard.shards.codecs import Compressor, Quantised, Spec
from brickyard.shards.encode import XYZ_STEPS
from brickyard.shards.scene import Scene
from tests.benchmarks.material import LABELS, Material, material
from tests.benchmarks.report import append, arguments, seconds, table

Array = NDArray[Any]


@dataclass(frozen=True)
class Encoding:
    """A way to store one field: `encode(array)` gives bytes and a function that decodes them again and again."""

    name: str
    encode: Callable[[Array], tuple[int, Callable[[], Array]]]


def npy(values: Array, dtype: str | None = None) -> tuple[int, Callable[[], Array]]:
    """Plain .npy, of another dtype perhaps; decoding is a copy (and a cast) into a reused array."""
    stored, out = values if dtype is None else values.astype(dtype), np.empty_like(values)
    file = io.BytesIO()
    np.save(file, stored)
    data = file.getvalue()
    start = len(data) - stored.nbytes

    def decode() -> Array:
        np.copyto(out, np.frombuffer(data, stored.dtype, offset=start).reshape(stored.shape), casting="unsafe")
        return out

    return len(data), decode


def npz(values: Array) -> tuple[int, Callable[[], Array]]:
    """numpy's own compressed file (deflate, level 6)."""
    file = io.BytesIO()
    np.savez_compressed(file, values)
    data = file.getvalue()
    return len(data), lambda: np.load(io.BytesIO(data))["arr_0"]


def half(values: Array) -> tuple[int, Callable[[], Array]]:
    """float16 around the centre, the usual way to halve coordinates."""
    centre = ((values.min(axis=0) + values.max(axis=0)) / 2).astype(np.float32)
    stored, out = (values - centre).astype(np.float16), np.empty_like(values)

    def decode() -> Array:
        np.copyto(out, stored)
        return np.add(out, centre, out=out)

    return stored.nbytes, decode


def parquet(values: Array) -> tuple[int, Callable[[], Array]]:
    """One plain column for each component, all of pyarrow's defaults (snappy, dictionary)."""
    columns = values.reshape(len(values), -1)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({f"c{i}": np.ascontiguousarray(c) for i, c in enumerate(columns.T)}), sink)
    data, out = sink.getvalue(), np.empty_like(columns)

    def decode() -> Array:
        read = pq.read_table(pa.BufferReader(data), use_threads=False)
        for number, column in enumerate(read.columns):
            out[:, number] = column.to_numpy()
        return out.reshape(values.shape)

    return data.size, decode


def laz(values: Array, *, steps: tuple[float, ...]) -> tuple[int, Callable[[], Array]]:
    """LAZ at the step that our codec takes, point format 0 (its other attributes are constant and cost little)."""
    step = codecs.encode_quantised(values, steps)[1]["step"]
    header = laspy.LasHeader(point_format=0, version="1.2")
    header.scales, header.offsets = np.full(3, step), np.floor(values.min(axis=0))
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = values.astype(np.float64).T
    file = io.BytesIO()
    cloud.write(file, do_compress=True, laz_backend=laspy.LazBackend.Lazrs)
    data, out = file.getvalue(), np.empty_like(values)

    def decode() -> Array:
        read = laspy.read(io.BytesIO(data), laz_backend=laspy.LazBackend.Lazrs)
        for number, axis in enumerate((read.x, read.y, read.z)):
            out[:, number] = axis
        return out

    return len(data), decode


def ours(
    values: Array, encoder: Callable[[Array, Compressor], tuple[bytes, Spec]], compressor: Compressor, finish: bool
) -> tuple[int, Callable[[], Array]]:
    """A codec of `shards.codecs`, decoded into buffers that are used again as the stream's are."""
    blob, spec = encoder(values, compressor)
    buffers = [np.empty(values.nbytes + 64, np.uint8) for _ in range(3)]

    def decode() -> Array:
        free = iter(buffers)
        result = codecs.decode(spec, blob, lambda size: next(free).data[:size])
        return result.dequantise() if finish and isinstance(result, Quantised) else result

    return len(blob), decode


def own(encoder: Callable[[Array, Compressor], tuple[bytes, Spec]], *, codes: bool = False) -> list[Encoding]:
    """Our rows of a table: both compressors, and the undequantised codes where a field has them."""
    rows = []
    for compressor in ("zstd", "lz4"):
        name = f"brickyard {compressor}"
        rows.append(Encoding(name, partial(ours, encoder=encoder, compressor=compressor, finish=True)))
        if codes:
            rows.append(Encoding(f"{name}, codes", partial(ours, encoder=encoder, compressor=compressor, finish=False)))
    return rows


def xyz_encodings(domain: str) -> list[Encoding]:
    common = [Encoding("npy float32", npy), Encoding("npz float32", npz), Encoding("float16, centred", half)]
    steps = XYZ_STEPS[domain]
    same_step = [Encoding("LAZ, our step", partial(laz, steps=steps))]
    same_step += own(partial(_quantised, steps=steps), codes=True)
    return [*common, Encoding("Parquet columns", parquet), *same_step]


def _quantised(values: Array, compressor: Compressor, *, steps: tuple[float, ...]) -> tuple[bytes, Spec]:
    return codecs.encode_quantised(values, steps, compressor)


def fields(rooms: Material, sweeps: Material) -> list[tuple[str, list[Array], list[Encoding]]]:
    """(title, the arrays of all scenes, encodings), one entry a table."""

    def points(scenes: tuple[Scene, ...], name: str) -> list[Array]:
        found = [getattr(scene.points, name) for scene in scenes if scene.points is not None]
        return [values for values in found if values is not None]

    labels = [scene.points.semantic[LABELS] for scene in rooms.scenes if scene.points is not None]
    exact = [Encoding("npz", npz), Encoding("Parquet columns", parquet)]
    half_normals = Encoding("npy float16", partial(npy, dtype="float16"))
    wide = Encoding("npy int64", partial(npy, dtype="int64"))
    array, palette, octahedral = codecs.encode_array, codecs.encode_palette, codecs.encode_octahedral
    return [
        ("xyz, rooms", points(rooms.scenes, "xyz"), xyz_encodings("indoor")),
        ("xyz, lidar", points(sweeps.scenes, "xyz"), xyz_encodings("outdoor")),
        ("colour", points(rooms.scenes, "color"), [Encoding("npy uint8", npy), *exact, *own(array)]),
        ("normal", points(rooms.scenes, "normal"),
         [Encoding("npy float32", npy), half_normals, *exact, *own(octahedral)]),
        ("labels", labels, [wide, Encoding("npy int16", npy), *exact, *own(array)]),
        ("intensity, lidar", points(sweeps.scenes, "intensity"), [Encoding("npy float32", npy), *exact, *own(palette)]),
    ]  # fmt: skip


def error(field: str, truth: Array, decoded: Array) -> float:
    """Largest error: millimetres of one coordinate (xyz), degrees (normals), else the largest difference."""
    if field == "normal":
        wanted, found = truth.astype(np.float64), decoded.astype(np.float64)
        crossed, along = np.linalg.norm(np.cross(wanted, found), axis=1), (wanted * found).sum(axis=1)
        return float(np.degrees(np.arctan2(crossed, along)).max())
    difference = float(np.abs(truth.astype(np.float64) - decoded.astype(np.float64)).max())
    return difference * 1000 if field.startswith("xyz") else difference


def measure(field: str, arrays: list[Array], encoding: Encoding, window: float) -> dict[str, Any]:
    """One row: all scenes encoded one by one, decoded in turn."""
    encoded = [encoding.encode(values) for values in arrays]
    count = sum(len(values) for values in arrays)
    codes = encoding.name.endswith("codes")
    worst = None if codes else max(error(field, a, d()) for a, (_, d) in zip(arrays, encoded, strict=True))
    took = seconds(lambda: [decode() for _, decode in encoded], window=window)
    return {
        "field": field,
        "encoding": encoding.name,
        "bytes_per_point": sum(size for size, _ in encoded) / count,
        "million_points_per_second": count / took / 1e6,
        "max_error": worst,
    }


def run(*, milliseconds: int = 300, dry: bool = False) -> list[dict[str, Any]]:
    """Measure every field, print the tables, append the record."""
    rooms, sweeps = material("scannet"), material("nuscenes")
    print(f"encoding: {rooms.origin}; {sweeps.origin}; one thread")
    units = {"xyz": "mm", "normal": "degrees"}
    rows = []
    for field, arrays, encodings in fields(rooms, sweeps):
        part = [measure(field, arrays, encoding, milliseconds / 1000) for encoding in encodings]
        unit = units.get(field.partition(",")[0], "units")
        table(
            f"{field}: {sum(map(len, arrays)):,} points", part,
            {"encoding": "s encoding", "bytes_per_point": ".3f B/point",
             "million_points_per_second": ".1f M points/s", "max_error": f".3g max error, {unit}"},
        )  # fmt: skip
        rows += part
    if not dry:
        append("encoding", {"milliseconds": milliseconds}, rows, material=[rooms.origin, sweeps.origin])
    return rows


if __name__ == "__main__":
    options = arguments(__doc__, milliseconds=300).parse_args()
    run(**vars(options))
