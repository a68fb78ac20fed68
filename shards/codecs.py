"""Arrays <-> blobs, each with a small JSON-like spec that says how to read it back and how exact it is.

| codec      | used for                        | error                                   |
|------------|---------------------------------|-----------------------------------------|
| raw        | images, exactly as shipped      | none                                    |
| array      | colours, labels, rings, times   | none                                    |
| quantised  | xyz, depths of correspondences  | half a step, recorded as `bound`        |
| palette    | values that repeat: intensities | none                                    |
| octahedral | unit vectors in two bytes       | 0.67 degrees                            |
| rows       | superpixels, depth images       | none (differences between rows)         |
| labels     | label images, -1 is unlabelled  | none (rows of label + 1)                |
| pairs      | correspondences, sorted         | none (differences between neighbours)   |

Compression is Blosc (byte shuffle over whole records, then zstd or lz4) by `numcodecs`, which decodes into the caller's
memory and releases the GIL. Declared sizes are compared with the spec before any memory is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numcodecs import blosc
from numcodecs.blosc import Blosc
from numpy.typing import NDArray

from brickyard.shards.errors import NONSENSE
from brickyard.shards.octahedral import decode_normals, encode_normals

blosc.use_threads = False  # threads belong to the stream; one blob is decoded by one thread, the same way every time

Spec = dict[str, Any]
Blob = bytes | bytearray | memoryview
Allocate = Callable[[int], memoryview]
Compressor = Literal["zstd", "lz4"]

MAX_FIELD_BYTES = 2**31 - 1024
"""Largest decoded field; a spec that asks for more is refused before memory is taken."""

_BLOSC_OVERHEAD = 16


class CodecError(ValueError):
    """A blob that does not fit its spec; callers add shard, scene and field."""


def fresh(size: int) -> memoryview:
    """The default allocator: new memory. The stream passes one that reuses buffers instead."""
    return np.empty(size, np.uint8).data


# Encoders: array -> (blob, spec)


def encode_raw(data: bytes) -> tuple[bytes, Spec]:
    return data, {"codec": "raw", "size": len(data)}


def encode_array(values: NDArray[Any], compressor: Compressor = "zstd") -> tuple[bytes, Spec]:
    """Any array, exactly. Records (the last axis) are shuffled as a whole."""
    values = np.ascontiguousarray(values)
    return _compress(values, compressor), {"codec": "array", "dtype": values.dtype.str, "shape": list(values.shape)}


def encode_quantised(
    values: NDArray[np.floating[Any]], steps: tuple[float, ...], compressor: Compressor = "zstd"
) -> tuple[bytes, Spec]:
    """Floats as multiples of a step from their minimum.

    Args:
        values: (N,) or (N, 3), finite.
        steps: allowed steps, powers of two, finest first. The first whose span fits 16 bits is taken; if none does, the
            first step with 32 bits. Nothing is ever clipped. Steps and origins that are binary fractions make
            code * step + origin exact in float32, on every device.
    """
    if not np.isfinite(values).all():
        raise CodecError("values that are not finite cannot be quantised")
    exact = values.astype(np.float64)
    columns = exact[:, None] if exact.ndim == 1 else exact
    lowest = columns.min(axis=0) if len(columns) else np.zeros(columns.shape[1])
    span = float((columns - lowest).max()) if columns.size else 0.0
    step = next((s for s in steps if span / s <= 65534), steps[0])
    if span / step > 2**32 - 2:
        raise CodecError(f"a span of {span:.3g} m does not fit 32 bits at a step of {step} m")
    dtype = np.uint16 if span / step <= 65534 else np.uint32
    origin = np.floor(lowest / step) * step
    codes = np.rint((columns - origin) / step).astype(dtype).reshape(values.shape)
    blob, spec = encode_array(codes, compressor)
    return blob, spec | {"codec": "quantised", "origin": origin.tolist(), "step": step, "bound": step / 2}


def encode_palette(values: NDArray[np.float32], compressor: Compressor = "zstd") -> tuple[bytes, Spec]:
    """Floats exactly: as indices into the table of their distinct values where these are few, else as they are."""
    table, codes = np.unique(values, return_inverse=True)
    if len(table) > 256 or not np.isfinite(table).all():
        return encode_array(values, compressor)
    blob, spec = encode_array(codes.astype(np.uint8), compressor)
    return blob, spec | {"codec": "palette", "table": [float(v) for v in table]}


def encode_octahedral(normals: NDArray[np.float32], compressor: Compressor = "zstd") -> tuple[bytes, Spec]:
    """Unit vectors (N, 3) in two bytes each; (0, 0, 0) is kept."""
    blob, spec = encode_array(encode_normals(normals), compressor)
    return blob, spec | {"codec": "octahedral", "bound_degrees": 0.67}


def encode_rows(image: NDArray[np.uint16], compressor: Compressor = "zstd") -> tuple[bytes, Spec]:
    """A label or depth image (H, W): differences to the row above, in 8 bits where they suffice."""
    narrow = image.astype(np.uint8) if image.size and int(image.max()) < 256 else image
    change = np.diff(narrow, axis=0, prepend=np.zeros((1, image.shape[1]), narrow.dtype))
    blob, spec = encode_array(change.astype(narrow.dtype), compressor)
    return blob, spec | {"codec": "rows"}


def encode_labels(image: NDArray[np.int16], compressor: Compressor = "zstd") -> tuple[bytes, Spec]:
    """An image (H, W) of class ids from -1."""
    blob, spec = encode_rows((image + np.int16(1)).view(np.uint16), compressor)
    return blob, spec | {"codec": "labels"}


def encode_pairs(
    point: NDArray[np.int32], pixel: NDArray[np.uint16], visible: NDArray[np.bool_], compressor: Compressor = "zstd"
) -> tuple[bytes, Spec]:
    """P correspondences sorted by point: differences of point index, column and row, and one bit of visibility."""
    gaps = np.diff(point.astype(np.uint32), prepend=np.uint32(0)).astype(np.uint32)
    moves = np.diff(pixel, axis=0, prepend=np.zeros((1, 2), np.uint16)).astype(np.uint16)
    planes = [gaps.view(np.uint8).reshape(-1, 4).T, moves.view(np.uint8).reshape(-1, 4).T]
    flat = np.concatenate([np.ascontiguousarray(p).ravel() for p in planes] + [np.packbits(visible)])
    blob, spec = encode_array(flat, compressor)
    return blob, spec | {"codec": "pairs", "count": len(point)}


# Decoder


def decode(spec: Mapping[str, Any], blob: Blob, allocate: Allocate = fresh) -> Any:
    """The value of a blob, in memory from `allocate`.

    Returns:
        raw: the blob itself. quantised: `Quantised`. pairs: `Pairs`. All others: an array.

    Raises:
        CodecError: the blob does not fit the spec, or the spec is nonsense.
    """
    codec = spec.get("codec")
    if codec == "raw":
        if len(blob) != spec.get("size"):
            raise CodecError(f"{len(blob)} bytes where {spec.get('size')} were written")
        return blob
    values = _decompress(spec, blob, allocate)
    if codec == "array":
        return values
    if codec == "quantised":
        return _decode_quantised(spec, values, allocate)
    if codec == "palette":
        table = np.asarray(spec["table"], np.float32)
        if values.dtype != np.uint8 or table.ndim != 1 or (values.size and int(values.max()) >= len(table)):
            raise CodecError("palette codes point outside their table")
        return np.take(table, values, out=_array(np.dtype(np.float32), values.shape, allocate), mode="clip")
    if codec == "octahedral":
        if values.dtype != np.int8 or values.ndim != 2 or values.shape[1] != 2:
            raise CodecError("octahedral codes must be int8 (N, 2)")
        return decode_normals(values, _array(np.dtype(np.float32), (len(values), 3), allocate))
    if codec == "rows":
        return _decode_rows(values, allocate)
    if codec == "labels":
        labels = _decode_rows(values, allocate).view(np.int16)
        labels -= np.int16(1)
        return labels
    if codec == "pairs":
        return _decode_pairs(values, int(spec["count"]))
    raise CodecError(f"unknown codec {codec!r}")


class Pairs(NamedTuple):
    """Correspondences of a view: point int32 (P,), pixel uint16 (P, 2) as (column, row), visible bool (P,)."""

    point: NDArray[np.int32]
    pixel: NDArray[np.uint16]
    visible: NDArray[np.bool_]


class Quantised:
    """Integers that stand for floats: value = origin + code * step.

    Attributes:
        values: uint16 or uint32 (N,) or (N, 3).
        origin: float64 (1,) or (3,).
        step: float.
    """

    __slots__ = ("_allocate", "_floats", "origin", "step", "values")

    def __init__(
        self, values: NDArray[Any], origin: NDArray[np.float64], step: float, allocate: Allocate = fresh
    ) -> None:
        self.values, self.origin, self.step, self._allocate = values, origin, step, allocate
        self._floats: NDArray[np.float32] | None = None

    def __reduce__(self) -> tuple[type[Quantised], tuple[Any, ...]]:
        return Quantised, (np.array(self.values), self.origin, self.step)

    def __len__(self) -> int:
        return len(self.values)

    def dequantise(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """float32 array of the shape of `values`, equal to float64 arithmetic rounded once.

        Without `out` it is computed once, into memory from where that of `values` came from (in a stream: buffers that
        are reused once nobody holds the array any more), and is the same array every time.
        """
        if out is None:
            if self._floats is None:
                empty = _array(np.dtype(np.float32), self.values.shape, self._allocate)
                self._floats = self.dequantise(empty)
            return self._floats
        origin = self.origin if self.values.ndim == 2 else self.origin[:1]
        # 16-bit codes of a power-of-two step and an origin that is a multiple of it: every sum is exact in float32
        if self.values.dtype == np.uint16 and float(np.abs(origin).max()) / self.step + 65536 < 2**24:
            _dequantise_exact(self.values.reshape(-1), self.step, origin.astype(np.float32), out.reshape(-1))
        else:
            np.copyto(out, self.values * self.step + origin, casting="same_kind")
        return out


def _dequantise_exact(codes: NDArray[Any], step: float, origin: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """out = codes * step + origin, in blocks that stay in the cache, the origin repeated so that no axis broadcasts."""
    block = 8192 * len(origin)
    repeated = np.tile(origin, 8192)
    for start in range(0, len(codes), block):
        part = out[start : start + block]
        np.multiply(codes[start : start + block], np.float32(step), out=part, dtype=np.float32)
        np.add(part, repeated[: len(part)], out=part)


def _compress(values: NDArray[Any], compressor: Compressor) -> bytes:
    if values.size == 0:
        return b""
    record = values.ndim == 2 and values.shape[1] <= 4
    width = values.itemsize * values.shape[1] if record else values.itemsize
    codec = Blosc(cname=compressor, clevel=5, shuffle=Blosc.SHUFFLE if width > 1 else Blosc.NOSHUFFLE)
    return bytes(codec.encode(values.reshape(-1).view(np.dtype(f"V{width}")) if width > 1 else values.reshape(-1)))


def _decompress(spec: Mapping[str, Any], blob: Blob, allocate: Allocate) -> NDArray[Any]:
    name = str(spec.get("dtype"))
    if not re.fullmatch(r"[<>|=]?[iufb][1248]", name):
        raise CodecError(f"refused dtype {name[:40]!r}")
    dtype = np.dtype(name)
    try:
        shape = tuple(int(n) for n in spec["shape"])
    except NONSENSE as problem:
        raise CodecError(f"unreadable shape: {problem}") from problem
    size = math.prod(shape) * dtype.itemsize
    if len(shape) > 4 or min(shape, default=0) < 0 or size > MAX_FIELD_BYTES:
        raise CodecError(f"refused shape {str(shape)[:80]} of {dtype}")
    out = _array(dtype, shape, allocate)
    if size == 0:
        if len(blob):
            raise CodecError(f"{len(blob)} bytes where none were written")
        return out
    view = memoryview(blob)
    declared = int.from_bytes(view[4:8], "little") if len(view) >= _BLOSC_OVERHEAD else -1
    if declared != size or int.from_bytes(view[12:16], "little") != len(view):
        raise CodecError(f"the blob declares {declared} bytes of content where {size} were written")
    try:
        Blosc().decode(view, out=out.reshape(-1).view(np.uint8))
    except (RuntimeError, ValueError) as problem:
        raise CodecError(f"the blob cannot be decompressed: {problem}") from problem
    return out


def _array(dtype: np.dtype[Any], shape: tuple[int, ...], allocate: Allocate) -> NDArray[Any]:
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(allocate(size), dtype=dtype, count=math.prod(shape)).reshape(shape)


def _decode_quantised(spec: Mapping[str, Any], values: NDArray[Any], allocate: Allocate) -> Quantised:
    try:
        origin, step = np.asarray(spec["origin"], np.float64), float(spec["step"])
    except NONSENSE as problem:
        raise CodecError(f"unreadable origin or step: {problem}") from problem
    width = 1 if values.ndim == 1 else values.shape[-1]
    sound = values.dtype in (np.uint16, np.uint32) and values.ndim in (1, 2) and origin.shape == (width,)
    if not (sound and np.isfinite(origin).all() and math.isfinite(step) and step > 0):
        raise CodecError(
            f"{values.dtype} {values.shape} with origin {spec['origin']} and step {step} is no quantisation"
        )
    return Quantised(values, origin, step, allocate)


def _decode_rows(values: NDArray[Any], allocate: Allocate) -> NDArray[np.uint16]:
    if values.dtype not in (np.uint8, np.uint16) or values.ndim != 2:
        raise CodecError("an image of rows must be uint8 or uint16 (H, W)")
    np.add.accumulate(values, axis=0, out=values)
    if values.dtype == np.uint16:
        return values
    wide = _array(np.dtype(np.uint16), values.shape, allocate)
    np.copyto(wide, values)
    return wide


def _decode_pairs(flat: NDArray[np.uint8], count: int) -> Pairs:
    if len(flat) != 8 * count + (count + 7) // 8:
        raise CodecError(f"{len(flat)} bytes cannot hold {count} pairs")
    gaps = np.ascontiguousarray(flat[: 4 * count].reshape(4, count).T).view(np.uint32).reshape(count)
    moves = np.ascontiguousarray(flat[4 * count : 8 * count].reshape(4, count).T).view(np.uint16)
    point = np.add.accumulate(gaps, dtype=np.uint32).view(np.int32)
    pixel = np.add.accumulate(moves.reshape(count, 2), axis=0, dtype=np.uint16)
    visible = np.unpackbits(flat[8 * count :], count=count).view(np.bool_)
    return Pairs(point, pixel, visible)
