"""The linear unit of a LAS file's coordinate system: surveys in feet are common, and nothing else in the file says so.

Two records may hold the coordinate system: WKT text (user LASF_Projection, id 2112) or GeoTIFF keys (34735). Only the
horizontal unit is looked for; heights are taken to be in the same unit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

USER = "LASF_Projection"
WKT, GEOTIFF = 2112, 34735
MODEL_TYPE, LINEAR_UNIT = 1024, 3076
GEOGRAPHIC = 2
LINEAR = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
"""EPSG unit codes: metre, foot, US survey foot."""
_UNIT = re.compile(r'\b(?:LENGTH)?UNIT\s*\[\s*"([^"]{0,80})"\s*,\s*([0-9.eE+-]{1,40})')
_ANGLES = ("degree", "radian", "grad")


class GeographicCRS(ValueError):
    """Coordinates are angles."""


def metres_per_unit(records: Mapping[int, bytes]) -> float:
    """Metres per unit, 1 where nothing says otherwise; raises `GeographicCRS` for longitude and latitude.

    Args:
        records: id -> content of the records of user LASF_Projection.
    """
    if WKT in records:
        return _of_wkt(records[WKT].decode("utf-8", "replace"))
    return _of_geotiff(records.get(GEOTIFF, b""))


def _of_wkt(text: str) -> float:
    horizontal = re.split(r"\bVERT_?(?:CS|CRS)\b|\bVERTICALCRS\b", text, maxsplit=1)[0]
    if re.search(r"\bGEOG(?:CS|CRS|RAPHICCRS)\b", horizontal) and not re.search(r"\bPROJ(?:CS|CRS)\b", horizontal):
        raise GeographicCRS
    units = [(name.lower(), value) for name, value in _UNIT.findall(horizontal)]
    lengths = [value for name, value in units if not any(angle in name for angle in _ANGLES)]
    try:
        return _plausible(float(lengths[-1])) if lengths else 1.0
    except ValueError:
        return 1.0


def _of_geotiff(keys: bytes) -> float:
    """The directory is a header of four shorts and then (key, place, count, value); place 0 means the value is here."""
    shorts = struct.unpack(f"<{len(keys) // 2}H", keys[: len(keys) // 2 * 2])
    entries = zip(*(shorts[4 + place :: 4] for place in range(4)), strict=False)
    values = {key: value for key, place, _, value in entries if place == 0}
    if values.get(MODEL_TYPE) == GEOGRAPHIC:
        raise GeographicCRS
    return LINEAR.get(values.get(LINEAR_UNIT, 9001), 1.0)


def _plausible(value: float) -> float:
    return value if 1e-4 < value < 1e4 else 1.0
