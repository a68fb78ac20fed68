"""LAS and LAZ on files written by laspy, whole, cut into tiles, lying and damaged."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.pointfiles import SOURCE, laz
from brickyard.ingest.pointfiles import las as las_reader
from brickyard.ingest.pointfiles.crs import crs_text
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives

FEET = (
    b'PROJCS["x",GEOGCS["y",UNIT["degree",0.0174]],UNIT["US survey foot",0.3048006096]],'
    b'VERT_CS["z",UNIT["US survey foot",0.3048006096]]'
)


def write_las(
    path: Path,
    *,
    point_format: int = 3,
    count: int = 500,
    wide_colors: bool = True,
    wkt: bytes = b"",
    known: bool = True,
) -> laspy.LasData:
    """A small survey; with `known`, its classes are all of the ASPRS table."""
    rng = np.random.default_rng(0)
    header = laspy.LasHeader(version="1.4" if point_format >= 6 else "1.2", point_format=point_format)
    header.scales, header.offsets = [0.001, 0.001, 0.01], [500_000, 5_800_000, -10]
    if wkt:
        header.vlrs.append(laspy.VLR("LASF_Projection", 2112, "", wkt))
    las = laspy.LasData(header)
    low = np.array([500_010.5, 5_800_020.25, 101.0])
    las.x, las.y, las.z = (low + rng.random((count, 3)) * (40, 20, 5)).T
    las.intensity = rng.integers(1, 60_000, count)
    las.classification = rng.integers(0, 23 if known else 32, count)
    las.number_of_returns = rng.integers(1, 8 if point_format < 6 else 16, count)
    las.return_number = rng.integers(1, np.asarray(las.number_of_returns) + 1)
    if point_format not in (0, 2):
        las.gps_time = 3e8 + rng.random(count) * 100
    if point_format in (2, 3, 7):
        top = 65_536 if wide_colors else 256
        las.red, las.green, las.blue = rng.integers(top // 2, top, (3, count))
    path.parent.mkdir(parents=True, exist_ok=True)
    las.write(str(path))
    return las


def plan(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), PointFilesOptions(**options)))


def read(root: Path, **options: Any) -> Scene:
    (ref,) = plan(root, **options)
    assert isinstance(ref, SceneRef)
    return SOURCE.read(ref)


def world(scene: Scene) -> np.ndarray:
    assert scene.points is not None
    return scene.points.xyz.astype(np.float64) + scene.world_from_scene[:3, 3]


@pytest.mark.parametrize("suffix", ["las", "laz"])
@pytest.mark.parametrize("point_format", [0, 1, 2, 3, 6, 7])
def test_points_equal_those_of_laspy(tmp_path: Path, suffix: str, point_format: int) -> None:
    las = write_las(tmp_path / f"a/b.{suffix}", point_format=point_format, known=False)
    scene = read(tmp_path, licence="CC0-1.0", domain="indoor", version="3")
    points = scene.points
    assert points is not None and points.intensity is not None
    assert np.abs(world(scene) - las.xyz).max() < 2e-6, "of coordinates of seven digits before the point"
    assert np.abs(points.xyz).max() < 25 and points.intensity_unit == "raw"
    np.testing.assert_array_equal(points.intensity, las.intensity)
    np.testing.assert_array_equal(points.return_number, las.return_number)
    np.testing.assert_array_equal(points.return_count, las.number_of_returns)
    assert scene.identity.timestamp_ns is None, "times of an unnamed week"
    if point_format in (0, 2):
        assert points.time_offset is None
    else:
        np.testing.assert_allclose(points.time_offset, las.gps_time - np.min(las.gps_time), atol=4e-6)
    raw = np.asarray(las.classification).astype(int)
    np.testing.assert_array_equal(points.semantic["asprs"], np.where(raw < 23, raw, -1))
    if point_format in (2, 3, 7):
        np.testing.assert_array_equal(points.color, np.stack([las.red, las.green, las.blue], axis=1) >> 8)
    else:
        assert points.color is None
    identity = scene.identity
    assert (identity.key, identity.split, identity.licence) == (f"pointfiles/a/b.{suffix}", "none", "CC0-1.0")
    assert (identity.domain, identity.version, identity.sequence) == ("indoor", "3", f"a/b.{suffix}")
    assert identity.sources[0].size == (tmp_path / f"a/b.{suffix}").stat().st_size
    assert scene.dropped == {"labels of no known class set": int((raw >= 23).sum())}


def test_eight_bit_colours_in_sixteen_bit_fields_stay(tmp_path: Path) -> None:
    las = write_las(tmp_path / "a.las", wide_colors=False)
    points = read(tmp_path).points
    assert points is not None
    np.testing.assert_array_equal(points.color, np.stack([las.red, las.green, las.blue], axis=1))


def test_empty_fields_are_absent_and_deleted_points_are_counted(tmp_path: Path) -> None:
    las = write_las(tmp_path / "a.las")
    las.red[:], las.green[:], las.blue[:], las.intensity[:] = 0, 0, 0, 0
    las.classification[:] = 1
    las.withheld[:7] = 1
    las.write(str(tmp_path / "a.las"))
    scene = read(tmp_path)
    points = scene.points
    assert points is not None and points.color is None and points.intensity is None and not points.semantic
    assert scene.dropped == {"withheld points": 7} and len(points) == 493


@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_tiles_share_out_all_points(tmp_path: Path, suffix: str) -> None:
    las = write_las(tmp_path / f"a.{suffix}", point_format=7)
    # Bounds that lie: the outermost tiles are open.
    data = bytearray((tmp_path / f"a.{suffix}").read_bytes())
    struct.pack_into("<4d", data, 179, 500_044.0, 500_014.0, 5_800_035.0, 5_800_022.0)
    (tmp_path / f"a.{suffix}").write_bytes(data)
    refs = plan(tmp_path, tile_m=10.0)
    assert [ref.scene_id for ref in refs] == [f"a.{suffix}/tile-{c}-{r}" for c in range(3) for r in range(2)]
    scenes = [SOURCE.read(ref) for ref in refs if isinstance(ref, SceneRef)]
    assert {scene.identity.sequence for scene in scenes} == {f"a.{suffix}"}
    together = np.concatenate([world(scene) for scene in scenes])
    assert len(together) == len(las.xyz)
    np.testing.assert_allclose(together[np.lexsort(together.T)], las.xyz[np.lexsort(las.xyz.T)], atol=2e-6)
    middle = world(scenes[2])
    assert (middle[:, 0] >= 500_024 - 1e-4).all() and (middle[:, 0] <= 500_034 + 1e-4).all()
    assert (middle[:, 1] <= 5_800_032 + 1e-4).all() and len(middle) > 20


def test_the_colour_rule_is_of_the_file_not_of_the_tile(tmp_path: Path) -> None:
    las = write_las(tmp_path / "a.las")
    dark = np.asarray(las.x) < 500_030
    las.red[dark], las.green[dark], las.blue[dark] = 200, 200, 200
    las.write(str(tmp_path / "a.las"))
    first = plan(tmp_path, tile_m=15.0)[0]
    assert isinstance(first, SceneRef)
    points = SOURCE.read(first).points
    assert points is not None and points.color is not None and points.color.max() == 0


def test_tiles_of_impossible_bounds_are_missing(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las")
    data = bytearray((tmp_path / "a.las").read_bytes())
    for bounds in ((1e300, -1e300, 1, 0), (0, 1, 1, 0), (np.nan, 0, 1, 0), (5e5, 0, 1, 0), (1010, 0, 1010, 0)):
        struct.pack_into("<4d", data, 179, *bounds)
        (tmp_path / "a.las").write_bytes(data)
        (item,) = plan(tmp_path, tile_m=10.0)
        assert isinstance(item, Missing) and "tiles" in item.reason
    assert len(plan(tmp_path, tile_m=11.0)) == 92**2
    (tmp_path / "a.las").write_bytes(b"LASF")
    (ref,) = plan(tmp_path, tile_m=10.0)
    assert isinstance(ref, SceneRef)
    with pytest.raises(RawDataError, match="file ends after 4 bytes"):
        SOURCE.read(ref)


def test_feet_become_metres(tmp_path: Path) -> None:
    las = write_las(tmp_path / "a.las", wkt=FEET)
    assert np.abs(world(read(tmp_path)) - las.xyz * 0.3048006096).max() < 2e-6
    assert np.abs(world(read(tmp_path, metres_per_unit=2.0)) - las.xyz * 2).max() < 4e-6
    assert len(plan(tmp_path, tile_m=5.0)) == 3 * 2, "12.2 m x 6.1 m"


def test_options_and_roots_that_make_no_sense(tmp_path: Path) -> None:
    for options in ({"tile_m": 0.0}, {"tile_m": float("nan")}, {"metres_per_unit": -1.0}, {"domain": "space"}):
        with pytest.raises(RecipeError, match="pointfiles options"):
            PointFilesOptions(**options)  # type: ignore[arg-type]
    (tmp_path / "notes.txt").write_text("no points")
    with pytest.raises(RecipeError, match="no point files"):
        plan(tmp_path)


LIES: list[tuple[int, str, Any, str]] = [
    (0, "4s", b"LASX", "does not begin with LASF"),
    (25, "B", 9, "version 1.9"),
    (94, "H", 60_000, "a header of 60000 bytes"),
    (94, "H", 100, "a header of 100 bytes"),
    (96, "I", 0xFFFFFFFF, "points at 4294967295"),
    (100, "I", 1_069_128_089, "1069128089 variable length records do not fit"),
    (104, "B", 13, "point format 13"),
    (105, "H", 5, "records of 5 bytes"),
    (105, "H", 0, "records of 0 bytes"),
    (107, "I", 0xFFFFFFFF, "4294967295 points of 34 bytes are declared|4294967295 points are declared"),
    (131, "d", 0.0, "impossible scale"),
    (131, "d", float("nan"), "impossible scale"),
    (131, "d", 1e300, "not on this planet"),
    (155, "d", 1e200, "not on this planet"),
    (131, "d", 10.0, "the points span"),
]


@pytest.mark.parametrize(("offset", "kind", "value", "message"), LIES)
def test_headers_that_lie_are_refused_and_cost_no_memory(
    tmp_path: Path, offset: int, kind: str, value: Any, message: str
) -> None:
    write_las(tmp_path / "a.las")
    data = bytearray((tmp_path / "a.las").read_bytes())
    struct.pack_into("<" + kind, data, offset, value)
    (tmp_path / "a.las").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(RawDataError, match=message):
        read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_compressed_files_that_lie_are_refused_before_the_decoder_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_las(tmp_path / "a.laz")
    good = (tmp_path / "a.laz").read_bytes()
    start = struct.unpack_from("<I", good, 96)[0]
    record = good.index(b"laszip encoded") - 2 + 54
    table = struct.unpack_from("<q", good, start)[0]
    monkeypatch.setattr(laz, "_run", lambda *_, **__: pytest.fail("the decoder was started"))
    cases = [
        (record, "H", 1, "compressor 1"), (record + 12, "I", 0, "chunks of 0"), (record + 12, "I", 2**31, "chunks of"),
        (record + 32, "H", 9, "LASzip items"), (record + 36, "H", 21, "LASzip items"),
        (start, "q", 1 << 40, "chunk table lies outside"), (start, "q", -2, "chunk table lies outside"),
        (table, "I", 7, "version 7"), (table + 4, "I", 0xFFFFFFFF, "4294967295 chunks for 500 points"),
        (107, "I", 4_000_000_000, "1 chunks for 4000000000 points"),
    ]  # fmt: skip
    for offset, kind, value, message in cases:
        data = bytearray(good)
        struct.pack_into("<" + kind, data, offset, value)
        (tmp_path / "a.laz").write_bytes(data)
        with pytest.raises(RawDataError, match=message):
            read(tmp_path)


def test_a_streamed_file_names_its_chunk_table_at_the_end(tmp_path: Path) -> None:
    las = write_las(tmp_path / "a.laz")
    data = bytearray((tmp_path / "a.laz").read_bytes())
    start = struct.unpack_from("<I", data, 96)[0]
    data += data[start : start + 8]
    struct.pack_into("<q", data, start, -1)
    (tmp_path / "a.laz").write_bytes(data)
    assert np.abs(world(read(tmp_path)) - las.xyz).max() < 2e-6


def test_a_decoder_that_panics_ends_its_own_process_only(tmp_path: Path) -> None:
    write_las(tmp_path / "a.laz", point_format=7, count=2000)
    data = bytearray((tmp_path / "a.laz").read_bytes())
    start = struct.unpack_from("<I", data, 96)[0]
    struct.pack_into("<I", data, start + 8 + 36 + 4, 0x7FFFFFF0)  # bytes of the first layer of the first chunk
    (tmp_path / "a.laz").write_bytes(data)
    with pytest.raises(RawDataError, match="cannot be decompressed"):
        read(tmp_path)


def test_the_decoder_has_little_memory_and_little_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_las(tmp_path / "a.laz")
    monkeypatch.setattr(laz, "MEMORY_BYTES", 1 << 20)
    with pytest.raises(RawDataError, match="cannot be decompressed"):
        read(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(laz, "START_SECONDS", 0)
    with pytest.raises(RawDataError, match="longer than 0 s"):
        read(tmp_path)
    monkeypatch.undo()
    assert read(tmp_path).points is not None


@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_absolute_times_give_the_scene_its_timestamp(tmp_path: Path, suffix: str) -> None:
    las = write_las(tmp_path / f"a.{suffix}", point_format=6)
    las.header.global_encoding.gps_time_type = laspy.header.GpsTimeType.STANDARD
    las.gps_time[3] = 2.5e8
    las.write(str(tmp_path / f"a.{suffix}"))
    scene = read(tmp_path)
    assert scene.points is not None and scene.points.time_offset is None, "a century in one file"
    assert scene.dropped == {"times that span more than a week": 500} and scene.identity.timestamp_ns is None
    las.gps_time[3] = 3e8 - 0.25
    las.write(str(tmp_path / f"a.{suffix}"))
    scene = read(tmp_path)
    assert scene.identity.timestamp_ns == 1_299_999_999_750_000_000
    assert scene.points is not None and scene.points.time_offset is not None and scene.points.time_offset[3] == 0
    np.testing.assert_allclose(scene.points.time_offset, las.gps_time - (3e8 - 0.25), atol=4e-6)
    las.gps_time[7] = np.nan
    las.write(str(tmp_path / f"a.{suffix}"))
    scene = read(tmp_path)
    assert scene.points is not None and scene.points.time_offset is None and len(scene.points) == 500
    assert scene.dropped == {"times that are not finite": 1}


def test_the_coordinate_system_is_kept_as_text(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las", wkt=FEET + b"\0\0")
    assert read(tmp_path).world_crs == FEET.decode()
    write_las(tmp_path / "a.las")
    assert read(tmp_path).world_crs is None
    # As an extended record behind the points.
    las = write_las(tmp_path / "a.las", point_format=6)
    las.evlrs = laspy.vlrs.vlrlist.VLRList(
        [laspy.VLR("other", 2112, "", b"x" * 70_000), laspy.VLR("LASF_Projection", 2112, "", FEET)]
    )
    las.write(str(tmp_path / "a.las"))
    scene = read(tmp_path)
    assert scene.world_crs == FEET.decode() and not scene.dropped
    assert np.abs(world(scene) - las.xyz * 0.3048006096).max() < 2e-6
    data = bytearray((tmp_path / "a.las").read_bytes())
    for count, place, lost in ((0xFFFFFFFF, None, 0xFFFFFFFF - 2), (2, len(data) - 10, 2), (2, 1 << 60, 2)):
        struct.pack_into("<I", data, 243, count)
        if place is not None:
            struct.pack_into("<Q", data, 235, place)
        (tmp_path / "a.las").write_bytes(data)
        assert read(tmp_path).dropped == {"variable length records that are not there": lost}


def test_geotiff_keys_become_lines_of_text() -> None:
    keys = struct.pack("<20H", 1, 1, 0, 4, 1024, 0, 1, 1, 1026, 34737, 6, 2, 3072, 0, 1, 26910, 5000, 34736, 2, 1)
    records = {34735: keys, 34736: struct.pack("<3d", 0, 1.5, 2), 34737: b"x|UTM 10|"}
    assert crs_text(records) == (
        "GTModelTypeGeoKey: 1\nGTCitationGeoKey: UTM 10\nProjectedCRSGeoKey: 26910\n5000: 1.5 2.0"
    )
    assert crs_text({34735: keys[:9]}) is None and crs_text({}) is None and crs_text({2112: b"\0"}) is None


def test_times_and_places_of_a_point_format_are_those_of_the_specification() -> None:
    for number in range(11):
        dtype = laspy.PointFormat(number).dtype()
        time = dtype.fields.get("gps_time") if dtype.fields else None
        assert las_reader.TIME_AT[number] == (None if time is None else time[1])
        assert las_reader.RECORD_BYTES[number] == dtype.itemsize


@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path, suffix: str) -> None:
    write_las(tmp_path / f"a.{suffix}", point_format=7, count=8, wkt=FEET)
    survived = assert_survives(SOURCE, tmp_path, [f"a.{suffix}"], count=2000 if suffix == "las" else 300)
    assert survived.scenes > 50 and survived.errors > 50


def test_it_keeps_the_promises_of_a_source(tmp_path: Path) -> None:
    for suffix in ("las", "laz"):
        write_las(tmp_path / f"a.{suffix}", point_format=7, wkt=FEET)
    assert_source_ok(SOURCE, str(tmp_path))
    assert_source_ok(SOURCE, str(tmp_path), PointFilesOptions(tile_m=6.0, overlap_m=1.0))
    assert_source_ok(SOURCE, str(tmp_path), PointFilesOptions(max_points=100))
