"""Units of length of LAS files: said, known by a code, contradictory, unknown; and heights, which have their own."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.pointfiles import SOURCE, crs, epsg, wkt
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

US_FOOT = 1200 / 3937
DEGREE = 'UNIT["degree",0.0174532925199433]'
GEOGCS = f'GEOGCS["g",DATUM["d",SPHEROID["s",6378137,298.25]],{DEGREE}]'
XYZ = np.array([[0, 0, 0], [100, 200, 50], [1000, 1000, 100]], float)


def las(records: dict[int, bytes]) -> bytes:
    """LAS 1.2 of three points with records of the user LASF_Projection."""
    vlrs = b"".join(
        struct.pack("<H16sHH32s", 0, b"LASF_Projection", ident, len(data), b"") + data
        for ident, data in records.items()
    )
    head = bytearray(227)
    struct.pack_into("<4s20x2B", head, 0, b"LASF", 1, 2)
    struct.pack_into("<HIIBHI", head, 94, 227, 227 + len(vlrs), len(records), 0, 20, len(XYZ))
    struct.pack_into("<12d", head, 131, *[0.01] * 3, 0, 0, 0, *np.stack([XYZ.max(0), XYZ.min(0)], 1).ravel())
    return bytes(head) + vlrs + b"".join(struct.pack("<3iH6x", *(row * 100).astype(int), 7) for row in XYZ)


def geotiff(*rows: tuple[int, int] | tuple[int, int, int, int], doubles: tuple[float, ...] = ()) -> dict[int, bytes]:
    """Rows are (key, value), or a whole entry."""
    whole = [row if len(row) == 4 else (row[0], 0, 1, row[1]) for row in rows]
    keys = struct.pack("<4H", 1, 1, 0, len(rows)) + b"".join(struct.pack("<4H", *row) for row in whole)
    return {34735: keys} | ({34736: struct.pack(f"<{len(doubles)}d", *doubles)} if doubles else {})


def plan(root: Path, records: dict[int, bytes], **options: Any) -> SceneRef | Missing:
    (root / "a.las").write_bytes(las(records))
    (item,) = SOURCE.plan(Store(root), PointFilesOptions(**options))
    return item


def read(root: Path, records: dict[int, bytes], **options: Any) -> Scene:
    ref = plan(root, records, **options)
    assert isinstance(ref, SceneRef), ref
    return SOURCE.read(ref)


def spans(scene: Scene) -> list[float]:
    assert scene.points is not None
    return [float(span) for span in np.ptp(scene.points.xyz, axis=0)]


UNKNOWN_HEIGHTS = {"heights of no known unit: read in the unit of x and y": 1}
PROJCS = f'PROJCS["p",{GEOGCS},PROJECTION["Transverse_Mercator"],PARAMETER["false_easting",500000],'
KNOWN: dict[str, tuple[dict[int, bytes], float, float | None]] = {
    "a code in US survey feet": (geotiff((1024, 1), (3072, 2263)), US_FOOT, None),
    "a code in feet": (geotiff((1024, 1), (3072, 2994)), 0.3048, None),
    "a code in metres": (geotiff((1024, 1), (3072, 32633)), 1, 1),
    "a code without model type": (geotiff((3072, 2056)), 1, 1),
    "a unit key goes before the code": (geotiff((1024, 1), (3072, 26995), (3076, 9003)), US_FOOT, None),
    "a unit of its own": (geotiff((1024, 1), (3076, 32767), (3077, 34736, 1, 1), doubles=(7.0, 0.2)), 0.2, None),
    "feet above metres": (geotiff((1024, 1), (3072, 26917), (4096, 6360), (4099, 9003)), 1, US_FOOT),
    "a vertical code": (geotiff((1024, 1), (3072, 26917), (4096, 8228)), 1, 0.3048),
    "metres above feet": (geotiff((1024, 1), (3072, 2263), (4096, 5703)), US_FOOT, 1),
    "a code of both": (geotiff((1024, 1), (3072, 7415)), 1, 1),
    "heights by a code of GeoTIFF 1.0": (geotiff((1024, 1), (3072, 26917), (4096, 5103)), 1, None),
    "heights by a citation": (geotiff((1024, 1), (3072, 26917), (4097, 34737, 1, 0)), 1, None),
    "geocentric": (geotiff((1024, 3), (2048, 4978)), 1, 1),
    "keys that define nothing": (geotiff((1024, 0), (3072, 32767)), 1, 1),
    "WKT in feet": ({2112: f'{PROJCS}UNIT["US survey foot",0.30480060960122]]'.encode()}, US_FOOT, None),
    "WKT in metres": ({2112: f'{PROJCS}UNIT["metre",1]]'.encode()}, 1, 1),
    "WKT with a code alone": ({2112: f'{PROJCS}AUTHORITY["EPSG","2263"]]'.encode()}, US_FOOT, None),
    "ESRI's two systems": (
        {2112: f'{PROJCS}UNIT["Foot_US",{US_FOOT}]],VERTCS["h",VDATUM["v"],UNIT["Meter",1.0]]'.encode()}, US_FOOT, 1,
    ),
    "a compound": (
        {2112: f'COMPD_CS["c",{PROJCS}UNIT["metre",1]],VERT_CS["h",UNIT["foot",0.3048]]]'.encode()}, 1, 0.3048,
    ),
    "a vertical unit whose number is not that of its name": (
        {2112: f'COMPD_CS["c",{PROJCS}UNIT["metre",1]],VERT_CS["h",UNIT["US survey foot",1.0]]]'.encode()}, 1, None,
    ),
    "WKT 2 with units of the axes": (
        {2112: b'PROJCRS["p",BASEGEOGCRS["b",ELLIPSOID["e",6378137,298,LENGTHUNIT["metre",1]]],CONVERSION["c",'
               b'PARAMETER["False easting",0,LENGTHUNIT["metre",1]]],CS[Cartesian,2],'
               b'AXIS["(E)",east,LENGTHUNIT["foot",0.3048]],AXIS["(N)",north,LENGTHUNIT["foot",0.3048]]]'},
        0.3048, None,
    ),
    "WKT 2 with a third axis": (
        {2112: b'PROJCRS["p",CS[Cartesian,3],AXIS["(E)",east,LENGTHUNIT["metre",1]],AXIS["(N)",north,LENGTHUNIT['
               b'"metre",1]],AXIS["height (h)",up,LENGTHUNIT["foot",0.3048]]]'}, 1, 0.3048,
    ),
    "WKT 2, geocentric": ({2112: b'GEODCRS["g",CS[Cartesian,3],AXIS["(X)",x],LENGTHUNIT["metre",1]]'}, 1, 1),
    "no coordinate system": ({}, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("what", KNOWN)
def test_units_are_those_of_the_file(tmp_path: Path, what: str) -> None:
    records, flat, height = KNOWN[what]
    scene = read(tmp_path, records)
    expected = [1000 * flat, 1000 * flat, 100 * (flat if height is None else height)]
    np.testing.assert_allclose(spans(scene), expected, rtol=1e-6)
    assert scene.dropped == (UNKNOWN_HEIGHTS if height is None else {})


UNKNOWN = {
    "a code that is no system": (geotiff((1024, 1), (3072, 1999)), "EPSG:1999 is not in the file, nor known"),
    "no code": (geotiff((1024, 1), (3072, 32767)), "its coordinate system is not in the file, nor known"),
    "a unit that is none": (geotiff((1024, 1), (3072, 26917), (3076, 32617)), "EPSG:32617, which is no unit"),
    "a size that is not there": (geotiff((1024, 1), (3076, 32767)), "of a size that it does not give"),
    "WKT without a unit": ({2112: f"{PROJCS[:-1]}]".encode()}, "'p' is not in the file"),
    "WKT that contradicts itself": ({2112: f'{PROJCS}UNIT["metre",0.3048]]'.encode()}, "'p' is not in the file"),
    "no WKT": ({2112: b"+proj=utm +zone=33"}, "no unit is found in its coordinate system '+proj"),
    "degrees by model": (geotiff((1024, 2), (2048, 4326)), "degrees of longitude and latitude"),
    "degrees by code": (geotiff((2048, 4326)), "degrees of longitude and latitude"),
    "degrees in the place of a projection": (geotiff((1024, 1), (3072, 4326)), "degrees of longitude and latitude"),
    "degrees as WKT": ({2112: GEOGCS.encode()}, "degrees of longitude and latitude"),
    "degrees as WKT 2": ({2112: b'GEODCRS["g",CS[ellipsoidal,2]]'}, "degrees of longitude and latitude"),
    "degrees in a compound": (
        {2112: f'COMPD_CS["c",{GEOGCS},VERT_CS["h",UNIT["metre",1]]]'.encode()}, "degrees of longitude and latitude",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_has_no_known_unit_is_missing_before_anything_is_built(tmp_path: Path, what: str) -> None:
    records, reason = UNKNOWN[what]
    for options in ({}, {"tile_m": 10.0}, {"metres_per_height_unit": 1.0}):
        item = plan(tmp_path, records, **options)
        assert isinstance(item, Missing) and reason in item.reason and "metres_per_unit" in item.reason
    scene = read(tmp_path, records, metres_per_unit=0.5)
    assert spans(scene) == [500, 500, 50] and not scene.dropped


def test_options_go_before_what_a_file_says(tmp_path: Path) -> None:
    records = KNOWN["feet above metres"][0]
    assert spans(read(tmp_path, records, metres_per_unit=2.0)) == [2000, 2000, 200]
    assert spans(read(tmp_path, records, metres_per_height_unit=2.0)) == [1000, 1000, 200]
    assert spans(read(tmp_path, records, metres_per_unit=2.0, metres_per_height_unit=3.0)) == [2000, 2000, 300]
    scene = read(tmp_path, KNOWN["a code in feet"][0], metres_per_height_unit=1.0)
    np.testing.assert_allclose(spans(scene), [304.8, 304.8, 100], rtol=1e-6)
    assert not scene.dropped
    for value in (0.0, float("nan")):
        with pytest.raises(RecipeError, match="metres_per_height_unit must be a positive number"):
            PointFilesOptions(metres_per_height_unit=value)


def test_codes_of_the_register() -> None:
    assert epsg.horizontal_metres(3857) == epsg.horizontal_metres(28992) == epsg.horizontal_metres(4978) == 1
    assert epsg.horizontal_metres(2225) == epsg.metres_of_unit(9003) == pytest.approx(US_FOOT, rel=1e-15)
    assert epsg.horizontal_metres(4326) is None and epsg.is_geographic(4326) and not epsg.is_geographic(2225)
    assert epsg.vertical_metres(5703) == 1 and epsg.vertical_metres(6360) == epsg.metres_of_unit(9003)
    assert epsg.vertical_metres(4326) is epsg.metres_of_unit(9102) is None


@settings(max_examples=300, deadline=None)
@given(st.text('PROJCSUNITVERT_[](),"0123456789.e- mfot', max_size=80) | st.binary(max_size=60).map(repr))
def test_any_text_is_a_unit_or_none(text: str) -> None:
    units = crs.units({2112: text.encode()})
    assert units.horizontal is None or 1e-4 < units.horizontal < 1e4
    assert bool(units.problem) is (units.horizontal is None)
    assert len(wkt.nodes(text)) <= len(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 2, 3, 1024, 2048, 3072, 3076, 3077, 4096, 4099, 9003, 34736])] * 4)))
def test_any_keys_are_a_unit_or_none(rows: list[tuple[int, int, int, int]]) -> None:
    units = crs.units(geotiff(*rows, doubles=(0.5,)))
    assert bool(units.problem) is (units.horizontal is None)


def test_deep_and_open_brackets_cost_their_length() -> None:
    assert len(wkt.nodes("A[" * 200_000 + '"' * 1001)) == 200_000
