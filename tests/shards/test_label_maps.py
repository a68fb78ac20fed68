"""Maps of superpixels as PNG: there and back, and every map that must not be believed."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from brickyard.shards.errors import ImageError
from brickyard.shards.label_maps import file_of, folder_of, map_bytes, read_map

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 255, (40, 64)).astype(np.uint16)


def png(pixels: NDArray[np.uint8], mode: str | None = None) -> bytes:
    sink = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(sink, "PNG")
    return sink.getvalue()


def says(data: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header, under a right checksum."""
    head = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


@settings(max_examples=50, deadline=None)
@given(st.one_of(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, most))
                 for most in (0, 254, 255, 65535)))  # fmt: skip
def test_maps_come_back(labels: NDArray[np.uint16]) -> None:
    data = map_bytes(labels)
    found = read_map(data, labels.shape[1], labels.shape[0])
    assert found.dtype == np.uint16 and np.array_equal(found, labels)
    assert data == map_bytes(labels) and data[24] == (8 if labels.max() < 255 else 16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PNG"),
        (map_bytes(LABELS)[:-20], "truncated"),
        (map_bytes(LABELS)[:100] + b"\0" + map_bytes(LABELS)[101:], "checksum"),
        (map_bytes(LABELS[:, 1:]), "63x40 pixels, its image has 64x40"),
        (says(map_bytes(LABELS), 60000, 60000), "60000x60000 pixels, its image has 64x40"),
        (says(map_bytes(LABELS[:5]), 64, 40), "325 bytes of pixels, its header says 2600"),
        (png(LABELS.astype(np.uint8), "RGB"), "no grey PNG"),
        (png(LABELS.astype(np.uint8), "P"), "no grey PNG"),
        (png(LABELS.astype(np.uint8), "LA"), "no grey PNG"),
        (png((LABELS + 1).astype(np.uint8)), "id 255 in a map of 8 bits, which holds 255 superpixels.*65536"),
    ],
)
def test_maps_that_are_none_of_this_image_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_map(data, 64, 40)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_damaged_maps_are_refused_and_never_crash(junk: bytes, place: int, change: int) -> None:
    with pytest.raises(ImageError):
        read_map(junk, 64, 40)
    data = bytearray(map_bytes(LABELS))
    data[place] ^= change
    with pytest.raises(ImageError):
        read_map(bytes(data), 64, 40)


def test_names_of_folders_and_files_leave_no_folder() -> None:
    assert folder_of("nuscenes", "scene-0061/1532") == "nuscenes/scene-0061%2F1532"
    assert file_of("../CAM FRONT") == "..%2FCAM%20FRONT.png"
