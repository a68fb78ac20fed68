"""Augmentations: pairs and labels follow the pixels, rejection ends, numbers lie in the published ranges."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brickyard.shards.errors import BrickyardError
from brickyard.train.augment import (
    Box,
    CropConfig,
    CuboidConfig,
    centre_box,
    crop_image,
    crop_labels,
    drop_cuboid,
    inside,
    move_pixels,
    random_box,
    rotation_and_flips,
)

NONE = np.empty((0, 2), np.uint16)


def encode(pixels: np.ndarray, kind: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return data.getvalue()


def test_rotations_are_about_z_and_flips_are_fair() -> None:
    rng = np.random.default_rng(0)
    matrices = np.stack([rotation_and_flips(rng) for _ in range(400)])
    assert np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert (matrices[:, 2, 2] == 1).all()
    flipped = (np.linalg.det(matrices) < 0).mean()
    assert 0.4 < flipped < 0.6
    angles = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0].min() > 60


def test_boxes_have_the_published_area_and_aspect() -> None:
    rng, config = np.random.default_rng(0), CropConfig(min_pairs=-1)
    boxes = [random_box(1600, 900, NONE, config, rng) for _ in range(300)]
    area = np.array([b.width * b.height / (1600 * 900) for b in boxes])
    aspect = np.array([b.width / b.height for b in boxes])
    assert 0.299 < area.min() < 0.35
    assert area.max() > 0.85
    assert 14 / 9 - 0.01 < aspect.min() < 1.6
    assert 1.85 < aspect.max() < 17 / 9 + 0.01
    assert all(0 <= b.left <= 1600 - b.width and 0 <= b.top <= 900 - b.height for b in boxes)


@pytest.mark.parametrize("pixels", [NONE, np.tile(np.array([[5, 5]], np.uint16), (10, 1))])
def test_rejection_ends_with_the_centre_crop(pixels: np.ndarray) -> None:
    """Zero pairs never satisfy the published test; a corner that no crop may hold often enough does not either."""
    config = CropConfig(area=(0.3, 0.31))
    box = random_box(1600, 900, pixels, config, np.random.default_rng(0))
    assert box == centre_box(1600, 900, config) == Box(left=0, top=0, width=1600, height=900)


def test_a_crop_keeps_enough_pairs() -> None:
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.integers(0, 400, 500), rng.integers(0, 900, 500)], 1).astype(np.uint16)
    config = CropConfig(min_pairs=400, tries=200)
    kept = [int(inside(pixels, random_box(1600, 900, pixels, config, rng)).sum()) for _ in range(50)]
    assert min(kept) > 0.75 * 500


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pairs_labels_and_image_move_together(data: st.DataObject) -> None:
    """Every pixel of an image has its own colour and label; after the crop all three must still agree."""
    width, height = data.draw(st.integers(20, 60)), data.draw(st.integers(20, 60))
    w, h = data.draw(st.integers(5, width)), data.draw(st.integers(5, height))
    box = Box(left=data.draw(st.integers(0, width - w)), top=data.draw(st.integers(0, height - h)), width=w, height=h)
    flip, scale = data.draw(st.booleans()), data.draw(st.integers(1, 3))
    config = CropConfig(height=h * scale, width=w * scale)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2).astype(np.uint16)
    labels = np.arange(width * height, dtype=np.uint16).reshape(height, width)
    kept = inside(grid, box)
    moved = move_pixels(grid[kept], box, config, flip=flip)
    cropped = crop_labels(labels, box, config, flip=flip)
    assert kept.sum() == w * h
    assert (cropped[moved[:, 1], moved[:, 0]] == labels.ravel()[kept]).all()
    coloured = np.stack([labels % 251, labels // 251 % 251, labels * 0], -1).astype(np.uint8)
    if scale == 1:
        image = crop_image(encode(coloured, "PNG"), (width, height), box, config, flip=flip)
        assert image.shape == (3, h, w)
        assert np.array_equal(image[:, moved[:, 1], moved[:, 0]].T, coloured.reshape(-1, 3)[kept])


@pytest.mark.parametrize("flip", [False, True])
def test_reduced_decoding_shows_the_same_picture(flip: bool) -> None:
    columns, rows = np.meshgrid(np.linspace(0, 255, 640), np.linspace(0, 255, 360))
    pixels = np.stack([columns, rows, 255 - columns], -1).astype(np.uint8)
    data, box = encode(pixels, "JPEG"), Box(left=101, top=33, width=480, height=270)
    config = CropConfig(height=56, width=104)
    full = crop_image(data, (640, 360), box, config, flip=flip, reduced=False).astype(int)
    fast = crop_image(data, (640, 360), box, config, flip=flip).astype(int)
    assert np.abs(full - fast).max() <= 4
    assert (full[0, 10, 0] > full[0, 10, -1]) == flip


def test_bytes_that_are_no_image_or_of_another_size_are_refused() -> None:
    box, config = Box(left=0, top=0, width=8, height=8), CropConfig(height=4, width=4)
    good = encode(np.zeros((8, 8, 3), np.uint8), "JPEG")
    with pytest.raises(BrickyardError, match="its scene says"):
        crop_image(good, (9, 8), box, config, flip=False)
    for bad in (b"", b"\xff\xd8\xff", good[:40], b"GIF89a" + bytes(50)):
        with pytest.raises(BrickyardError, match="decoded"):
            crop_image(bad, (8, 8), box, config, flip=False)


def test_cuboid_is_small_and_only_taken_if_images_keep_their_pairs() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-10, 10, (4000, 3)).astype(np.float32)
    keeps = [drop_cuboid(xyz, [], CuboidConfig(), rng) for _ in range(50)]
    dropped = [np.ptp(xyz[~keep], axis=0) for keep in keeps if not keep.all()]
    assert len(dropped) > 40
    assert np.max(dropped) <= 0.2 * 20
    pairs = [np.arange(0, 4000, 2, dtype=np.int32)]
    for _ in range(20):
        keep = drop_cuboid(xyz, pairs, CuboidConfig(min_pairs=1990), rng)
        assert keep[pairs[0]].sum() >= 1990
    assert drop_cuboid(xyz, [np.arange(4000, dtype=np.int32)], CuboidConfig(min_pairs=5000, tries=0), rng).all()
    assert drop_cuboid(xyz[:0], [], CuboidConfig(), rng).shape == (0,)
