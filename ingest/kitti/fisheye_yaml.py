"""KITTI-360's fisheye calibration: the YAML that OpenCV's FileStorage writes, as far as it is needed.

The first line, `%YAML:1.0`, is no YAML directive (a real one has a space for its colon), so that standard parsers
refuse the file. It is passed over, and what follows is read by a grammar of two line shapes: `key: word` and
`section:` with indented `key: word` below it. No tags, anchors, quotes, lists or nesting: anything else is an error.

The model is that of Mei and Rives (ICRA 2007): onto the unit sphere, then from xi behind its centre, then radial k1 k2
and tangential p1 p2 distortion, then u = gamma1 x + u0, v = gamma2 y + v0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from brickyard.ingest.kitti.calibration import CUT, Fail
from brickyard.ingest.kitti.tables import ends_inside
from brickyard.shards.scene import Float64

_LINE = re.compile(r"( *)([A-Za-z][A-Za-z0-9_]*):(?: +([A-Za-z0-9_.+-]+))?\s*", re.ASCII)
_LIMITS = {
    "mirror_parameters.xi": (0.0, 100.0),
    "distortion_parameters.k1": (-1e3, 1e3),
    "distortion_parameters.k2": (-1e3, 1e3),
    "distortion_parameters.p1": (-1.0, 1.0),
    "distortion_parameters.p2": (-1.0, 1.0),
    "projection_parameters.gamma1": (1.0, 1e5),
    "projection_parameters.gamma2": (1.0, 1e5),
    "projection_parameters.u0": (0.0, 65535.0),
    "projection_parameters.v0": (0.0, 65535.0),
    "image_width": (1.0, 65535.0),
    "image_height": (1.0, 65535.0),
}


@dataclass(frozen=True, kw_only=True)
class Fisheye:
    """A calibrated fisheye camera.

    Attributes:
        size: (width, height) in pixels.
        intrinsics: float64 (3, 3), [gamma1 0 u0; 0 gamma2 v0; 0 0 1].
        distortion: xi k1 k2 p1 p2, as `shards.scene.View` wants it.
    """

    size: tuple[int, int]
    intrinsics: Float64
    distortion: tuple[float, ...]


def parse_fisheye(data: bytes, camera: str, fail: Fail) -> Fisheye:
    """The calibration of `camera`; raises `RawDataError` (with the line where there is one) for anything unexpected."""
    words = _parse(data, fail)
    if ends_inside(data):  # half a number is a number, too
        raise fail("the file ends inside of its last line, perhaps inside of a number", hint=CUT)
    for key, expected in (("model_type", "MEI"), ("camera_name", camera)):
        found, line = words.get(key, ("nothing", None))
        if found != expected:
            raise fail(f"{key} is {found}, expected {expected}", line=line)
    values = {key: _number(words, key, fail) for key in _LIMITS}
    xi, k1, k2, p1, p2, gamma1, gamma2, u0, v0, width, height = values.values()
    if width % 1 or height % 1 or u0 > width or v0 > height:
        raise fail(f"a {width:g}x{height:g} image with its centre at ({u0:g}, {v0:g})", hint="download it again")
    return Fisheye(
        size=(int(width), int(height)),
        intrinsics=np.array([[gamma1, 0, u0], [0, gamma2, v0], [0, 0, 1]], np.float64),
        distortion=(xi, k1, k2, p1, p2),
    )


def _parse(data: bytes, fail: Fail) -> dict[str, tuple[str, int]]:
    """ "key" or "section.key" -> (word, line)."""
    found: dict[str, tuple[str, int]] = {}
    section = ""
    for line, content in enumerate(data.decode("ascii", errors="replace").split("\n"), start=1):
        if not content.strip() or (line == 1 and content.startswith("%YAML:")) or content.rstrip() == "---":
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise fail(f"{content[:40]!r} is neither `key: value` nor `section:`", line=line)
        indent, key, word = match.groups()
        if indent and not (section and word):
            raise fail(f"{key} is indented, but does not belong to a section", line=line)
        if not indent:
            section = "" if word else key
        if word is None:
            continue
        name = f"{section}.{key}" if indent else key
        if name in found:
            raise fail(f"{name} is given twice", line=line)
        found[name] = word, line
    return found


def _number(words: dict[str, tuple[str, int]], key: str, fail: Fail) -> float:
    if key not in words:
        raise fail(f"no line for {key}", hint="download the calibration again")
    word, line = words[key]
    try:
        value = float(word)
    except ValueError:
        raise fail(f"{key} is {word!r}, expected a number", line=line) from None
    low, high = _LIMITS[key]
    if not low <= value <= high:
        raise fail(f"{key} is {word}, expected {low:g}..{high:g}", line=line)
    return value
