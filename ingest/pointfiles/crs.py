"""The coordinate system of a LAS file, as text and as its linear unit: surveys in feet are common.

Two records may hold it: WKT text (user LASF_Projection, id 2112) or GeoTIFF keys (34735), whose words stand in a record
of their own (34737) and so do their real numbers (34736). Only the horizontal unit is looked for; heights are taken to
be in the same unit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

USER = "LASF_Projection"
WKT, GEOTIFF, GEOTIFF_DOUBLES, GEOTIFF_WORDS = 2112, 34735, 34736, 34737
MODEL_TYPE, LINEAR_UNIT = 1024, 3076
GEOGRAPHIC = 2
KEYS = {
    1024: "GTModelTypeGeoKey", 1025: "GTRasterTypeGeoKey", 1026: "GTCitationGeoKey", 2048: "GeodeticCRSGeoKey",
    2049: "GeodeticCitationGeoKey", 2054: "GeogAngularUnitsGeoKey", 3072: "ProjectedCRSGeoKey",
    3073: "ProjectedCitationGeoKey", 3076: "ProjLinearUnitsGeoKey", 4096: "VerticalGeoKey",
    4097: "VerticalCitationGeoKey", 4098: "VerticalDatumGeoKey", 4099: "VerticalUnitsGeoKey",
}  # fmt: skip
"""Names of the usual keys (OGC GeoTIFF 1.1, annex D)."""
MAX_TEXT = 1 << 20
LINEAR = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
"""EPSG unit codes: metre, foot, US survey foot."""
_UNIT = re.compile(r'\b(?:LENGTH)?UNIT\s*\[\s*"([^"]{0,80})"\s*,\s*([0-9.eE+-]{1,40})')
_ANGLES = ("degree", "radian", "grad")


class GeographicCRS(ValueError):
    """Coordinates are angles."""


def crs_text(records: Mapping[int, bytes]) -> str | None:
    """WKT as it stands in the file, or the GeoTIFF keys, one `name: value` a line; None where there is neither.

    Args:
        records: id -> content of the records of user LASF_Projection.
    """
    if wkt := _wkt(records):
        return wkt
    doubles, words = records.get(GEOTIFF_DOUBLES, b""), records.get(GEOTIFF_WORDS, b"").decode("latin-1")
    lines = []
    for key, place, count, value in _geotiff_entries(records.get(GEOTIFF, b"")):
        found: object = value
        if place == GEOTIFF_WORDS:
            found = words[value : value + count].strip("|\0 ")
        elif place == GEOTIFF_DOUBLES:
            held = doubles[8 * value : 8 * (value + count)]
            found = " ".join(map(repr, struct.unpack(f"<{len(held) // 8}d", held[: len(held) // 8 * 8])))
        if key:
            lines.append(f"{KEYS.get(key, key)}: {found}")
    return "\n".join(lines)[:MAX_TEXT] or None


def metres_per_unit(records: Mapping[int, bytes]) -> float:
    """Metres per unit, 1 where nothing says otherwise; raises `GeographicCRS` for longitude and latitude.

    Args:
        records: id -> content of the records of user LASF_Projection.
    """
    if wkt := _wkt(records):
        return _of_wkt(wkt)
    return _of_geotiff(records.get(GEOTIFF, b""))


def _wkt(records: Mapping[int, bytes]) -> str:
    return records.get(WKT, b"")[:MAX_TEXT].decode("utf-8", "replace").strip("\0 \r\n")


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
    values = {key: value for key, place, _, value in _geotiff_entries(keys) if place == 0}
    if values.get(MODEL_TYPE) == GEOGRAPHIC:
        raise GeographicCRS
    return LINEAR.get(values.get(LINEAR_UNIT, 9001), 1.0)


def _geotiff_entries(keys: bytes) -> list[tuple[int, int, int, int]]:
    """The directory is a header of four shorts, then (key, place, count, value); place 0 means the value is here."""
    shorts = struct.unpack(f"<{len(keys) // 2}H", keys[: len(keys) // 2 * 2])
    return list(zip(*(shorts[4 + place :: 4] for place in range(4)), strict=False))


def _plausible(value: float) -> float:
    return value if 1e-4 < value < 1e4 else 1.0
