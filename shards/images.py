"""An encoded image from its bytes: its format, size and kind, and whether it is whole; and its pixels as 8-bit RGB.

The content decides what an image is, never the name of its file. `inspect` decodes nothing and finds what a broken
download or disk leaves (a missing end, a wrong checksum, a block of zeros); `check` decodes everything.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brickyard.shards import jpeg, png
from brickyard.shards.errors import ImageError
from brickyard.shards.scene import ImageFormat

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 1 << 27
_LEFT_OVER = re.compile(r"extraneous bytes before marker 0xd9")
_OTHERS = (
    (b"GIF8", "a GIF image"), (b"BM", "a BMP image"), (b"II*\0", "a TIFF image"), (b"MM\0*", "a TIFF image"),
    (b"\x76\x2f\x31\x01", "an EXR image"), (b"\xff\x0a", "a JPEG XL image"), (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"), (b"\x93NUMPY", "an array of numpy"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"), (b"<", "a page in HTML or XML"),
)  # fmt: skip


@dataclass(frozen=True)
class ImageHeader:
    """What an image says of itself.

    Attributes:
        format: "jpeg" or "png".
        width, height: of the pixels as stored; an orientation in EXIF turns none of them.
        bits: of a sample.
        kind: "grey", "rgb", "palette", "grey+alpha", "rgb+alpha" or "cmyk".
    """

    format: ImageFormat
    width: int
    height: int
    bits: int
    kind: str

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


def inspect(data: bytes) -> ImageHeader:
    """The header of a JPEG or PNG that is whole as far as can be seen without decoding; raises `ImageError`."""
    if data.startswith(png.START):
        found = png.walk_png(data)
        kind = {0: "grey", 2: "rgb", 3: "palette", 4: "grey+alpha", 6: "rgb+alpha"}[found.colour]
        return ImageHeader("png", found.width, found.height, found.bits, kind)
    if data.startswith(jpeg.START):
        frame = jpeg.walk_jpeg(data)
        return ImageHeader("jpeg", frame.width, frame.height, 8, {1: "grey", 3: "rgb", 4: "cmyk"}[frame.components])
    what = _what(data)
    raise ImageError(f"not a JPEG or PNG image{f' but {what}' if what else ''}", 0)


def _what(data: bytes) -> str | None:
    if not data:
        return "an empty file"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP image"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif"):
        return "a HEIF or AVIF image"
    if not any(data[:4096]):
        return "zeros: a damaged file"
    return next((name for start, name in _OTHERS if data.startswith(start)), None)


def rgb(image: Image.Image) -> Image.Image:
    """A decoded image in mode RGB, as stored: 16-bit grey is scaled by 1/257 (Pillow would cut it off at 255), palettes
    and CMYK are converted, alpha is left out, an orientation in EXIF is not applied."""
    from PIL import Image

    if image.mode.startswith("I"):
        grey = (np.asarray(image).clip(0, 65535).astype(np.uint32) * 255 + 32767) // 65535
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def decode(data: bytes) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), RGB, of a JPEG or PNG; raises `ImageError` where it cannot be decoded."""
    with load(data) as image:
        return np.asarray(rgb(image))


def decode_reduced(data: bytes, least: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), RGB, of a JPEG at 1/8, 1/4 or 1/2 of its size (rounded up), the smallest whose shorter side has
    `least` pixels or more; of a smaller JPEG, one in CMYK, or a PNG, the whole.

    A reduced JPEG is low-passed by its own transform, not by a resampling filter. Other eighths would do, too, but take
    longer than the next larger of these.

    Args:
        size: (width, height) that the image must have as it is stored.

    Raises:
        ImageError: it has another size, is damaged, or is none.
    """
    import simplejpeg

    if not data.startswith(jpeg.START):
        pixels = decode(data)
        _check_size((pixels.shape[1], pixels.shape[0]), size)
        return pixels
    header = jpeg.walk_jpeg(data)
    _check_size((header.width, header.height), size)
    _check_pixels(header.width, header.height)
    if header.components == 4:
        return decode(data)
    sizes = [(-(-header.height // k), -(-header.width // k), k) for k in (8, 4, 2, 1)]
    height, width, factor = next((one for one in sizes if min(one[:2]) >= least), sizes[-1])
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=factor))
    except ValueError as problem:
        if _LEFT_OVER.search(str(problem)):
            return decode(data)
        raise ImageError(f"the jpeg image cannot be decoded: {problem}"[:200], 0) from problem


def _check_size(found: tuple[int, int], wanted: tuple[int, int]) -> None:
    if found != wanted:
        raise ImageError(f"the image has {found[0]}x{found[1]} pixels, its scene says {wanted[0]}x{wanted[1]}", 0)


def check(data: bytes) -> None:
    """Decode an image to see that it is whole; raises `ImageError` where it is not.

    A JPEG is damaged where libjpeg-turbo warns, too (Pillow does not): 2 ms for 1600 x 900 pixels. Only left over bytes
    before the end are none of its faults: cameras pad there.
    """
    if data.startswith(jpeg.START):
        header = jpeg.walk_jpeg(data)
        _check_pixels(header.width, header.height)
        said = jpeg.complaint(data)
        if said is not None and not _LEFT_OVER.search(said):
            raise ImageError(f"the jpeg image cannot be decoded: {said}", 0)
    else:
        load(data).close()


def load(data: bytes) -> Image.Image:
    """A JPEG or PNG as Pillow decodes it, all of it; raises `ImageError`."""
    from PIL import Image

    header = inspect(data)
    _check_pixels(header.width, header.height)
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        image.load()
    except MemoryError:
        raise  # the machine's trouble
    except Exception as problem:  # Pillow raises many types for damaged images
        raise ImageError(f"the {header.format} image cannot be decoded: {problem}"[:200], 0) from problem
    if image.size != header.size:  # another chunk can say so
        raise ImageError(f"the {header.format} image decodes to {image.size[0]}x{image.size[1]} pixels", 0)
    return image


def orientation(data: bytes) -> int:
    """The orientation that EXIF gives an image, 1 to 8; 1 where it gives none: the pixels as stored stand upright."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            value = image.getexif().get(0x0112, 1)
    except MemoryError:
        raise
    except Exception:  # damaged notes turn no picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} pixels, at most {MAX_PIXELS} are decoded", 0)
