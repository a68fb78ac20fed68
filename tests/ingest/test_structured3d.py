"""The Structured3D reader: what is read, what is refused, and what every trap of the release comes to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.damage import NAMELESS, assert_damage_is_noticed
from brickyard.ingest.source import Missing, Notice
from brickyard.ingest.structured3d import SOURCE
from brickyard.ingest.structured3d.cameras import PANORAMA_AXES
from brickyard.ingest.structured3d.frame import CONTRADICTED, LAYOUT, OTHERS, OURS, PLANES
from brickyard.ingest.structured3d.listing import Survey
from brickyard.ingest.structured3d.plan import (
    CLOUDS,
    HOUSES,
    ROOMS,
    Structured3DOptions,
    _notices,
    errata,
    split_of,
)
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store
from tests.ingest import structured3d_toy as toy
from tests.ingest.mutation import assert_survives

REFUSED = "this reader has met no real file that says so: please report it"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.world(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.world(tmp_path_factory.mktemp("unpacked"), packed=False, houses=1)


@pytest.fixture
def loose(unpacked: Path, tmp_path: Path) -> Path:
    """One room in folders, to be changed."""
    return toy.copied(unpacked, tmp_path / "loose")


@pytest.fixture
def zips(packed: Path, tmp_path: Path) -> Path:
    return toy.copied(packed, tmp_path / "zips")


# What is planned


def test_the_splits_are_those_of_the_house_numbers() -> None:
    assert [split_of(house) for house in (0, 2999, 3000, 3249, 3250, 3499, 3500)] == [
        "train", "train", "val", "val", "test", "test", "none"
    ]  # fmt: skip
    assert sum(map(len, HOUSES.values())) == 3500 and ROOMS - sum(CLOUDS.values()) == 14
    assert len(errata()["invalid houses"]) == 6 and len(errata()["wrong layouts"]) == 90


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"light": "cold"}, "only panoramas are rendered 'cold'"),
        ({"configuration": "simple", "points": "panorama"}, "only panoramas are rendered 'simple'"),
        ({"configuration": "half"}, "no configuration 'half'"),
        ({"points": "none"}, "points cannot be 'none'"),
        ({"views": "all"}, "views cannot be 'all'"),
        ({"grid_m": 0.0001}, "grid_m"),
        ({"min_cosine": 1.0}, "min_cosine"),
        ({"max_views": 0}, "max_views"),
        ({"light": "dim"}, "no light 'dim'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        Structured3DOptions(**options)


def test_a_root_without_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(RawDataError, match=r"no room of Structured3D is here .*scene_00000/2D_rendering"):
        toy.plan(tmp_path)


def test_volumes_published_twice_and_volumes_that_are_absent(packed: Path) -> None:
    told = toy.told(packed)
    assert told["Structured3D_perspective_full_08.zip"] == (
        "it holds houses 01850 to 01850, its number says houses 01600 to 01799 (the release has lost these views)"
    )
    assert told["Structured3D_perspective_full_09.zip"] == (
        "8 files of houses 01850 to 01850 are in Structured3D_perspective_full_08.zip, too, "
        "none of them with another content: those are read, not these"
    )
    assert "these are not here: 01 02 03 04 05 06 07 08 10" in told["Structured3D_panorama_*.zip"]
    assert set(told) == {
        "Structured3D_perspective_full_08.zip", "Structured3D_perspective_full_09.zip", "Structured3D_panorama_*.zip",
        "Structured3D_perspective_full_*.zip",
    }  # fmt: skip
    assert all(isinstance(item, Notice) for item in toy.plan(packed) if isinstance(item, Missing))


def test_a_copy_with_another_content_is_told_and_the_later_release_is_read(zips: Path) -> None:
    def older(name: str, data: bytes) -> bytes:
        return data.replace(b'"cuboids": []', b'"cuboids": [1]') if name.endswith("annotation_3d.json") else data

    toy.rewritten(zips / "Structured3D_panorama_00.zip", older)
    reason = toy.told(zips)["Structured3D_panorama_00.zip"]
    assert reason.startswith(
        "1 files of houses 00012 to 00012 are in Structured3D_annotation_3d.zip, too, 1 of them with"
    )
    assert "annotation annotation_3d.zip " in toy.refs(zips)[0].details["members"]


def test_zips_anywhere_and_folders_beside_them_make_one_dataset(zips: Path, unpacked: Path) -> None:
    """The house of the folders is in the zips, too; those are read, as they have checksums."""
    before = toy.read(zips)
    (zips / "download").mkdir()
    (zips / "Structured3D_panorama_00.zip").rename(zips / "download/Structured3D_panorama_00.zip")
    shutil.copytree(unpacked / "Structured3D", zips / "Structured3D_panorama_00/Structured3D")
    (zips / "Structured3D_perspective_full_00.zip").unlink()
    after = toy.read(zips)
    assert before.points is not None and after.points is not None
    np.testing.assert_array_equal(before.points.xyz, after.points.xyz)
    read = {file.path for file in after.identity.sources}
    assert "download/Structured3D_panorama_00.zip" in read
    assert any(path.startswith("Structured3D_panorama_00/Structured3D/scene_00012/") for path in read)
    assert ": those are read, not these" in toy.told(zips)["the unpacked folders"]


def test_invalid_houses_are_told_and_read_only_on_request(loose: Path) -> None:
    (loose / "Structured3D/scene_00012").rename(loose / "Structured3D/scene_01155")
    (item,) = toy.plan(loose)
    assert isinstance(item, Notice) and (item.scene_id, item.reason[:36]) == (
        "scene_01155", "the release's errata call this house"
    )  # fmt: skip
    assert len(toy.refs(loose, invalid_houses=True)) == 1


def test_a_layout_that_the_errata_call_wrong_is_not_believed(loose: Path) -> None:
    room = toy.room_folder(loose)
    room.rename(room.parent / "846619")
    (loose / "Structured3D/scene_00012").rename(loose / "Structured3D/scene_00010")
    annotation = loose / "Structured3D/scene_00010/annotation_3d.json"
    annotation.write_text(annotation.read_text().replace(f'"ID": {room.name}', '"ID": 846619'))
    assert toy.read(loose).dropped[f"{LAYOUT}: the errata call it wrong"] == 1


def test_a_room_without_its_pictures_is_missing(loose: Path) -> None:
    room = toy.room_folder(loose)
    (room / "panorama/full/depth.png").unlink()
    (ref,) = toy.refs(loose)
    assert ref.details["dropped"] == {"panorama picture without its depth": 1}
    for path in room.glob("perspective/full/*/camera_pose.txt"):
        path.unlink()
    (lost,) = toy.plan(loose)
    assert type(lost) is Missing and lost.reason == (
        "perspective picture without its camera; panorama picture without its depth: full both pictures were asked for"
    )
    assert len(toy.refs(loose, configuration="simple", points="panorama", views="panorama")) == 1


def test_rooms_without_perspective_pictures_are_counted(zips: Path) -> None:
    """As those of houses 1600 to 1799 are."""
    for path in zips.glob("*perspective_full_0[089].zip"):
        path.unlink()
    scene = toy.read(zips)
    assert scene.dropped["room without a perspective picture"] == 1 and len(scene.views) == 1


@pytest.mark.parametrize(("more", "wrong"), [(0, ()), (14, ()), (-1, ("train",)), (15, ("train",))])
def test_the_numbers_of_rooms_are_those_published_where_all_houses_are(more: int, wrong: tuple[str, ...]) -> None:
    rooms = [(house, room) for house in range(3500) for room in range(5)]
    for split, houses in HOUSES.items():
        lacking = CLOUDS[split] + (more if split == "train" else 0) - 5 * len(houses)
        rooms += [(houses[k % len(houses)], 5 + k // len(houses)) for k in range(lacking)]
    survey = Survey(np.empty((0, 10), np.int64), [], [], sorted(rooms), {}, {})
    told = {item.scene_id: item.reason for item in _notices(survey, Structured3DOptions(invalid_houses=True))}
    assert set(told) == {f"split {split}" for split in wrong}
    assert all(f"Sonata was trained on {CLOUDS['train']}" in reason for reason in told.values())
    assert not list(_notices(replace(survey, rooms=survey.rooms[5:4000]), Structured3DOptions(invalid_houses=True)))


# What is read


def test_labels_come_by_the_index_of_the_palette_or_as_grey_and_never_as_colours(loose: Path) -> None:
    path = toy.room_folder(loose) / "panorama/full/semantic.png"
    whole = toy.read(loose)
    with Image.open(path) as image:
        assert image.mode == "P"
        grey, colors = Image.fromarray(np.asarray(image)), image.convert("RGB")
    grey.save(path)
    np.testing.assert_array_equal(toy.read(loose).views[0].semantic["nyu40"], whole.views[0].semantic["nyu40"])
    colors.save(path)
    with pytest.raises(RawDataError, match=rf"semantic.png: expected grey of .*found rgb of 8 \({REFUSED}"):
        toy.read(loose)


def test_ids_beyond_the_classes_are_refused(loose: Path) -> None:
    path = toy.room_folder(loose) / "panorama/full/semantic.png"
    toy.repaint(path, lambda pixels: np.where(pixels == 1, 41, pixels).astype(np.uint8))
    with pytest.raises(RawDataError, match=rf"it has the id 41, NYU40 ends with 40 \({REFUSED}"):
        toy.read(loose)


def test_pixels_without_depth_or_class_are_no_points(loose: Path) -> None:
    room = toy.room_folder(loose)
    options = {"points": "panorama", "views": "panorama", "grid_m": 0, "min_cosine": 0}

    def half_blank(pixels: Any) -> Any:
        pixels = pixels.copy()
        pixels[:, :128] = 0
        return pixels

    toy.repaint(room / "panorama/full/depth.png", half_blank)
    after = toy.read(loose, **options)
    assert after.points is not None
    with Image.open(room / "panorama/full/depth.png") as image:
        measured = int((np.asarray(image) > 0).sum())
    assert after.dropped["pixel without depth"] == 128 * 256 - measured >= 128 * 128
    assert len(after.points) == measured
    toy.repaint(room / "panorama/full/depth.png", lambda pixels: np.where(pixels == 0, 65535, pixels).astype(np.uint16))
    far = toy.read(loose, **options)
    assert far.points is not None and far.views[0].depth is not None
    assert len(far.points) == measured == int((far.views[0].depth.values > 0).sum())
    toy.repaint(room / "panorama/full/semantic.png", half_blank)
    toy.repaint(
        room / "panorama/full/depth.png", lambda pixels: np.where(pixels == 65535, 1500, pixels).astype(np.uint16)
    )
    few, all_ = toy.read(loose, **options), toy.read(loose, keep_unlabelled=True, **options)
    assert few.points is not None and all_.points is not None
    assert few.dropped["pixel without a class"] == len(all_.points) - len(few.points) > 10_000
    assert (all_.points.semantic["nyu40"] == -1).sum() == few.dropped["pixel without a class"]


def test_walls_lie_on_the_planes_of_the_layout_that_is_kept(loose: Path) -> None:
    room = toy.read(loose)
    assert room.points is not None
    layout = room.annotations["layout"]
    xyz = room.points.xyz[np.isin(room.points.semantic["nyu40"], (1, 2, 22))].astype(np.float64)
    off = np.abs([xyz @ plane["normal"] + plane["offset"] for plane in layout["planes"]]).min(axis=0)
    assert np.median(off) < 0.002 and (off < 0.02).mean() > 0.7
    floor, ceiling = np.array(layout["floor"]), np.array(layout["ceiling"])
    low, high = room.points.xyz.min(axis=0), room.points.xyz.max(axis=0)
    np.testing.assert_allclose(floor.min(axis=0), low, atol=0.05)
    np.testing.assert_allclose(ceiling.max(axis=0), high, atol=0.05)


def test_blended_pixels_at_edges_are_left_out(loose: Path) -> None:
    """A stripe half way between two depths, as the renderer makes at the edge of an object."""
    room = toy.room_folder(loose)

    def step(pixels: Any) -> Any:
        pixels = np.full_like(pixels, 3000)
        pixels[:, 64:192] = 1500
        pixels[:, [63, 192]] = 2250
        return pixels

    toy.repaint(room / "panorama/full/depth.png", step)
    options = {"points": "panorama", "views": "none", "grid_m": 0, "keep_unlabelled": True}
    for cosine, kept in ((0.0, True), (0.15, False)):
        points = toy.read(loose, min_cosine=cosine, **options).points
        assert points is not None
        camera = np.array([float(word) / 1000 for word in (room / "panorama/camera_xyz.txt").read_text().split()])
        reach = np.linalg.norm(points.xyz + np.array([*np.rint(camera[:2]), 0]) - camera, axis=1)
        assert bool((np.abs(reach - 2.25) < 0.001).any()) == kept
        assert len(points) > 128 * 250


def test_pictures_without_labels_give_points_without(loose: Path) -> None:
    room = toy.room_folder(loose)
    for path in [*room.rglob("semantic.png"), *room.rglob("instance.png")]:
        path.unlink()
    scene = toy.read(loose)
    assert scene.points is not None and not scene.points.semantic and scene.points.instance is None
    assert not scene.views[0].semantic and scene.views[0].instance is None
    assert scene.dropped["panorama picture without its semantic image"] == 1
    assert scene.dropped["perspective picture without its instance image"] == 2


def test_an_instance_image_of_another_size_is_left_out(loose: Path) -> None:
    """As one of scene_00706 is."""
    toy.repaint(toy.room_folder(loose) / "panorama/full/instance.png", lambda pixels: np.tile(pixels, (2, 1)))
    scene = toy.read(loose)
    assert scene.views[0].instance is None and scene.views[1].instance is not None
    assert scene.dropped["panorama picture whose instance image has another size"] == 1


def test_what_is_not_attached(loose: Path) -> None:
    views = toy.read(loose, read_depth=False, read_labels=False, max_views=1).views
    assert len(views) == 2
    assert all(view.depth is None and not view.semantic and view.instance is None for view in views)
    assert [view.name for view in toy.read(loose, views="perspective").views] == ["perspective-0", "perspective-1"]
    assert toy.read(loose, views="none").views == ()


def test_a_file_in_a_zip_costs_one_request(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref, *_), asked = toy.refs(packed), []
    read_range = Store.read_range

    def counted(store: Store, name: str, offset: int, length: int) -> bytes:
        asked.append(length)
        return read_range(store, name, offset, length)

    monkeypatch.setattr(Store, "read_range", counted)
    SOURCE.read(ref)
    members = [line.split() for line in ref.details["members"].split("\n")]
    assert len(asked) == len(members) == 1 + 6 + 2 * 5
    assert sum(asked) < sum(int(member[3]) for member in members) + 600 * len(members)


# Frames


def test_the_axes_of_a_panorama_are_right_handed() -> None:
    assert np.linalg.det(PANORAMA_AXES) == 1
    np.testing.assert_array_equal(PANORAMA_AXES @ (0, 0, 1), (0, 1, 0))  # ahead is +y
    np.testing.assert_array_equal(PANORAMA_AXES @ (1, 0, 0), (1, 0, 0))
    np.testing.assert_array_equal(PANORAMA_AXES @ (0, 1, 0), (0, 0, -1))
    assert len({OURS, *OTHERS}) == 8 and sorted(round(np.linalg.det(r.axes)) for r in OTHERS) == [-1] * 4 + [1] * 3


@pytest.mark.parametrize(
    ("change", "reading"),
    [
        (lambda p: np.roll(p, p.shape[1] // 2, axis=1), "along -y and its right half along -x"),
        (lambda p: np.roll(p, p.shape[1] // 4, axis=1), "along -x and its right half along +y"),
        (lambda p: p[:, ::-1], "along +y and its right half along -x"),
    ],
)
def test_a_turned_or_mirrored_panorama_is_refused(loose: Path, change: Any, reading: str) -> None:
    """By its layout; without one, by the perspective pictures."""
    room = toy.room_folder(loose)
    for path in (room / "panorama/full").glob("*.png"):
        toy.repaint(path, change)
    corners = np.array([line.split() for line in (room / "panorama/layout.txt").read_text().splitlines()], int)
    marked = np.zeros((128, 256), int)
    marked[corners[:, 1], corners[:, 0]] = np.arange(1, len(corners) + 1)
    row, column = np.nonzero(change(marked))
    order = np.argsort(change(marked)[row, column])
    lines = [f"{column[k]} {row[k]}\n" for k in order]
    (room / "panorama/layout.txt").write_text("".join(lines))
    with pytest.raises(RawDataError) as refused:
        toy.read(loose)
    assert f"looks {reading}, but not" in str(refused.value) and REFUSED in str(refused.value)
    (room / "panorama/layout.txt").unlink()
    with pytest.raises(RawDataError) as refused:
        toy.read(loose)
    assert REFUSED in str(refused.value) and "perspective" in str(refused.value)


def test_perspective_depth_along_rays_is_refused(loose: Path) -> None:
    for folder in sorted(toy.room_folder(loose).glob("perspective/full/*")):
        words = [float(word) for word in (folder / "camera_pose.txt").read_text().split()]

        def stretch(pixels: Any, words: list[float] = words) -> Any:
            height, width = pixels.shape
            x, y = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1)
            factor = np.sqrt(1 + (x * np.tan(words[9])) ** 2 + (y * np.tan(words[10])) ** 2)
            return np.round(pixels * factor * 1.0).astype(np.uint16)

        toy.repaint(folder / "depth.png", stretch)
    with pytest.raises(
        RawDataError, match=r"of the panorama's points, and with \d+% if it were measured along the rays"
    ):
        toy.read(loose)


def test_one_picture_of_another_place_is_left_out_and_all_of_them_are_refused(loose: Path) -> None:
    folders = sorted(toy.room_folder(loose).glob("perspective/full/*"))
    toy.repaint(folders[0] / "depth.png", lambda pixels: (pixels * 1.7).astype(np.uint16))
    scene = toy.read(loose)
    assert scene.dropped[CONTRADICTED] == 1 and [view.name for view in scene.views] == ["panorama", "perspective-1"]
    toy.repaint(folders[1] / "depth.png", lambda pixels: (pixels * 1.7).astype(np.uint16))
    with pytest.raises(RawDataError, match=rf"all 2 perspective pictures contradict it.*{REFUSED}"):
        toy.read(loose)
    assert len(toy.read(loose, min_agreement=0).views) == 3


def test_a_panorama_of_another_room_is_left_out(loose: Path) -> None:
    toy.repaint(toy.room_folder(loose) / "panorama/full/depth.png", lambda pixels: (pixels // 3).astype(np.uint16))
    scene = toy.read(loose)
    assert scene.dropped[PLANES] == 1
    assert scene.dropped["panorama that the planes and all perspective pictures contradict"] == 1
    assert [view.name for view in scene.views] == ["perspective-0", "perspective-1"]


def test_a_room_whose_frame_nothing_tells_is_counted(loose: Path) -> None:
    (loose / "Structured3D/scene_00012/annotation_3d.json").rename(loose / "kept.json")
    assert toy.read(loose).dropped[f"{LAYOUT}: there is none"] == 1
    table = json.loads((loose / "kept.json").read_text())
    table["semantics"] = []
    (loose / "Structured3D/scene_00012/annotation_3d.json").write_text(json.dumps(table))
    assert toy.read(loose).dropped[f"{LAYOUT}: it does not have this room"] == 1


def test_an_up_that_leans_towards_the_view_gives_the_same_camera(loose: Path) -> None:
    path = toy.room_folder(loose) / "perspective/full/0/camera_pose.txt"
    before = toy.read(loose).views[1].scene_from_camera
    words = np.array([float(word) for word in path.read_text().split()])
    leaning = words[6:9] + 0.4 * words[3:6]
    words[6:9] = leaning / np.linalg.norm(leaning)
    path.write_text(" ".join(f"{word:.9f}" for word in words))
    after = toy.read(loose).views[1].scene_from_camera
    assert before is not None and after is not None
    np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 0 1400 0 2 0 0 0 1 0.698132 0.440992 1", "unit vectors of view and up"),
        ("0 0 1400 0 1 0 0 1 0 0.698132 0.440992 1", "unit vectors of view and up"),
        ("0 0 1400 0 1 0 0 0 1 0.698132 0.440992 2", "unit vectors of view and up"),
        ("0 0 1400 0 1 0 0 0 1 1.396264 0.881984 1", "make no square ones"),
        ("0 0 1400 0 1 0 0 0 1 0.698132 3 1", "half angles of view"),
        ("0 9e9 1400 0 1 0 0 0 1 0.698132 0.440992 1", "m from the origin of its house"),
    ],
)
def test_cameras_that_are_not_as_published(loose: Path, text: str, problem: str) -> None:
    (toy.room_folder(loose) / "perspective/full/0/camera_pose.txt").write_text(text)
    with pytest.raises(RawDataError, match=rf"camera_pose.txt: .*{problem}.*{REFUSED}"):
        toy.read(loose)


@pytest.mark.parametrize("text", ["1 2", "1 2 x", "", "1 2 nan", "1 2 3\n4 5 6"])
def test_damaged_camera_files_cost_their_picture(loose: Path, text: str) -> None:
    (toy.room_folder(loose) / "panorama/camera_xyz.txt").write_text(text)
    assert toy.read(loose).dropped["panorama picture that is damaged"] == 1
    with pytest.raises(RawDataError, match=r"panorama/camera_xyz.txt: expected one line of 3 numbers"):
        toy.read(loose, points="panorama")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda pixels: pixels.astype(np.uint8), "expected grey of 16 bits, found grey of 8"),
        (lambda pixels: np.dstack([pixels.astype(np.uint8)] * 3), "expected grey of 16 bits, found rgb of 8"),
    ],
)
def test_depth_that_is_not_as_published(loose: Path, change: Any, problem: str) -> None:
    toy.repaint(toy.room_folder(loose) / "panorama/full/depth.png", change)
    with pytest.raises(RawDataError, match=rf"{problem} \({REFUSED}"):
        toy.read(loose)


def test_a_panorama_that_is_no_whole_sphere_is_refused(loose: Path) -> None:
    for path in (toy.room_folder(loose) / "panorama/full").glob("*.png"):
        toy.repaint(path, lambda pixels: pixels[:100])
    with pytest.raises(RawDataError, match=rf"twice as wide as high, this has 256x100 \({REFUSED}"):
        toy.read(loose)


# Damage


def test_a_wrong_checksum_costs_one_picture_and_names_its_place_if_it_was_the_last(zips: Path) -> None:
    """As in the published panorama zips."""
    ref = toy.refs(zips)[0]
    line = next(line for line in ref.details["members"].split("\n") if line.startswith("panorama/depth "))
    offset, packed = map(int, line.split()[2:4])
    path = zips / "Structured3D_panorama_00.zip"
    data = bytearray(path.read_bytes())
    data[offset + packed // 2] ^= 1
    path.write_bytes(data)
    scene = toy.read(zips)
    assert scene.dropped["panorama picture that is damaged"] == 1
    assert [view.name for view in scene.views] == ["perspective-0", "perspective-1"]
    with pytest.raises(RawDataError, match=rf"panorama_00.zip at byte {offset}: scene_00012/.*depth.png: "):
        toy.read(zips, points="panorama")


def test_damage_to_zips_and_files_is_noticed(tmp_path: Path) -> None:
    assert_damage_is_noticed(SOURCE, str(toy.world(tmp_path / "packed", tiny=True)), places=3)
    loose = toy.world(tmp_path / "loose", packed=False, houses=2, tiny=True)
    kinds = ("panorama/color", "panorama/instance", "perspective/#/color", "perspective/#/instance")
    nameless = {(kind, "exchanged"): NAMELESS for kind in (*kinds, "perspective/#/semantic")}
    assert_damage_is_noticed(SOURCE, str(loose), places=2, undetectable=nameless)


def test_mutated_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    loose = toy.world(tmp_path / "loose", packed=False, houses=1, tiny=True)
    room = toy.room_folder(loose).relative_to(loose).as_posix()
    names = (
        "panorama/camera_xyz.txt", "panorama/layout.txt", "panorama/full/depth.png", "panorama/full/semantic.png",
        "perspective/full/0/camera_pose.txt", "perspective/full/0/instance.png",
    )  # fmt: skip
    paths = [f"{room}/{name}" for name in names] + ["Structured3D/scene_00012/annotation_3d.json"]
    only = Structured3DOptions(points="panorama", max_views=1)
    survived = assert_survives(SOURCE, loose, paths, count=2000, tried=100, options=only)
    assert survived.scenes > 600 and survived.errors > 300
    packed = toy.world(tmp_path / "packed", houses=1, tiny=True)
    tables = ["Structured3D_annotation_3d.zip", "Structured3D_bbox.zip", "Structured3D_perspective_full_00.zip"]
    survived = assert_survives(SOURCE, packed, tables, count=1000, tried=60)
    assert survived.scenes > 500
