"""Every codec gives back what it was given, within its recorded bound, whatever the input; damage is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brickyard.shards import codecs
from brickyard.shards.buffers import BufferPool, Lease
from brickyard.shards.octahedral import decode_normals, encode_normals

COMPRESSORS = st.sampled_from(["zstd", "lz4"])
COORDINATES = st.floats(-5e3, 5e3, width=32, allow_subnormal=False)


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 60), st.just(3)), elements=COORDINATES), COMPRESSORS)
def test_quantised_stays_within_its_bound_and_never_clips(xyz: np.ndarray, compressor: codecs.Compressor) -> None:
    blob, spec = codecs.encode_quantised(xyz, (1 / 512, 1 / 256), compressor)
    decoded = codecs.decode(spec, blob)
    assert spec["bound"] <= 1 / 512
    assert np.abs(decoded.dequantise().astype(np.float64) - xyz).max(initial=0) <= spec["bound"]


def test_dequantising_in_float32_equals_dequantising_in_float64() -> None:
    xyz = np.random.default_rng(0).uniform(-90, 90, (5000, 3)).astype(np.float32)
    value = codecs.decode(*reversed(codecs.encode_quantised(xyz, (1 / 512, 1 / 256))))
    assert np.array_equal((value.values * value.step + value.origin).astype(np.float32), value.dequantise())
    single = value.values.astype(np.float32) * np.float32(value.step) + value.origin.astype(np.float32)
    assert np.array_equal(single, value.dequantise(np.empty_like(single)))


def test_indoor_error_is_at_most_half_a_millimetre() -> None:
    xyz = np.random.default_rng(0).uniform(0, 60, (20000, 3)).astype(np.float32)
    blob, spec = codecs.encode_quantised(xyz, (1 / 1024,))
    assert spec["dtype"] == "<u2"
    assert np.abs(codecs.decode(spec, blob).dequantise() - xyz.astype(np.float64)).max() <= 0.0005


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(codecs.CodecError, match="finite"):
        codecs.encode_quantised(np.array([[0, np.nan, 0]], np.float32), (1 / 1024,))


def test_octahedral_error_is_at_most_two_thirds_of_a_degree() -> None:
    normals = np.random.default_rng(1).normal(size=(200_000, 3))
    normals = np.concatenate([normals, np.eye(3), -np.eye(3), [[1, 1, 0], [-1, 0, -1], [1, 1, -1]]])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    decoded = decode_normals(encode_normals(normals.astype(np.float32))).astype(np.float64)
    sine = np.linalg.norm(np.cross(normals, decoded), axis=1)
    assert np.degrees(np.arcsin(sine)).max() <= 0.67
    assert (np.einsum("nc,nc->n", normals, decoded) > 0).all()


def test_octahedral_keeps_the_points_without_a_normal() -> None:
    assert not decode_normals(encode_normals(np.zeros((2, 3), np.float32))).any()


@given(hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(-1e6, 1e6, width=32)))
def test_palette_is_exact(values: np.ndarray) -> None:
    blob, spec = codecs.encode_palette(values)
    assert np.array_equal(codecs.decode(spec, blob), values)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.uint16, np.float32]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
        elements=st.integers(0, 100),
    ),
    COMPRESSORS,
)
def test_array_is_exact(values: np.ndarray, compressor: codecs.Compressor) -> None:
    blob, spec = codecs.encode_array(values, compressor)
    assert np.array_equal(codecs.decode(spec, blob), values)


@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)),
    st.sampled_from([255, 65535]),
)
def test_rows_are_exact(image: np.ndarray, top: int) -> None:
    image = np.minimum(image, top).astype(np.uint16)
    blob, spec = codecs.encode_rows(image)
    assert np.array_equal(codecs.decode(spec, blob), image)


@given(st.integers(0, 200), st.integers(0, 2**32))
def test_pairs_are_exact(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = np.sort(rng.choice(2**20, count, replace=False)).astype(np.int32)
    pixel = rng.integers(0, 65536, (count, 2)).astype(np.uint16)
    visible = rng.random(count) < 0.5
    blob, spec = codecs.encode_pairs(point, pixel, visible)
    for got, want in zip(codecs.decode(spec, blob), (point, pixel, visible), strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)


@settings(max_examples=200)
@given(st.data())
def test_damaged_blobs_raise_codec_errors_only(data: st.DataObject) -> None:
    blob, spec = codecs.encode_array(np.arange(500, dtype=np.int32).reshape(-1, 2))
    damaged = bytearray(blob)
    kind = data.draw(st.sampled_from(["flip", "cut", "extend"]))
    place = data.draw(st.integers(0, len(blob) - 1))
    if kind == "flip":
        damaged[place] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del damaged[place:]
    else:
        damaged += b"x" * (place + 1)
    try:
        values = codecs.decode(spec, bytes(damaged))
    except codecs.CodecError:
        return
    assert values.shape == (250, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**40, 3]}, {"shape": [-1, 3]}, {"dtype": "|O"}, {"dtype": "<U9"}, {"codec": "pickle"},
        {"shape": [10, 3]}, {"dtype": None}, {"shape": None},
    ],
)  # fmt: skip
def test_hostile_specs_are_refused(change: dict[str, object]) -> None:
    blob, spec = codecs.encode_array(np.arange(300, dtype=np.int32).reshape(-1, 3))
    with pytest.raises(codecs.CodecError):
        codecs.decode(spec | change, blob)


def test_buffers_are_reused_only_when_nobody_holds_them() -> None:
    pool = BufferPool()
    lease = Lease(pool)
    blob, spec = codecs.encode_array(np.arange(9000, dtype=np.int32))
    values = codecs.decode(spec, blob, lease.allocate)
    address = values.ctypes.data
    assert not lease.end()
    other = Lease(pool)
    codecs.decode(spec, blob, other.allocate)[:] = 7
    assert np.array_equal(values, np.arange(9000))
    del values
    assert lease.end()
    assert pool.take(36000).ctypes.data == address
