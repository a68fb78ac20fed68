"""Encoded images: what decoders read is read, what is damaged is found without decoding, and pixels are right."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from brickyard.shards.errors import BrickyardError, ImageError
from brickyard.shards.images import ImageHeader, check, decode, inspect, orientation


def texture(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3): noise, so that its data is long, and no two places are alike."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str, mode: str = "RGB", **how: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode == "as it is" else image.convert(mode)).save(stream, kind, **how)
    return stream.getvalue()


JPEGS = {
    "baseline": encoded(texture(), "JPEG"),
    "own tables": encoded(texture(), "JPEG", optimize=True),
    "progressive": encoded(texture(), "JPEG", progressive=True),
    "restarts": encoded(texture(), "JPEG", restart_marker_blocks=2),
    "grey": encoded(texture(), "JPEG", "L"),
    "cmyk": encoded(texture(), "JPEG", "CMYK"),
}
PNGS = {
    "rgb": encoded(texture(), "PNG"),
    "palette": encoded(texture(), "PNG", "P"),
    "alpha": encoded(texture(), "PNG", "RGBA"),
    "grey": encoded(texture(), "PNG", "L"),
    "grey of 16 bits": encoded(texture()[..., 0].astype(np.uint16) * 257, "PNG", "as it is"),
}
ALL = {**{f"jpeg, {name}": data for name, data in JPEGS.items()}, **{f"png, {name}": d for name, d in PNGS.items()}}
KINDS = {"cmyk": "cmyk", "grey": "grey", "palette": "palette", "alpha": "rgb+alpha", "grey of 16 bits": "grey"}


@pytest.mark.parametrize("name", ALL)
def test_headers_are_those_of_pillow(name: str) -> None:
    data, (image_format, kind) = ALL[name], name.split(", ")
    bits = 16 if "16" in kind else 8
    assert inspect(data) == ImageHeader(image_format, 96, 64, bits, KINDS.get(kind, "rgb"))  # type: ignore[arg-type]
    check(data)


@given(name=st.sampled_from(sorted(ALL)), trailer=st.binary(max_size=300))
def test_what_follows_the_end_is_not_looked_at(name: str, trailer: bytes) -> None:
    """The film of a motion photo, a second picture, padding: decoders stop at the end, and so does this."""
    assert inspect(ALL[name] + trailer) == inspect(ALL[name])
    check(ALL[name] + trailer)


@given(name=st.sampled_from(sorted(JPEGS)), fill=st.integers(1, 700), extra=st.binary(max_size=50))
def test_fill_bytes_and_unknown_segments_stand_before_any_marker(name: str, fill: int, extra: bytes) -> None:
    data, place, out = JPEGS[name], 2, b"\xff\xd8"
    note = b"\xff\xe5" + struct.pack(">H", len(extra) + 2) + extra
    while data[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, place + 2)
        out += b"\xff" * fill + data[place : place + 2 + length] + note
        place += 2 + length
    changed = out + b"\xff" * fill + data[place:-2] + b"\xff" * fill + data[-2:]
    assert inspect(changed) == inspect(data)
    assert np.array_equal(decode(changed), decode(data))


@given(name=st.sampled_from(sorted(ALL)), share=st.floats(0, 1, exclude_max=True))
def test_an_image_that_is_cut_anywhere_is_refused(name: str, share: float) -> None:
    data = ALL[name][: int(share * len(ALL[name]))]
    with pytest.raises(ImageError, match=r"truncated|no image|not a JPEG or PNG|not a PNG image|empty"):
        inspect(data)


@given(name=st.sampled_from(sorted(PNGS)), share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_of_a_png_is_found(name: str, share: float, bit: int) -> None:
    data = bytearray(PNGS[name])
    data[int(share * len(data))] ^= 1 << bit
    with pytest.raises(ImageError):
        inspect(bytes(data))


LARGE = {
    name: encoded(texture(400, 300), "JPEG", **how)
    for name, how in (("baseline", {}), ("own", {"optimize": True}), ("progressive", {"progressive": True}))
}


@given(name=st.sampled_from(sorted(LARGE)), share=st.floats(0, 1), value=st.sampled_from([0, 255]))
def test_blank_blocks_in_a_jpeg_are_found_without_decoding(name: str, share: float, value: int) -> None:
    assume(name != "progressive" or value)  # zeros are good codes of its later scans, for a decoder too
    data = LARGE[name]
    start = int(share * (len(data) - 4096))
    with pytest.raises(ImageError):
        inspect(data[:start] + bytes([value]) * 4096 + data[start + 4096 :])


@pytest.mark.parametrize("how", [{}, {"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_flat_pictures_are_long_runs_of_zeros_and_good(how: dict[str, Any], grey: int) -> None:
    data = encoded(np.full((1200, 1600, 3), grey, np.uint8), "JPEG", **how)
    assert inspect(data).size == (1600, 1200)
    assert bool(how) == (bytes(512) in data)  # an encoder wrote them: the test is about something


@given(data=st.binary(max_size=400), start=st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff", PNGS["rgb"][:33]]))
def test_any_bytes_give_a_header_or_an_error(data: bytes, start: bytes) -> None:
    try:
        header = inspect(start + data)
    except ImageError as problem:
        assert str(problem) and 0 <= problem.offset <= len(start + data)
    else:
        assert header.width > 0 and header.height > 0


@given(name=st.sampled_from(sorted(JPEGS)), share=st.floats(0, 1), piece=st.binary(min_size=1, max_size=20))
def test_a_damaged_jpeg_gives_a_header_or_an_error(name: str, share: float, piece: bytes) -> None:
    place = int(share * len(JPEGS[name]))
    data = JPEGS[name][:place] + piece + JPEGS[name][place + len(piece) :]
    try:
        check(data)
    except ImageError as problem:
        assert str(problem)


def test_what_it_is_instead_is_told() -> None:
    for data, what in (
        (b"", "an empty file"), (b"GIF89a", "a GIF image"), (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
        (b"II*\0", "a TIFF image"), (b"\0\0\0\x18ftypheic", "a HEIF or AVIF image"), (bytes(99), "zeros"),
        (b"<html>", "HTML"), (b"version https://git-lfs.github.com/spec/v1", "Git LFS"), (b"abc", "$"),
    ):  # fmt: skip
        with pytest.raises(ImageError, match=f"not a JPEG or PNG image.*{what}"):
            inspect(data)


def test_a_png_that_no_decoder_opens_is_found_by_decoding() -> None:
    body = PNGS["rgb"]
    chunk = b"zTXtkey\0\x09text"  # a method of compression that does not exist
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = body[:33] + whole + body[33:]
    assert inspect(data).size == (96, 64)
    with pytest.raises(ImageError) as problem:
        check(data)
    assert "cannot be decoded" in str(problem.value) and " at 0x" not in str(problem.value)


def test_errors_hold_no_addresses_in_memory() -> None:
    assert str(BrickyardError(f"cannot identify {object()!r}")) == "cannot identify <object object>"


def test_pixels_are_right_in_every_mode() -> None:
    pixels = texture()
    grey = pixels[..., :1].repeat(3, axis=2)
    assert np.array_equal(decode(PNGS["rgb"]), pixels)
    assert np.array_equal(decode(PNGS["alpha"]), pixels)
    assert np.array_equal(decode(PNGS["grey of 16 bits"]), grey)
    wide = encoded(np.array([[0, 128, 129, 65534, 65535, 32768]], np.uint16), "PNG", "as it is")
    assert decode(wide)[0, :, 0].tolist() == [0, 0, 1, 255, 255, 128]  # value / 257, rounded
    few = Image.fromarray(pixels).quantize(16)
    stream = io.BytesIO()
    few.save(stream, "PNG")
    assert np.array_equal(decode(stream.getvalue()), np.asarray(few.convert("RGB")))
    ink = encoded(np.full((16, 16, 3), (200, 40, 90), np.uint8), "JPEG", "CMYK", quality=100)
    assert np.abs(decode(ink).astype(int) - (200, 40, 90)).max() <= 3


def test_orientation_is_told_and_turns_nothing() -> None:
    notes = Image.Exif()
    notes[0x0112] = 6
    turned = encoded(texture(), "JPEG", exif=notes)
    assert (orientation(turned), inspect(turned).size) == (6, (96, 64))
    assert orientation(JPEGS["baseline"]) == orientation(PNGS["rgb"]) == 1
    assert np.array_equal(decode(turned), decode(JPEGS["baseline"]))
