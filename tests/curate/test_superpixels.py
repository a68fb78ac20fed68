"""Superpixels: partitions, determinism, provenance, and images that cannot be used."""

from __future__ import annotations

import io
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image
from skimage.segmentation import slic

from brickyard.curate.superpixels import SlicConfig, add_superpixels
from brickyard.shards.errors import RecipeError, SceneError
from brickyard.shards.scene import Identity, Scene, View


def picture(width: int = 96, height: int = 64) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    noise = rng.integers(0, 20, (height, width, 3))
    return (np.kron(coarse, np.ones((16, 16, 1))) * 0.9 + noise).astype(np.uint8)


def scene(image: bytes, width: int = 96, height: int = 64) -> Scene:
    identity = Identity(
        dataset="test", version="1", split="none", sequence="s", scene_id="room", timestamp_ns=None, domain="indoor",
        licence="CC0-1.0",
    )  # fmt: skip
    view = View(name="cam", image=image, image_format="png", width=width, height=height, intrinsics=np.eye(3))
    return Scene(identity=identity, world_from_scene=np.eye(4), views=(view,))


def png(pixels: np.ndarray, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "png")
    return buffer.getvalue()


def test_superpixels_are_those_of_the_library_with_slidr_parameters() -> None:
    found = add_superpixels(scene(png(picture())), SlicConfig()).views[0].superpixels
    assert found is not None
    expected = slic(picture(), n_segments=150, compactness=6, sigma=3.0, start_label=0)
    np.testing.assert_array_equal(found.labels, expected)
    assert found.provenance == f"skimage-{version('scikit-image')} slic n_segments=150 compactness=6 sigma=3"
    assert sorted(np.unique(found.labels)) == list(range(found.count)) and 100 < found.count < 200


def test_superpixels_are_deterministic_and_follow_the_config() -> None:
    world = scene(png(picture()))
    first, again = (add_superpixels(world, SlicConfig(segments=30)).views[0].superpixels for _ in range(2))
    assert first is not None and again is not None
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.count <= 40
    assert world.views[0].superpixels is None


def test_grey_images_are_read_as_rgb() -> None:
    assert add_superpixels(scene(png(picture(), "L")), SlicConfig()).views[0].superpixels is not None


def test_images_that_cannot_be_used_name_scene_and_view() -> None:
    whole = png(picture())
    cases = [
        (b"nothing", 96, "cannot be decoded"),
        (whole[:-300], 96, "cannot be decoded"),
        (whole, 97, "image of 96x64"),
    ]
    for data, width, message in cases:
        with pytest.raises(SceneError, match=f"scene test/room, view cam: .*{message}"):
            add_superpixels(scene(data, width), SlicConfig())
    with pytest.raises(SceneError, match="pixels are more than"):
        add_superpixels(scene(whole, 60_000, 60_000), SlicConfig())
    with pytest.raises(RecipeError):
        SlicConfig(compactness=0)
