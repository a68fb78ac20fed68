"""What tokens know: probes whose answers are known, clips that have nothing to ask, and the way from a run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brickyard.evaluate.patch_truth import per_patch
from brickyard.evaluate.protocols import tokens
from brickyard.evaluate.protocols.registry import choose
from brickyard.evaluate.protocols.tokens import TokensConfig
from brickyard.evaluate.ridge import Ridge, predicted
from brickyard.evaluate.splits import DataConfig
from brickyard.evaluate.subject import Subject
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Depth, Scene, View
from brickyard.train.models.lvsm import LVSMConfig
from brickyard.train.models.rayzer import RayZerConfig
from tests.train.planes import clip_corpus, plane_clip

SIZE, PATCH = 32, 8
RAYS = RayZerConfig(network="tiny", size=SIZE, patch=PATCH, checkpointing=False)
POSED = LVSMConfig(network="tiny", size=SIZE, patch=PATCH, checkpointing=False)
VIEWS: dict[str, Any] = {"inputs": 3, "targets": 2, "window": 9, "threads": 1, "taxonomy": "scannet20"}


def blocks(view: View, rng: np.random.Generator) -> View:
    """A view of 4 x 4 blocks at random places of colour: the redder the nearer, green ones are tables."""
    color = rng.integers(0, 2, (4, 4, 3)) * np.array([0, 155, 0]) + rng.integers(20, 100, (4, 4, 3))
    color[..., 0] = rng.integers(0, 255, (4, 4))
    file = io.BytesIO()
    large = color.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)
    Image.fromarray(large).save(file, "PNG")
    metres = 1 + 3 * (1 - large[..., 0].astype(np.float64) / 255)
    depth = Depth(values=(metres * 1000).astype(np.uint16), scale=0.001, intrinsics=view.intrinsics)
    label = np.where(large[..., 1] > 140, 6, 1).astype(np.int16)
    return replace(
        view, image=file.getvalue(), image_format="png", width=40, height=40, depth=depth,
        semantic={"scannet20": label},
    )  # fmt: skip


def clip(number: int, split: str, *, bare: bool = False) -> Scene:
    rng, scene = np.random.default_rng(number), plane_clip(number, frames=9, split=split, size=(40, 40))
    return scene if bare else replace(scene, views=tuple(blocks(view, rng) for view in scene.views))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    scenes = [clip(k, "train") for k in range(20)] + [clip(100 + k, "val") for k in range(4)]
    scenes.append(clip(200, "val", bare=True))
    return clip_corpus(tmp_path_factory.mktemp("clips") / "corpus", scenes)


@pytest.mark.parametrize("config", [RAYS, POSED], ids=["rayzer", "lvsm"])
def test_pixels_that_tell_are_believed_and_places_that_do_not_are_not(corpus: Corpus, config: Any) -> None:
    torch.manual_seed(0)
    network = config.build().train()
    found = tokens.PROTOCOL.run(Subject(network, corpus), TokensConfig(**VIEWS))
    assert network.training and found.scenes == (20, 4)
    assert found.metrics["depth_order_pixels"] > 0.95 and found.metrics["class_miou_pixels"] > 0.95
    assert 0.4 < found.metrics["depth_order_place"] < 0.6
    assert 0.4 < found.metrics["depth_order"] < 0.65, "targets are noise that no look at the inputs tells"
    assert found.metrics["left_out"] == 1 and b"no depth images" in found.files["tokens-left-out.txt"]
    again = tokens.PROTOCOL.run(Subject(network, corpus), TokensConfig(**VIEWS))
    assert again.metrics == found.metrics


def test_without_labels_only_depth_is_asked(corpus: Corpus) -> None:
    settings = {**VIEWS, "taxonomy": None, "train_clips": 3, "val_scenes": 2}
    found = tokens.PROTOCOL.run(Subject(RAYS.build(), corpus), TokensConfig(**settings))
    assert found.scenes[0] == 3 and np.isnan(found.metrics["class_miou"]) and found.metrics["depth_order_pixels"] > 0.8


def test_clips_without_depth_are_refused(tmp_path: Path) -> None:
    bare = clip_corpus(tmp_path / "corpus", [clip(k, split, bare=True) for k, split in enumerate(("train", "val"))])
    with pytest.raises(RecipeError, match=r"none of the 1 clips of split 'train' .*no depth images"):
        tokens.PROTOCOL.run(Subject(RAYS.build(), bare), TokensConfig(**VIEWS))
    with pytest.raises(ValueError, match="no taxonomy 'scannet21'"):
        TokensConfig(**{**VIEWS, "taxonomy": "scannet21"})
    assert choose("tokens", DataConfig()).protocol is tokens.PROTOCOL


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3))
def test_the_probe_is_that_of_numpys_least_squares(seed: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    table, wanted = rng.normal(size=(60, inputs)), rng.normal(size=(60, outputs))
    ridge = Ridge(inputs, outputs)
    for part in range(0, 60, 17):
        ridge.add(table[part : part + 17], wanted[part : part + 17])
    ours = predicted(table, ridge.weights())
    theirs = np.linalg.lstsq(np.c_[table, np.ones(60)], wanted, rcond=None)[0]
    np.testing.assert_allclose(ours, np.c_[table, np.ones(60)] @ theirs, atol=1e-2)
    with pytest.raises(ValueError, match="nothing to learn from"):
        Ridge(2, 1).weights()


def test_patches_are_of_the_middle_square() -> None:
    values = np.arange(6 * 10).reshape(6, 10).astype(np.float64)
    found = per_patch(values, 3, lambda part: float(part.mean()))
    np.testing.assert_array_equal(found, values[:, 2:8].reshape(3, 2, 3, 2).mean(axis=(1, 3)))
