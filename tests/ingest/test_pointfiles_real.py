"""The point files on the real samples: good ones equal laspy's and plyfile's readings, hostile ones end in an error."""

from __future__ import annotations

import io
import resource
import struct
import time
from dataclasses import replace
from pathlib import Path

import laspy
import numpy as np
import plyfile
import pytest

from brickyard.ingest.pointfiles import SOURCE
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

pytestmark = pytest.mark.real
REFUSED = {
    "hostile/garbage_nVariableLength.las": "1069128089 variable length records do not fit",
    "hostile/simple-laszip-compressor-version-1.2r0.laz": "LASzip compressor 1",
    "pdal/las/no-points.las": "has no points",
    "pdal/ply/no_vertex.ply": "no element 'vertex'",
    "pdal/ply/sized_dims.ply": "x, y and z are needed",
    "pdal/ply/unsized_dims.ply": "x, y and z are needed",
}
NOT_PLANNED = {
    "laspy/simple1_3.las": "EPSG:32632, which is no unit of length",
    "pdal/las/no-points.las": "degrees of longitude",
}


@pytest.fixture(scope="module")
def refs(samples: Path) -> dict[str, SceneRef]:
    """Of every file; those whose unit is degrees or unknown in the unit that they have."""
    store = Store(samples / "las_ply")
    planned = list(SOURCE.plan(store, PointFilesOptions()))
    refused = {item.scene_id: item.reason for item in planned if not isinstance(item, SceneRef)}
    assert set(refused) == set(NOT_PLANNED) and all(NOT_PLANNED[name] in text for name, text in refused.items())
    items = [*SOURCE.plan(store, PointFilesOptions(metres_per_unit=1.0)), *planned]
    return {item.scene_id: item for item in items if isinstance(item, SceneRef)}


def world(scene: Scene) -> np.ndarray:
    assert scene.points is not None
    return scene.points.xyz.astype(np.float64) + scene.world_from_scene[:3, 3]


def test_every_sample_is_a_scene_or_a_stated_error(refs: dict[str, SceneRef]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = {}
    for name, ref in refs.items():
        begin = time.process_time()
        try:
            SOURCE.read(ref).validate()
        except RawDataError as problem:
            refused[name] = str(problem)
        assert time.process_time() - begin < 5, name
    assert len(refs) == 41 and set(refused) == set(REFUSED)
    assert all(REFUSED[name] in text for name, text in refused.items())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes"


def test_las_values_equal_those_of_laspy(samples: Path, refs: dict[str, SceneRef]) -> None:
    compared, timed = [], 0
    for name, ref in refs.items():
        if name in REFUSED or not name.endswith((".las", ".laz")):
            continue
        # In the unit of the file, to compare with laspy, which knows no units.
        ref = replace(ref, details={**ref.details, "metres_per_unit": 1.0})
        scene, path = SOURCE.read(ref), samples / "las_ply" / name
        # laspy refuses a list of records that is shorter than it should be; its points are compared without one.
        data, short = path.read_bytes(), "variable length records that are not there" in scene.dropped
        las = laspy.read(io.BytesIO(without_records(data) if short else data))
        points = scene.points
        assert points is not None
        assert np.abs(world(scene) - las.xyz).max() < 2e-4, name
        intensity = np.asarray(las.intensity)
        if intensity.any():
            np.testing.assert_array_equal(points.intensity, intensity, err_msg=name)
        classes = np.asarray(las.classification)
        if classes.max() > 1:
            np.testing.assert_array_equal(points.semantic["asprs"], np.where(classes < 23, classes, -1), err_msg=name)
        if points.color is not None:
            color = np.stack([las.red, las.green, las.blue], axis=1)
            np.testing.assert_array_equal(points.color, color >> 8 if color.max() > 255 else color, err_msg=name)
        returns = np.stack([las.return_number, las.number_of_returns])
        if returns.any():
            np.testing.assert_array_equal([points.return_number, points.return_count], returns, err_msg=name)
        else:
            assert points.return_number is None and points.return_count is None
        timed += compare_times(scene, las, name)
        compared.append(name)
    assert len(compared) == 29 and timed == 23


def compare_times(scene: Scene, las: laspy.LasData, name: str) -> bool:
    """Whether the file has times; those that are no numbers make the field absent, not the points."""
    points = scene.points
    assert points is not None
    times = np.asarray(las.gps_time) if "gps_time" in las.point_format.dimension_names else np.zeros(1)
    if not times.any() or np.isnan(times).any():
        assert points.time_offset is None, name
        assert scene.dropped.get("times that are not finite", 0) == np.isnan(times).sum(), name
        return False
    assert points.time_offset is not None, name
    np.testing.assert_allclose(points.time_offset, times - times.min(), rtol=1e-6, err_msg=name)
    absolute = las.header.global_encoding.gps_time_type == laspy.header.GpsTimeType.STANDARD
    expected = round(times.min() * 1e9) + 10**18 if absolute else None
    assert scene.identity.timestamp_ns == expected, name
    return True


def test_coordinate_systems_are_those_laspy_parses(samples: Path, refs: dict[str, SceneRef]) -> None:
    wkt, keys = {}, {}
    for name, ref in refs.items():
        if name in REFUSED or not name.endswith((".las", ".laz")):
            continue
        ref = replace(ref, details={**ref.details, "metres_per_unit": 1.0})
        scene = SOURCE.read(ref)
        if scene.dropped.get("variable length records that are not there"):
            continue
        header = laspy.open(samples / "las_ply" / name).header
        records = [r for r in [*header.vlrs, *(header.evlrs or [])] if r.user_id == "LASF_Projection"]
        texts = [r.string for r in records if r.record_id == 2112]
        if texts:
            wkt[name] = texts[0].strip("\0")
            assert scene.world_crs == wkt[name], name
        elif any(r.record_id == 34735 for r in records):
            keys[name] = next(r for r in records if r.record_id == 34735).geo_keys
            lines = (scene.world_crs or "").splitlines()
            assert len(lines) == len([key for key in keys[name] if key.id]), name
        else:
            assert scene.world_crs is None, name
    assert len(wkt) >= 5 and len(keys) >= 2
    autzen = SOURCE.read(refs["pdal/autzen/autzen-utm.las"]).world_crs
    assert autzen is not None and "ProjectedCRSGeoKey: 26910" in autzen.splitlines()


def without_records(data: bytes) -> bytes:
    """The same file without its variable length records."""
    start = struct.unpack_from("<I", data, 96)[0]
    head = bytearray(data[:227])
    struct.pack_into("<II", head, 96, 227, 0)
    return bytes(head) + data[start:]


def test_compressed_and_plain_twins_are_equal(refs: dict[str, SceneRef]) -> None:
    for plain, packed in (("simple.las", "simple.laz"), ("1_4_w_evlr.las", "1_4_w_evlr.laz")):
        first, second = (SOURCE.read(refs[f"laspy/{name}"]) for name in (plain, packed))
        np.testing.assert_array_equal(world(first), world(second))
    # The one names feet for its heights, the other no coordinate system.
    copc, plain_scene = (
        SOURCE.read(replace(ref, details={**ref.details, "metres_per_unit": 1.0}))
        for ref in (refs["laspy/simple.copc.laz"], refs["laspy/simple.las"])
    )
    rows = [np.sort(world(scene), axis=0) for scene in (copc, plain_scene)]
    np.testing.assert_allclose(*rows, atol=1e-4)


def test_colours_and_survey_feet_of_known_files(refs: dict[str, SceneRef]) -> None:
    simple = SOURCE.read(refs["laspy/simple.las"]).points
    assert simple is not None and simple.color is not None and simple.color.max() == 249
    plane = SOURCE.read(refs["laspy/plane.laz"]).points
    assert plane is not None and plane.color is None and len(plane) == 28_185
    assert np.ptp(plane.xyz[:, 0]) < 3, "a plane of two metres"
    autzen = SOURCE.read(refs["laspy/autzen_geo_proj.las"])
    assert np.abs(autzen.world_from_scene[:2, 3] - (194_231, 259_437)).max() < 2


def test_ply_values_equal_those_of_plyfile(samples: Path, refs: dict[str, SceneRef]) -> None:
    for name in ("mesh", "simple_binary", "text_extradim"):
        scene = SOURCE.read(refs[f"pdal/ply/{name}.ply"])
        vertex = plyfile.PlyData.read(samples / f"las_ply/pdal/ply/{name}.ply")["vertex"]
        np.testing.assert_allclose(world(scene), np.stack([vertex[a] for a in "xyz"], axis=1), atol=1e-6)
    text = SOURCE.read(refs["pdal/ply/text_extradim.ply"]).points
    assert text is not None and text.color is not None and text.color.tolist() == [[63, 200, 64]]


def test_pcd_is_the_cloud_of_its_las_twin(refs: dict[str, SceneRef]) -> None:
    pcd, las = SOURCE.read(refs["pdal/pcd/autzen-utm.pcd"]), SOURCE.read(refs["pdal/autzen/autzen-utm.las"])
    np.testing.assert_allclose(world(pcd), world(las), atol=1e-4)
    assert pcd.points is not None and las.points is not None
    np.testing.assert_array_equal(pcd.points.intensity, las.points.intensity)
    np.testing.assert_array_equal(pcd.points.semantic["asprs"], las.points.semantic["asprs"])
    np.testing.assert_array_equal(pcd.points.color, las.points.color)
    np.testing.assert_array_equal(pcd.points.return_number, las.points.return_number)
    np.testing.assert_array_equal(pcd.points.return_count, las.points.return_count)
    np.testing.assert_array_equal(pcd.points.time_offset, las.points.time_offset)


def test_a_mesh_of_scannet_is_a_point_file_too(samples: Path) -> None:
    items = SOURCE.plan(Store(samples / "scannet/scans/scene0000_00"), PointFilesOptions(domain="indoor"))
    sizes = {ref.scene_id: SOURCE.read(ref).points for ref in items if isinstance(ref, SceneRef)}
    mesh = sizes["scene0000_00_vh_clean_2.ply"]
    assert mesh is not None and len(mesh) == 81_369 and mesh.color is not None
