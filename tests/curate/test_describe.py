"""Figures and descriptors: planted defects change the figure that is theirs, and little else does."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from brickyard.curate.describe.calibration import describe_calibration
from brickyard.curate.describe.describe import FIGURES, describe
from brickyard.curate.describe.descriptors import picture_hashes, shape_signature
from brickyard.curate.describe.images import decode_views, describe_images
from brickyard.infra.cli import main
from brickyard.shards.corpus import Corpus
from brickyard.shards.described import described, vectors
from brickyard.shards.errors import CorpusError
from brickyard.shards.images import decode
from brickyard.shards.layers import layer_store, write_layer
from brickyard.shards.scene import Depth, Identity, Points, Scene, View
from brickyard.shards.selection import select
from tests.worlds import toy_corpus, toy_scene

RNG = np.random.default_rng(0)


def picture(seed: int = 0, size: tuple[int, int] = (480, 360)) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(30, 225, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def encoded(image: Image.Image, quality: int = 92) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def room(*, points: int = 40_000, seed: int = 0, domain: str = "indoor") -> Scene:
    """Boards before a wall, seen by a camera at the origin that looks along y, with its depth image."""
    rng = np.random.default_rng(seed)
    xyz = np.stack([rng.uniform(-4, 4, points), np.full(points, 8.0), rng.uniform(-1.5, 2.5, points)], 1)
    xyz[:, 1] -= np.where(np.sin(2.3 * xyz[:, 0]) > 0.4, 3.0, 0.0)
    xyz[: points // 4, 1:] = np.stack([rng.uniform(2, 8, points // 4), np.full(points // 4, -1.5)], 1)
    pose = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    intrinsics = np.array([[300.0, 0, 239.5], [0, 300, 179.5], [0, 0, 1]])
    view = View(
        name="0", image=encoded(picture()), image_format="jpeg", width=480, height=360, intrinsics=intrinsics,
        scene_from_camera=pose, timestamp_ns=0, depth=_depth(xyz, pose, intrinsics),
    )  # fmt: skip
    identity = Identity(
        dataset="rooms", version="1", split="train", sequence="a", scene_id=f"room-{seed}", timestamp_ns=None,
        domain=domain, licence="CC0-1.0",  # type: ignore[arg-type]
    )  # fmt: skip
    return Scene(
        identity=identity, world_from_scene=np.eye(4), points=Points(xyz=xyz.astype(np.float32)), views=(view,)
    )


def _depth(xyz: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray) -> Depth:
    camera = (xyz - pose[:3, 3]) @ pose[:3, :3]
    places = np.rint((camera @ intrinsics.T)[:, :2] / camera[:, 2:] / 4).astype(int)
    values = np.full((90, 120), 65535)
    inside = ((places >= 0) & (places < [120, 90])).all(axis=1)
    np.minimum.at(values, (places[inside, 1], places[inside, 0]), (camera[inside, 2] * 1000).astype(int))
    small = intrinsics / 4
    small[2, 2] = 1
    return Depth(values=np.where(values == 65535, 0, values).astype(np.uint16), scale=0.001, intrinsics=small)


def turned(scene: Scene, degrees: float) -> Scene:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    views = tuple(replace(view, scene_from_camera=about @ view.scene_from_camera) for view in scene.views)  # type: ignore[operator]
    return replace(scene, views=views)


def test_every_figure_is_declared_once() -> None:
    names = [figure.name for figure in FIGURES]
    assert len(names) == len(set(names))
    assert all(figure.unit and figure.meaning and figure.version >= 1 for figure in FIGURES)
    for scene in (room(), room(domain="outdoor"), replace(toy_scene(0), figures={})):
        assert describe(scene).figures.keys() <= set(names)


def test_wrong_units_show() -> None:
    assert describe(room()).figures["height_m"] == pytest.approx(3.9, abs=0.2)
    scene = room()
    assert scene.points is not None
    in_millimetres = replace(scene, points=Points(xyz=scene.points.xyz * 1000))
    assert describe(in_millimetres).figures["height_m"] > 1000


def test_blur_and_black_show() -> None:
    sharp = describe_images([np.asarray(picture())])
    soft = describe_images([np.asarray(picture().filter(ImageFilter.GaussianBlur(6)))])
    black = describe_images([np.asarray(picture()), np.zeros((360, 480, 3), np.uint8)])
    assert soft["sharpness"] < 0.5 * sharp["sharpness"]
    assert sharp["blank_share"] == 0 and black["blank_share"] == 0.5 and black["dark_share"] == 0.5


def test_pictures_that_cannot_be_decoded_are_counted_and_cost_the_others_nothing() -> None:
    scene = room()
    broken = replace(scene.views[0], name="1", image=b"no picture")
    whole, found = describe(scene), describe(replace(scene, views=(*scene.views, broken)))
    assert whole.figures["undecodable_share"] == 0 and found.figures["undecodable_share"] == 0.5
    assert found.figures["sharpness"] == whole.figures["sharpness"] and found.hashes == whole.hashes
    none = describe(replace(scene, views=(broken,)))
    assert none.figures["undecodable_share"] == 1 and "sharpness" not in none.figures and none.signature


def test_frozen_poses_show_only_where_pictures_change() -> None:
    view = room().views[0]
    frames = tuple(replace(view, name=str(k), image=encoded(picture(k)), timestamp_ns=k, depth=None) for k in range(5))
    assert describe(replace(room(), views=frames)).figures["frozen_share"] == 1
    still = tuple(replace(one, image=view.image) for one in frames)
    assert describe(replace(room(), views=still)).figures["frozen_share"] == 0


@pytest.mark.parametrize("degrees", [0.0, 0.5, -1.0, 2.0])
def test_cameras_that_are_turned_show_against_depth(degrees: float) -> None:
    """A turn about the scene's vertical is one about the camera's y axis, which points down: the sign is the other."""
    scene = turned(room(), degrees)
    found = describe_calibration(scene, decode_views(scene.views))
    assert found["yaw_off_degrees"] == pytest.approx(-degrees, abs=0.1)
    assert found["pitch_off_degrees"] == pytest.approx(0, abs=0.2)
    whole = describe_calibration(room(), decode_views(room().views))
    assert found["fit_gain"] < whole["fit_gain"] or degrees == 0


def test_hashes_outlive_compression_and_size_but_not_another_picture() -> None:
    [first] = picture_hashes([np.asarray(picture())])
    [again] = picture_hashes([decode(encoded(picture(size=(300, 220)), quality=40))])
    [other] = picture_hashes([np.asarray(picture(1))])
    assert (first ^ again).bit_count() <= 4
    assert (first ^ other).bit_count() >= 16
    assert picture_hashes([np.zeros((20, 20, 3), np.uint8)]) == []


def test_signatures_do_not_see_turns_shifts_and_density() -> None:
    scene = room()
    assert scene.points is not None
    first, c, s = shape_signature(scene), np.cos(1.1), np.sin(1.1)
    xyz = (scene.points.xyz @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + (40, -3, 1)).astype(np.float32)
    again = shape_signature(replace(scene, points=Points(xyz=xyz[::2])))
    other = shape_signature(replace(scene, points=Points(xyz=RNG.uniform(-2, 2, (9000, 3)).astype(np.float32))))
    assert first is not None and again is not None and other is not None
    assert first @ again > 0.99 and first @ other < 0.95


def test_the_layer_is_what_select_and_described_read(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path)
    assert described(corpus) is corpus.index
    with pytest.raises(CorpusError, match="no number 'height_m'"):
        select(corpus, at_least={"height_m": 0.1})
    assert main(["describe", str(tmp_path), "--no-network", "--json"]) == 0
    table = described(corpus)
    assert table.column("key").to_pylist() == corpus.keys
    signatures, known = vectors(table, "signature")
    assert known.all() and np.allclose(np.linalg.norm(signatures, axis=1), 1, atol=0.01)
    assert not vectors(table, "embedding")[1].any()
    assert len(select(corpus, at_least={"height_m": 0.1}).keys) == len(corpus)
    before = layer_store(corpus.store, "described").read("index.parquet")
    assert main(["describe", str(tmp_path), "--no-network", "--json"]) == 0
    assert layer_store(corpus.store, "described").read("index.parquet") == before
    with pytest.raises(CorpusError, match="a meaning of its own"):
        write_layer(corpus, "described", lambda row: {}, provenance={})
    other = toy_corpus(tmp_path / "other", scenes=5)
    (tmp_path / "layers").rename(tmp_path / "other" / "layers")
    with pytest.raises(CorpusError, match="another corpus"):
        select(Corpus.open(other.store), at_least={"height_m": 0.1})
