"""Fast superpixels: partitions whatever the image, the same on every processor, on the edges that are there."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import label

from brickyard.curate.fast_superpixels import MOST, FastConfig, add_fast_superpixels, partition
from brickyard.shards.errors import RecipeError, SceneError
from tests.curate.test_superpixels import png, scene

KINDS = ("one colour", "noise", "stripes", "blocks", "two values")


def image(kind: str, width: int, height: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(width * 1000 + height)
    if kind == "one colour":
        return np.full((height, width, 3), 77, np.uint8)
    if kind == "stripes":
        return np.broadcast_to(
            (np.arange(width) // 3 % 2 * 255).astype(np.uint8)[None, :, None], (height, width, 3)
        ).copy()
    if kind == "blocks":
        coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
        return np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]
    return rng.integers(0, 256 if kind == "noise" else 2, (height, width, 3), np.uint8)


def hold(labels: NDArray[np.uint8], width: int, height: int) -> None:
    """It is a partition into connected pieces with ids 0..n-1, n at most 255."""
    assert labels.shape == (height, width) and labels.dtype == np.uint8
    used = np.unique(labels)
    assert used.tolist() == list(range(len(used))) and len(used) <= MOST
    assert label(labels, background=-1, connectivity=1).max() == len(used), "a superpixel lies in several pieces"


CONFIGS = st.builds(
    FastConfig,
    segments=st.integers(1, 255), compactness=st.floats(0.1, 100), sigma=st.floats(0, 6), least=st.floats(0.01, 1),
)  # fmt: skip
SLIDR, FINEST = FastConfig(), FastConfig(segments=255, compactness=0.1, sigma=0, least=0.01)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS), width=st.integers(1, 150), height=st.integers(1, 150), config=CONFIGS)
@example("noise", 17, 17, SLIDR)
@example("noise", 1, 1, SLIDR)
@example("noise", 2000, 1, SLIDR)
@example("noise", 3, 700, FINEST)
@example("stripes", 640, 353, SLIDR)
@example("noise", 515, 391, FINEST)
def test_whatever_the_image_it_is_a_partition(kind: str, width: int, height: int, config: FastConfig) -> None:
    hold(partition(image(kind, width, height), config), width, height)


def test_borders_lie_on_the_edges_of_the_image() -> None:
    """Blocks of 67 x 45 pixels, which no square of four falls in with: every pixel of their edges is found."""
    rng = np.random.default_rng(3)
    rows, columns = np.arange(360)[:, None] // 45, np.arange(536)[None] // 67
    colours = rng.permutation(np.linspace(0, 255, 64).astype(int))
    blocks = rows * 8 + columns
    shade = colours[blocks]
    picture = np.stack([shade, 255 - shade, (shade * 7) % 256], -1).astype(np.uint8)
    labels = partition(picture, FastConfig(segments=200, sigma=0)).astype(int)
    majority = np.array([np.bincount(blocks[labels == one]).max() for one in range(labels.max() + 1)])
    assert majority.sum() / blocks.size > 0.99


def test_they_are_the_same_on_processors_without_wide_registers() -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from brickyard.curate.fast_superpixels import FastConfig, partition\n"
        "rng = np.random.default_rng(1)\n"
        "coarse = np.kron(rng.integers(0, 255, (12, 20, 3)), np.ones((31, 29, 1)))\n"
        "image = (coarse * 0.8 + rng.integers(0, 50, coarse.shape)).astype(np.uint8)\n"
        "print(hashlib.sha256(partition(image, FastConfig()).tobytes()).hexdigest())\n"
    )
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    found = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | ({"NPY_DISABLE_CPU_FEATURES": features} if narrow else {}),
        ).stdout
        for narrow in (False, True)
    ]  # fmt: skip
    assert found[0] == found[1] and len(found[0]) == 65


def test_views_carry_method_versions_and_parameters() -> None:
    world = scene(png(image("blocks", 96, 64)))
    found = add_fast_superpixels(world, FastConfig(segments=30, least=0.25)).views[0].superpixels
    assert found is not None and found.labels.dtype == np.uint16 and 10 <= found.count <= 60
    assert found.provenance.startswith("brickyard-fast-1 skimage-0.")
    assert found.provenance.endswith(" slic n_segments=30 compactness=6 sigma=3 least=0.25")
    assert world.views[0].superpixels is None
    with pytest.raises(SceneError, match=r"scene test/room, view cam: .*cannot be decoded"):
        add_fast_superpixels(scene(b"nothing"), FastConfig())


@pytest.mark.parametrize("wrong", [{"segments": 256}, {"segments": 0}, {"compactness": 0}, {"sigma": -1}, {"least": 0}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="fast superpixels need segments in"):
        FastConfig(**wrong)  # type: ignore[arg-type]
