"""Clips for evaluation: which views, the same every time, and who is left out; new views without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from brickyard.evaluate.unseen_clips import ClipsConfig, UnseenClip, UnseenClips
from brickyard.evaluate.view_baselines import blurred, mean_of_neighbours, nearest_input
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.models.rayzer import RayZerConfig, RayZerNetwork
from tests.train.planes import clip_corpus, plane_clip

CONFIG = ClipsConfig(inputs=3, targets=2, window=9, threads=1)


@pytest.fixture(scope="module")
def network() -> RayZerNetwork:
    torch.manual_seed(0)
    return RayZerConfig(network="tiny", size=16, patch=8, checkpointing=False).build()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A clip for training; of those for validation one is too short and one has no poses."""
    blind = plane_clip(3, frames=12, split="val")
    blind = replace(blind, views=tuple(replace(view, scene_from_camera=None) for view in blind.views))
    scenes = [plane_clip(0), plane_clip(1, split="val"), plane_clip(2, frames=6, split="val"), blind]
    return clip_corpus(tmp_path_factory.mktemp("clips") / "corpus", scenes)


def clips_of(
    corpus: Corpus, network: RayZerNetwork, config: ClipsConfig, *, posed: bool
) -> tuple[list[UnseenClip], dict[str, str]]:
    clips = UnseenClips(corpus, network, config, posed=posed, what="a test")
    return list(clips), clips.left_out


def test_even_targets_lie_between_inputs(corpus: Corpus, network: RayZerNetwork) -> None:
    (first, other), left = clips_of(corpus, network, CONFIG, posed=False)
    assert [first.key, other.key] == ["planes/clip-001", "planes/clip-003"] and first.sequence == "walk-1"
    assert first.times == (0, 4, 8, 2, 6) == other.times
    assert first.batch.number.tolist() == [[0, 2, 4, 1, 3]]
    assert first.batch.images.shape == (1, 5, 3, 16, 16) and first.real.shape == (2, 3, 16, 16)
    assert left == {"planes/clip-002": "the clip has 6 frames, the window 9"}
    assert first.given is None


def test_random_targets_are_the_same_every_time(corpus: Corpus, network: RayZerNetwork) -> None:
    config = replace(CONFIG, split="random", windows=6)
    runs = [clips_of(corpus, network, config, posed=False)[0] for _ in range(2)]
    assert [clip.times for clip in runs[0]] == [clip.times for clip in runs[1]]
    torch.testing.assert_close(runs[0][0].batch.images, runs[1][0].batch.images, rtol=0, atol=0)
    assert len(runs[0]) == 12 and len({clip.times for clip in runs[0]}) > 2
    for clip in runs[0]:
        assert sorted(clip.times) == [0, 2, 4, 6, 8]
        assert list(clip.times[:3]) == sorted(clip.times[:3]) and list(clip.times[3:]) == sorted(clip.times[3:])


def test_poses_are_those_of_the_frames(
    corpus: Corpus, network: RayZerNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    (clip,), left = clips_of(corpus, network, CONFIG, posed=True)
    assert (
        set(left) == {"planes/clip-002", "planes/clip-003"} and "0 frames with a known pose" in left["planes/clip-003"]
    )
    told = capsys.readouterr().err
    assert "a test: 1 clips left out, such as planes/clip-003: the clip has 0 frames with a known pose" in told
    assert clip.batch.poses is not None and clip.given is not None
    views = corpus.scene(corpus.row(clip.key)).views
    every = np.stack([view.scene_from_camera for view in views if view.scene_from_camera is not None])
    found = clip.batch.poses[0].numpy()
    start = int(np.abs(every - found[0]).sum((1, 2)).argmin())
    np.testing.assert_allclose(found, every[[start + time for time in clip.times]])
    assert clips_of(corpus, network, replace(CONFIG, posed=True), posed=False)[1] == left


def test_even_views_of_the_published_sizes(tmp_path: Path, network: RayZerNetwork) -> None:
    """16 of 24 views of 96 frames are inputs, both ends among them, and no two targets are neighbours."""
    long = clip_corpus(tmp_path / "corpus", [plane_clip(0, frames=97, size=(20, 16), split="val")])
    ((clip,), _) = clips_of(long, network, ClipsConfig(threads=1), posed=True)
    assert len(set(clip.times)) == 24 and clip.times[0] == 0 and clip.times[15] == 95
    assert clip.batch.number[0, 16:].tolist() == [1, 4, 7, 10, 13, 16, 19, 22]


def test_nothing_to_look_at_is_refused(corpus: Corpus, network: RayZerNetwork) -> None:
    config = replace(CONFIG, window=30)
    with pytest.raises(
        RecipeError, match="none of the 3 clips of split 'val' will do for a test: the clip has 12 frames"
    ):
        clips_of(corpus, network, config, posed=False)
    with pytest.raises(RecipeError, match="no scene of split 'test'"):
        clips_of(corpus, network, replace(CONFIG, val_split="test"), posed=False)


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"window": 4}, "must hold 5 views"), ({"targets": 0}, "positive"), ({"split": "odd"}, "even")],
)
def test_settings_that_cannot_be(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_a_blur_is_that_of_scipy() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = gaussian_filter(images.numpy(), (0, 0, 2, 2), mode="nearest", radius=(0, 0, 6, 6))
    np.testing.assert_allclose(blurred(images).numpy(), expected, atol=1e-12)


def test_views_without_a_network() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(-1, 3, 2, 2)
    times = (0, 4, 10, 3, 12)  # three inputs, then two targets, of which one is behind all of them
    near, mean = nearest_input(images, times, 3), mean_of_neighbours(images, times, 3)
    assert near[:, 0, 0, 0].tolist() == [1, 2] and mean[:, 0, 0, 0].tolist() == [0.5, 2]
    assert nearest_input(images, (4, 0, 10, 2, 1), 3)[0, 0, 0, 0] == 1  # of two as near the earlier
    assert mean_of_neighbours(images, (4, 1, 10, 0, 5), 3)[:, 0, 0, 0].tolist() == [1, 1]
