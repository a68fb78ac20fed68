"""Rays of posed views: they end where the picture's surfaces are, keep their pixels however a scene is moved, and views
that will not do are refused or counted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.shards.cameras import project
from brickyard.shards.errors import CorpusError, ImageError, UnfitSceneError
from brickyard.shards.scene import Depth, RollingShutter, Scene
from brickyard.shards.stream import Sample, Stream
from brickyard.train.clouds import read_cloud
from brickyard.train.objectives.moves import MoveConfig, about, draw_move, moved_cloud, moved_places
from brickyard.train.objectives.ponder import Ponder
from brickyard.train.objectives.posed import choose, prepare
from brickyard.train.objectives.view_rays import (
    RaysConfig,
    depth_rays,
    evenly,
    pair_rays,
    read_depth,
    read_image,
    usable_views,
)
from brickyard.train.rendering.losses import RenderingLossConfig
from brickyard.train.rendering.renderer import RendererConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.voxels import VoxelConfig
from tests.train.posed_rooms import METRES, PLACE, camera, corpus_of, posed_room
from tests.train.rendering.solids import cast, distance_to

STUDENT = UNetConfig(
    network="tiny", inputs=("color",), voxels=VoxelConfig(kind="cartesian", size=(0.2,) * 3), intensity="unit"
)
STILL = MoveConfig(turn=0, tilt_chance=0, scale=(1, 1), flip=0)


def sample_of(folder: Path, scene: Scene) -> Sample:
    corpus = corpus_of(folder, [scene])
    found: Any = next(iter(Stream(corpus, ["points/*", "views/*"], batch=1, threads=1)))[0]
    return found


def in_box(places: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy((places - PLACE) / METRES)


def test_rays_of_depth_end_on_the_surfaces_in_their_colours(tmp_path: Path) -> None:
    """The depth along z becomes a place; the colour comes from the other camera's image."""
    sample = sample_of(tmp_path, posed_room(views=2))
    rays = depth_rays(sample.header, 1, read_depth(sample, 1), read_image(sample, 1, 40), evenly(200, 5))
    assert len(rays.eyes) == 200
    assert distance_to(in_box(rays.seen)).abs().max() * METRES < 0.004
    way = in_box(rays.seen) - in_box(rays.eyes)
    hit = cast(in_box(rays.eyes), way / way.norm(dim=1, keepdim=True))
    assert ((hit.color - torch.from_numpy(rays.color)).abs().amax(1) < 0.02).double().mean() > 0.8  # edges are mixed
    again = depth_rays(sample.header, 1, read_depth(sample, 1), None, evenly(200, 5))
    assert np.array_equal(again.seen, rays.seen) and again.color.shape == (200, 0)


def test_rays_of_pairs_are_the_nearest_visible_points(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, posed_room(views=1, pairs=True))
    xyz, pairs = sample["points/xyz"].dequantise(), sample["views/0/pairs"]
    rays = pair_rays(sample, 0, xyz, read_image(sample, 0, 40), 0.5)
    assert len(np.unique(rays.place, axis=0)) == len(rays.place) < pairs.visible.sum()
    seen = xyz[pairs.point[pairs.visible]]
    lengths = np.linalg.norm(seen - rays.eyes[0], axis=1)
    for pixel, end in zip(rays.place[:30], rays.seen[:30], strict=True):
        same = (pairs.pixel[pairs.visible] == pixel).all(1)
        assert np.linalg.norm(end - rays.eyes[0]) == pytest.approx(lengths[same].min())
    assert not len(pair_rays(sample, 0, xyz, None, 100.0).eyes)


def test_the_camera_of_a_pair_is_where_it_was_at_that_line(tmp_path: Path) -> None:
    scene = posed_room(views=1, pairs=True)
    moving = RollingShutter(
        direction="down", readout_s=0.04, velocity=np.array([10.0, 0, 0]), angular_velocity=np.zeros(3)
    )
    rolling = replace(scene, views=(replace(scene.views[0], rolling_shutter=moving),))
    still, moved = (sample_of(tmp_path / name, s) for name, s in (("a", scene), ("b", rolling)))
    a, b = (pair_rays(s, 0, s["points/xyz"].dequantise(), None, 0.0) for s in (still, moved))
    assert len(a.eyes) == len(b.eyes) and np.array_equal(a.seen, b.seen)
    wanted = 10 * 0.04 * ((b.place[:, 1] + 0.5) / 40 - 0.5)
    np.testing.assert_allclose((b.eyes - a.eyes)[:, 0], wanted, atol=1e-9)


MOVES = {
    "turn": MoveConfig(turn=1, tilt_chance=0, scale=(1, 1), flip=0),
    "tilt": MoveConfig(turn=0, tilt_chance=1, tilt=0.3, scale=(1, 1), flip=0),
    "scale": MoveConfig(turn=0, tilt_chance=0, scale=(0.5, 0.6), flip=0),
    "flip": MoveConfig(turn=0, tilt_chance=0, scale=(1, 1), flip=1),
    "shift": MoveConfig(turn=0, tilt_chance=0, scale=(1, 1), flip=0, shift=2.0),
    "all": MoveConfig(turn=1, tilt_chance=1, flip=0.5, shift=1.0),
}


@pytest.mark.parametrize("name", MOVES)
def test_moved_points_are_at_the_same_pixels_of_moved_cameras(tmp_path: Path, name: str) -> None:
    """Any move: points moved with the scene fall on the same pixels of the camera moved with the scene; a flip turns
    the camera's axes inside out, which a projection does not mind."""
    scene = posed_room(views=1)
    frame, cloud = scene.views[0], read_cloud(sample_of(tmp_path, scene), ("color", "normal"))
    before = project(cloud.xyz.numpy(), frame)
    for seed in range(5):
        move = about(draw_move(np.random.default_rng(seed), MOVES[name]), PLACE)
        moved = moved_cloud(cloud, move)
        assert frame.scene_from_camera is not None
        camera_from_scene = np.linalg.inv(move @ frame.scene_from_camera)
        local = moved.xyz.numpy() @ camera_from_scene[:3, :3].T + camera_from_scene[:3, 3]
        ahead = before.depth > 0.1
        uv = (local / local[:, 2:] @ frame.intrinsics.T)[:, :2]
        np.testing.assert_allclose(uv[ahead], before.uv[ahead], atol=2e-3)
        stretch = np.cbrt(abs(np.linalg.det(move[:3, :3])))
        np.testing.assert_allclose(moved.values["normal"].norm(dim=1), 1, atol=1e-5)
        tips = moved_places((cloud.xyz + cloud.values["normal"]).numpy().astype(np.float64), move)
        np.testing.assert_allclose(tips - moved.xyz.numpy(), moved.values["normal"].numpy() * stretch, atol=1e-4)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("pairs", [False, True])
def test_prepared_rays_end_at_the_moved_surfaces(tmp_path: Path, name: str, pairs: bool) -> None:
    """What leaves `prepare` is one world: a ray's end is as far from every point as in the scene that was not moved."""
    sample = sample_of(tmp_path, posed_room(views=3, pairs=pairs))
    rays = RaysConfig(source="pairs" if pairs else "depth", views=2, per_view=60)
    renderer = RendererConfig(range=((-60.0,) * 3, (60.0,) * 3)) if pairs else RendererConfig()
    config = Ponder(student=STUDENT, moves=MOVES[name], rays=rays, dropout=0.5, renderer=renderer)
    for seed in range(3):
        moved, still = (
            prepare(sample, read_cloud(sample, ("color",)), np.random.default_rng(seed), one)
            for one in (config, replace(config, moves=STILL))
        )
        assert len(moved.eyes) == len(still.eyes) > 50 and torch.equal(moved.color, still.color)
        for places in ("eyes", "seen"):
            far, before = (torch.cdist(getattr(i, places).double(), i.cloud.xyz.double()) for i in (moved, still))
            stretch = float(far.sum() / before.sum())
            assert MOVES[name].scale[0] - 1e-4 < stretch < MOVES[name].scale[1] + 1e-4
            torch.testing.assert_close(far, before * stretch, atol=2e-4, rtol=0)
        if not pairs:
            low, high = still.cloud.xyz.amin(0), still.cloud.xyz.amax(0)
            assert float(low[2]) < 0.05 and (low + high)[:2].abs().max() < 0.2  # centred, the floor at 0


def test_views_are_drawn_before_they_are_read_and_drawn_alike(tmp_path: Path) -> None:
    """`choose` asks for the very views that `prepare` reads, and for no image where no colour is wanted."""
    corpus = corpus_of(tmp_path, [posed_room(n, views=7) for n in range(2)])
    blind = Ponder(student=STUDENT, rays=RaysConfig(views=2, per_view=20), losses=RenderingLossConfig(color=0.0))
    for config, parts in ((replace(blind, losses=RenderingLossConfig()), {"depth", "image"}), (blind, {"depth"})):

        def read(sample: Sample, rng: np.random.Generator, config: Ponder = config) -> tuple[int, int, list[str]]:
            item = prepare(sample, read_cloud(sample, ("color",)), rng, config)
            return len(item.eyes), item.color.shape[1], [field for field in sample.fields if field.startswith("views")]

        stream = Stream(
            corpus, ["views/*"], batch=2, threads=1, choose=partial(choose, config=config), prepare=read, epochs=1
        )
        for rays, channels, fields in (one for batch in stream for one in batch):
            assert (rays, channels) == (40, 3 if "image" in parts else 0)
            assert len({field.split("/")[1] for field in fields}) == 2
            assert {field.split("/")[2] for field in fields} == parts


def spoiled(what: str) -> Scene:
    scene = posed_room(views=2)
    broken = np.full((4, 4), np.nan)
    change: dict[str, Any] = {
        "no depth": {"depth": None},
        "no pose": {"scene_from_camera": None},
        "a pose that is not finite": {"scene_from_camera": broken},
    }[what]
    return replace(scene, views=tuple(replace(frame, **change) for frame in scene.views))


@pytest.mark.parametrize(
    ("what", "words"),
    [("no depth", "2 lack an image or a depth image"), ("no pose", "2 lack a finite pose")],
)
def test_a_scene_without_posed_depth_is_unfit_and_counted(tmp_path: Path, what: str, words: str) -> None:
    corpus = corpus_of(tmp_path, [spoiled(what), posed_room(1, views=2)])
    config = Ponder(student=STUDENT, rays=RaysConfig(per_view=10))
    found = []

    def read(sample: Sample, rng: np.random.Generator) -> str:
        return prepare(sample, read_cloud(sample, ("color",)), rng, config).cloud.key

    stream = Stream(
        corpus, ["views/*"], batch=2, threads=1, prepare=read, epochs=1,
        choose=lambda sample, rng: choose(sample, rng, config),
    )  # fmt: skip
    for batch in stream:
        found += batch
    assert found == ["solids/room-001"] * 2
    assert words in stream.unfit["solids/room-000"]
    alone = corpus_of(tmp_path / "alone", [spoiled(what)])
    stream = Stream(alone, ["views/*"], batch=1, threads=1, prepare=read, choose=lambda s, rng: choose(s, rng, config))
    with pytest.raises(CorpusError, match="room-000"):
        next(iter(stream))


def test_what_makes_a_view_unusable(tmp_path: Path) -> None:
    header = sample_of(tmp_path, posed_room(views=3)).header
    assert usable_views(header, "depth") == [0, 1, 2]
    header.views[0]["scene_from_camera"] = np.full((4, 4), -np.inf).tolist()
    header.views[1]["depth"]["intrinsics"] = np.zeros((3, 3)).tolist()
    assert usable_views(header, "depth") == [2]
    header.views[2]["rolling_shutter"] = {"direction": "down"}
    with pytest.raises(UnfitSceneError, match=r"1 lack a finite pose, 1 have impossible.*, 1 have a rolling shutter"):
        usable_views(header, "depth")
    with pytest.raises(UnfitSceneError, match="3 lack an image or pairs"):
        usable_views(header, "pairs")


def test_views_with_little_depth_are_left_out(tmp_path: Path) -> None:
    scene = posed_room(views=2)
    depth = scene.views[0].depth
    assert depth is not None
    few = depth.values.copy()
    few[4:] = 0
    dark = replace(scene, views=(replace(scene.views[0], depth=replace(depth, values=few)), scene.views[1]))
    sample, config = sample_of(tmp_path / "a", dark), Ponder(student=STUDENT, rays=RaysConfig(per_view=10), moves=STILL)
    item = prepare(sample, read_cloud(sample, ("color",)), np.random.default_rng(0), config)
    assert (item.views, item.left_out, len(item.eyes)) == (1, 1, 10)
    sample = sample_of(tmp_path / "b", replace(dark, views=dark.views[:1]))
    with pytest.raises(UnfitSceneError, match="1 views that were drawn 1 have too little depth"):
        prepare(sample, read_cloud(sample, ("color",)), np.random.default_rng(0), config)


def test_a_damaged_image_names_its_view(tmp_path: Path) -> None:
    scene = posed_room(views=1)
    sample = sample_of(tmp_path, replace(scene, views=(replace(scene.views[0], image=scene.views[0].image[:99]),)))
    with pytest.raises(ImageError, match=r"views/0 \(frame-0\)"):
        read_image(sample, 0, 10)


def test_a_lens_bends_where_colours_are_looked_up(tmp_path: Path) -> None:
    """Rays end where they did, colours come from where the lens of the colour image puts them."""
    scene = posed_room(views=1)
    bent = replace(scene.views[0], camera_model="opencv", distortion=(-0.2, 0.0, 0.0, 0.0, 0.0))
    samples = [sample_of(tmp_path / n, replace(scene, views=(v,))) for n, v in (("a", scene.views[0]), ("b", bent))]
    plain, curved = (depth_rays(s.header, 0, read_depth(s, 0), None, lambda good: np.argwhere(good.T)) for s in samples)
    found = project(curved.seen, bent)
    np.testing.assert_allclose(found.uv, curved.place, atol=1e-6)
    assert (
        np.abs(curved.place - camera((48, 40), 0.7)[:2, 2]).max()
        < np.abs(plain.place - camera((48, 40), 0.7)[:2, 2]).max()
    )


def test_rays_of_a_panorama_end_where_its_distances_say(tmp_path: Path) -> None:
    """All around, behind the camera too; distances along the rays, seen through the lens of the view."""
    room = posed_room(views=1)
    view = room.views[0]
    pose = view.scene_from_camera
    assert pose is not None
    width, height = 64, 32
    lens = np.array([[width / (2 * np.pi), 0, width / 2 - 0.5], [0, height / np.pi, height / 2 - 0.5], [0, 0, 1]])
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    east, down = (column - lens[0, 2]) / lens[0, 0], (row - lens[1, 2]) / lens[1, 1]
    ahead = np.stack([np.cos(down) * np.sin(east), np.sin(down), np.cos(down) * np.cos(east)], -1)
    way = torch.from_numpy(ahead.reshape(-1, 3) @ pose[:3, :3].T)
    hit = cast(in_box(pose[:3, 3]).expand_as(way), way)
    metres = (hit.distance * METRES).numpy().reshape(height, width)
    depth = Depth(values=np.rint(metres * 1000).astype(np.uint16), scale=0.001, intrinsics=lens, along="ray")
    whole = replace(
        view, width=width, height=height, camera_model="equirectangular", intrinsics=lens, depth=depth, pairs=None
    )  # fmt: skip
    sample = sample_of(tmp_path, replace(room, views=(whole,)))
    rays = depth_rays(sample.header, 0, read_depth(sample, 0), None, evenly(500, 5))
    assert len(rays.eyes) == 500
    assert distance_to(in_box(rays.seen)).abs().max() * METRES < 0.004
    assert ((rays.seen - rays.eyes) @ pose[:3, 2] < 0).mean() > 0.2
