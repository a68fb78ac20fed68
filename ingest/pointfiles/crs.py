"""The coordinate system of a LAS file, as text and as its units of length: surveys in feet are common.

Two records may hold it: WKT text (user LASF_Projection, id 2112) or GeoTIFF keys (34735), whose words stand in a record
of their own (34737) and so do their real numbers (34736). A unit is what the file says (WKT's unit, the unit keys) or
what the EPSG register says of the code that the file gives; a file that names a coordinate system and no unit that can
be found out has an unknown one, never the metre. Heights have a unit of their own: feet above metres are usual.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from brickyard.ingest.pointfiles import epsg, wkt

USER = "LASF_Projection"
WKT, GEOTIFF, GEOTIFF_DOUBLES, GEOTIFF_WORDS = 2112, 34735, 34736, 34737
MODEL_TYPE, GEODETIC, GEODETIC_UNIT, PROJECTED, LINEAR_UNIT, LINEAR_SIZE = 1024, 2048, 2052, 3072, 3076, 3077
VERTICAL, VERTICAL_CITATION, VERTICAL_UNIT = 4096, 4097, 4099
GEOGRAPHIC, GEOCENTRIC = 2, 3
UNDEFINED, USER_DEFINED = 0, 32767
KEYS = {
    1024: "GTModelTypeGeoKey", 1025: "GTRasterTypeGeoKey", 1026: "GTCitationGeoKey", 2048: "GeodeticCRSGeoKey",
    2049: "GeodeticCitationGeoKey", 2054: "GeogAngularUnitsGeoKey", 3072: "ProjectedCRSGeoKey",
    3073: "ProjectedCitationGeoKey", 3076: "ProjLinearUnitsGeoKey", 4096: "VerticalGeoKey",
    4097: "VerticalCitationGeoKey", 4098: "VerticalDatumGeoKey", 4099: "VerticalUnitsGeoKey",
}  # fmt: skip
"""Names of the usual keys (OGC GeoTIFF 1.1, annex D)."""
MAX_TEXT = 1 << 20
DEGREES = "coordinates are degrees of longitude and latitude"


@dataclass(frozen=True, kw_only=True)
class Units:
    """What a file says of its units of length.

    Attributes:
        horizontal: metres per unit of x and y; None where a coordinate system is given and its unit is not.
        vertical: metres per unit of z; None where it is not known.
        problem: why `horizontal` is None, for people.
    """

    horizontal: float | None = 1.0
    vertical: float | None = 1.0
    problem: str = ""


def crs_text(records: Mapping[int, bytes]) -> str | None:
    """WKT as it stands in the file, or the GeoTIFF keys, one `name: value` a line; None where there is neither.

    Args:
        records: id -> content of the records of user LASF_Projection.
    """
    if text := _wkt(records):
        return text
    words = records.get(GEOTIFF_WORDS, b"").decode("latin-1")
    lines = []
    for key, place, count, value in _geotiff_entries(records.get(GEOTIFF, b"")):
        found: object = value
        if place == GEOTIFF_WORDS:
            found = words[value : value + count].strip("|\0 ")
        elif place == GEOTIFF_DOUBLES:
            found = " ".join(map(repr, _doubles(records, value, count)))
        if key:
            lines.append(f"{KEYS.get(key, key)}: {found}")
    return "\n".join(lines)[:MAX_TEXT] or None


def units(records: Mapping[int, bytes]) -> Units:
    """The units of a file; metres where it has no coordinate system.

    Heights that have no system of their own are in metres where x and y are; above feet, their unit is not known.

    Args:
        records: id -> content of the records of user LASF_Projection.
    """
    if text := _wkt(records):
        return _of_wkt(text)
    return _of_geotiff(records)


def _wkt(records: Mapping[int, bytes]) -> str:
    return records.get(WKT, b"")[:MAX_TEXT].decode("utf-8", "replace").strip("\0 \r\n")


def _of_wkt(text: str) -> Units:
    found = wkt.nodes(text)
    system = next((node for node in found if node.name in wkt.LENGTHS | wkt.ANGLES), None)
    if system is None:
        return Units(horizontal=None, vertical=None, problem=f"no unit is found in its coordinate system {text[:60]!r}")
    if wkt.is_geographic(system):
        return Units(horizontal=None, vertical=None, problem=DEGREES)
    metres = wkt.horizontal_metres(system)
    named, height = wkt.vertical_metres(found, system)
    name = (system.words or ["without a name"])[0][:60]
    return _units(metres, named, height, f"the unit of its coordinate system {name!r} is not in the file")


def _of_geotiff(records: Mapping[int, bytes]) -> Units:
    entries = {key: (place, value) for key, place, _, value in _geotiff_entries(records.get(GEOTIFF, b""))}
    keys = {key: value for key, (place, value) in entries.items() if place == 0 and value != UNDEFINED}
    model, projected = keys.get(MODEL_TYPE, USER_DEFINED), keys.get(PROJECTED, USER_DEFINED)
    geodetic = keys.get(GEODETIC, USER_DEFINED)
    named = (model, projected, geodetic, keys.get(LINEAR_UNIT, USER_DEFINED))
    if all(code == USER_DEFINED for code in named) and LINEAR_SIZE not in entries:
        return Units()  # keys that define nothing
    unprojected = projected == USER_DEFINED and LINEAR_UNIT not in keys and model == USER_DEFINED
    if model == GEOGRAPHIC or epsg.is_geographic(projected) or (unprojected and epsg.is_geographic(geodetic)):
        return Units(horizontal=None, vertical=None, problem=DEGREES)
    unit, system = keys.get(LINEAR_UNIT), projected
    if model == GEOCENTRIC:
        unit, system = keys.get(GEODETIC_UNIT, unit), geodetic
    if unit is None:
        metres = epsg.horizontal_metres(system)
        shown = "its coordinate system" if system == USER_DEFINED else f"EPSG:{system}"
        problem = f"the unit of {shown} is not in the file, nor known"
    elif unit == USER_DEFINED:
        place, value = entries.get(LINEAR_SIZE, (0, 0))
        size = _doubles(records, value, 1) if place == GEOTIFF_DOUBLES else ()
        metres = size[0] if size and 1e-4 < size[0] < 1e4 else None
        problem = "the unit of its coordinate system is one of its own, of a size that it does not give"
    else:
        metres, problem = epsg.metres_of_unit(unit), f"its unit is given as EPSG:{unit}, which is no unit of length"
    if model == GEOCENTRIC:
        return _units(metres, True, metres, problem)
    return _units(metres, *_geotiff_heights(keys, entries, projected), problem)


def _geotiff_heights(
    keys: Mapping[int, int], entries: Mapping[int, tuple[int, int]], projected: int
) -> tuple[bool, float | None]:
    """Whether heights have a system of their own, and metres per unit of height where that is known.

    GeoTIFF 1.0 had codes of its own for vertical systems (5001-5033, 5101-5106) that say nothing of units.
    """
    if (unit := keys.get(VERTICAL_UNIT)) is not None:
        return True, epsg.metres_of_unit(unit)
    if (system := keys.get(VERTICAL)) is not None:
        return True, epsg.vertical_metres(system)
    height = epsg.vertical_metres(projected)
    return height is not None or VERTICAL_CITATION in entries, height


def _units(metres: float | None, named: bool, height: float | None, problem: str) -> Units:
    if not named and metres == 1:
        height = 1.0
    return Units(horizontal=metres, vertical=height, problem="" if metres is not None else problem)


def _doubles(records: Mapping[int, bytes], first: int, count: int) -> tuple[float, ...]:
    held = records.get(GEOTIFF_DOUBLES, b"")[8 * first : 8 * (first + count)]
    return struct.unpack(f"<{len(held) // 8}d", held[: len(held) // 8 * 8])


def _geotiff_entries(keys: bytes) -> list[tuple[int, int, int, int]]:
    """The directory is a header of four shorts, then (key, place, count, value); place 0 means the value is here."""
    shorts = struct.unpack(f"<{len(keys) // 2}H", keys[: len(keys) // 2 * 2])
    return list(zip(*(shorts[4 + place :: 4] for place in range(4)), strict=False))
