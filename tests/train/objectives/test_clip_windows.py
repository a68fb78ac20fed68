"""The way of frames from clips to the device: what is drawn, what is read, what does not do."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brickyard.shards.cameras import project
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import SceneHeader, encode_scene
from brickyard.shards.errors import CorruptDataError, ImageError, UnfitSceneError
from brickyard.shards.images import decode, decode_reduced
from brickyard.shards.scene import Scene
from brickyard.shards.stream import Stream
from brickyard.train.models.lvsm import LVSMConfig
from brickyard.train.models.rayzer import RayZerConfig
from brickyard.train.objectives.clips import ClipConfig, boxed_intrinsics, draw, join_clips, resized, shrunk
from brickyard.train.objectives.novel_views import LVSM, RayZer
from brickyard.train.objectives.objective import Objective
from brickyard.train.objectives.perceptual import PerceptualConfig
from tests.benchmarks import clips as benchmark
from tests.shards.counting import counted
from tests.train.planes import clip_corpus, plane_clip
from tests.worlds import toy_scene

CLIPS = ClipConfig(inputs=4, targets=2, window=(6, 7), window_end=(8, 10), ramp=10)
NONE = PerceptualConfig(network="none")


def header(scene: Scene) -> SceneHeader:
    return SceneHeader(encode_scene(scene).header)


def rayzer(**clips: Any) -> Objective:
    return RayZer(
        network=RayZerConfig(network="tiny", size=16, patch=8), clips=replace(CLIPS, **clips), perceptual=NONE
    ).build()


def lvsm() -> Objective:
    return LVSM(network=LVSMConfig(network="tiny", size=16), clips=CLIPS, perceptual=NONE).build()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Five clips of 12 frames, and one of 7, too short for later windows."""
    lengths = [12, 12, 7, 12, 12, 12]
    return clip_corpus(
        tmp_path_factory.mktemp("clips") / "corpus", [plane_clip(k, frames=n) for k, n in enumerate(lengths)]
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32), step=st.integers(0, 20), order=st.sampled_from(["drawn", "sorted"]),
    split=st.sampled_from(["random", "ends"]),
)  # fmt: skip
def test_a_draw_is_a_window_with_its_ends(seed: int, step: int, order: Any, split: Any) -> None:
    config = replace(CLIPS, order=order, split=split)
    low, high = config.range(step)
    found = draw(LONG, np.random.default_rng(seed), config, step, posed=False)
    assert len(set(found.frames)) == 6 and sorted(found.number.tolist()) == list(range(6))
    assert low <= max(found.frames) - min(found.frames) + 1 <= high
    by_number = [found.frames[i] for i in np.argsort(found.number)]
    assert by_number[0] == min(found.frames) and by_number[-1] == max(found.frames)
    assert order == "drawn" or by_number == sorted(by_number)
    inputs, targets = found.number[:4].tolist(), found.number[4:].tolist()
    assert inputs == sorted(inputs) and targets == sorted(targets)
    assert split == "random" or {0, 5} <= set(inputs)


LONG = header(plane_clip(frames=14, size=(16, 16)))


def test_the_window_widens_with_the_step() -> None:
    published = ClipConfig()
    assert [published.range(step) for step in (0, 15_000, 30_000, 90_000)] == [(48, 64), (56, 80), (64, 96), (64, 96)]
    assert ClipConfig(ramp=0).range(0) == (64, 96)
    lengths = Counter[int]()
    for seed in range(300):
        frames = draw(LONG, np.random.default_rng(seed), CLIPS, 10, posed=False).frames
        lengths[max(frames) - min(frames) + 1] += 1
    assert lengths.keys() == {8, 9, 10} and min(lengths.values()) > 60  # uniform: 100 each
    numbers = [draw(LONG, np.random.default_rng(seed), CLIPS, 0, posed=False).number for seed in range(200)]
    inputs = Counter(n for number in numbers for n in number[:4].tolist())
    assert min(inputs.values()) > 100  # 133 of 200 each, also the ends


def test_a_step_is_all_that_the_window_follows(corpus: Corpus) -> None:
    """The same frames on one rank and two, from the start and from the middle, whatever the number of threads."""
    objective = rayzer()

    def found(steps: int, world: int = 1, **options: Any) -> list[list[tuple[str, tuple[int, ...]]]]:
        made = [
            iter(Stream(
                corpus, objective.fields, batch=2, seed=1, prepare=objective.prepare, choose=objective.choose, rank=r,
                world=world, **options,
            ))
            for r in range(world)
        ]  # fmt: skip
        return [[(clip.key, clip.frames) for rank in made for clip in next(rank)] for _ in range(steps)]

    whole = found(14)
    assert found(14, world=2, threads=3) == whole
    stream = Stream(
        corpus, objective.fields, batch=2, seed=1, prepare=objective.prepare, choose=objective.choose, threads=1
    )
    batches = iter(stream)
    list(islice(batches, 6))
    assert found(8, world=2, state=stream.state()) == whole[6:]
    list(islice(batches, 8))
    assert set(stream.unfit) == {"planes/clip-002"}
    late = [key for batch in whole[10:] for key, _ in batch]
    assert "planes/clip-002" not in late  # windows of 8 frames and more
    assert any(key == "planes/clip-002" for batch in whole for key, _ in batch)


def test_drawn_frames_are_read_and_no_others(corpus: Corpus) -> None:
    objective = rayzer()
    with counted() as count:
        (batch,) = Stream(
            corpus, objective.fields, batch=6, seed=3, epochs=1, prepare=objective.prepare, choose=objective.choose
        )
    asked = sum(
        corpus.addresses(row)[f"views/{frame}/image"].length
        for clip in batch if (row := corpus.find(clip.key)) is not None for frame in clip.frames
    )  # fmt: skip
    headers = sum(
        corpus.addresses(row)["header"].length for clip in batch if (row := corpus.find(clip.key)) is not None
    )
    assert asked > 0 and count.bytes == asked + headers
    everything = Stream(corpus, objective.fields, batch=6, seed=3, epochs=1, prepare=objective.prepare)
    for ours, theirs in zip(batch, next(iter(everything)), strict=True):
        assert ours.frames == theirs.frames and torch.equal(ours.pixels, theirs.pixels)


def test_pixels_are_those_of_the_frame() -> None:
    """Of a wide image the middle square, as Pillow cuts and resizes it; of one that is square already all of it."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (9, 14, 3), dtype=np.uint8)).resize(
        (96, 64), Image.Resampling.BICUBIC
    )
    whole = np.asarray(smooth)[:, 16:80]
    found = resized(torch.from_numpy(whole[None].copy()), 16)[0]
    assert found.shape == (3, 16, 16) and found.min() >= 0 and found.max() <= 1
    for filter_, most in ((Image.Resampling.BICUBIC, 0.6), (Image.Resampling.LANCZOS, 4.0)):
        theirs = np.asarray(Image.fromarray(whole).resize((16, 16), filter_)).transpose(2, 0, 1)
        assert np.abs(255 * found.numpy() - theirs).mean() < most
    given = torch.from_numpy(whole[None].copy()).permute(0, 3, 1, 2)
    assert (shrunk(given, 16).float() - shrunk(given.float(), 16)).abs().max() <= 1  # as elsewhere than on a CPU
    same = resized(torch.from_numpy(whole[None].copy()), 64)[0]
    assert np.array_equal((255 * same.numpy()).round(), whole.transpose(2, 0, 1))


@pytest.mark.parametrize(("size", "least", "shape"), [
    ((96, 64), 8, (8, 12)), ((96, 64), 9, (16, 24)), ((97, 63), 32, (32, 49)), ((97, 63), 33, (63, 97)),
    ((30, 40), 64, (40, 30)),
])  # fmt: skip
def test_a_jpeg_is_decoded_at_the_smallest_size_that_does(
    size: tuple[int, int], least: int, shape: tuple[int, int]
) -> None:
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)).resize(size)
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=95)
    found = decode_reduced(file.getvalue(), least, size)
    assert found.shape == (*shape, 3)
    theirs = np.asarray(smooth.resize(shape[::-1], Image.Resampling.BOX)).astype(float)
    assert np.abs(found - theirs).mean() < 6
    for broken in (file.getvalue()[:-40], b"GIF89a", b""):
        with pytest.raises(ImageError):
            decode_reduced(broken, least, size)
    with pytest.raises(ImageError, match=f"has {size[0]}x{size[1]} pixels, its scene says 7x7"):
        decode_reduced(file.getvalue(), least, (7, 7))
    smooth.save(png := io.BytesIO(), "PNG")
    assert np.array_equal(decode_reduced(png.getvalue(), least, size), decode(png.getvalue()))
    grey = io.BytesIO()
    smooth.convert("L").save(grey, "JPEG")
    assert decode_reduced(grey.getvalue(), least, size).shape == (*shape, 3)


def test_cameras_fit_the_pixels(corpus: Corpus) -> None:
    """A point projects into the batch's images where the scene's own camera has it, in units of the middle square."""
    objective, scene = lvsm(), plane_clip(0)
    stream = Stream(corpus, objective.fields, batch=1, seed=0, prepare=objective.prepare, choose=objective.choose)
    clip = next(c for (c,) in stream if c.key == "planes/clip-000")
    batch = join_clips([clip], 16, torch.device("cpu"))
    assert batch.poses is not None and batch.intrinsics is not None
    assert batch.images.shape == (1, 6, 3, 16, 16) and batch.poses.dtype == torch.float64
    point = np.array([[0.1, -0.2, 3.5]])
    for number, frame in enumerate(clip.frames):
        view = scene.views[frame]
        (u, v), *_ = project(point, view).uv
        camera = np.linalg.inv(batch.poses[0, number].numpy()) @ [*point[0], 1]
        fx, fy, cx, cy = batch.intrinsics[0, number].tolist()
        x, y = fx * camera[0] / camera[2] + cx, fy * camera[1] / camera[2] + cy
        assert (x, y) == pytest.approx(((u + 0.5 - 4) / 32, (v + 0.5) / 32), abs=1e-9)  # 40 x 32 pixels
    assert boxed_intrinsics(np.array([[50.0, 0, 31.5], [0, 50, 19.5], [0, 0, 1]]), (12, 0, 40)) == (
        1.25,
        1.25,
        0.5,
        0.5,
    )


def without_poses(scene: Scene) -> Scene:
    views = [replace(view, scene_from_camera=None) if k > 4 else view for k, view in enumerate(scene.views)]
    return replace(scene, views=tuple(views))


def bent(scene: Scene) -> Scene:
    lens: dict[str, Any] = {"camera_model": "opencv", "distortion": (0.1, 0, 0, 0, 0)}
    return replace(scene, views=tuple(replace(view, **lens) for view in scene.views))


def mixed(scene: Scene) -> Scene:
    return replace(scene, views=(*scene.views, *plane_clip(9, frames=2, size=(32, 40)).views))


def still(scene: Scene) -> Scene:
    return replace(scene, views=tuple(replace(view, scene_from_camera=np.eye(4)) for view in scene.views))


@pytest.mark.parametrize(
    ("scene", "posed", "says"),
    [
        (plane_clip(frames=2), False, r"the clip has 2 frames, the window [67]"),
        (mixed(plane_clip()), False, r"frames of 2 sizes, such as 32x40 and 40x32"),
        (toy_scene(views=12), False, r"is no clip: it has points"),
        (without_poses(plane_clip()), True, r"has 5 frames with a known pose, the window [67]"),
        (bent(plane_clip()), True, r"the lens of frame-000 \(opencv\) bends rays"),
        (still(plane_clip()), True, r"all at one place"),
    ],
)
def test_scenes_that_do_not_do(scene: Scene, posed: bool, says: str) -> None:
    with pytest.raises(UnfitSceneError, match=says):
        draw(header(scene), np.random.default_rng(0), CLIPS, 0, posed=posed)
    if "frames with" in says or "lens" in says or "one place" in says:  # cameras nobody asks for harm nobody
        assert draw(header(scene), np.random.default_rng(0), CLIPS, 0, posed=False).frames


def test_a_pose_that_is_no_number_is_no_pose() -> None:
    """No encoder of ours writes one; a header of somebody else's may hold it."""
    found = header(plane_clip())
    for view in found.views[5:]:
        view["scene_from_camera"][0][3] = float("nan")
    with pytest.raises(UnfitSceneError, match="5 frames with a known pose"):
        draw(found, np.random.default_rng(0), CLIPS, 0, posed=True)


def test_a_broken_picture_in_the_middle_is_named_and_counted(tmp_path: Path) -> None:
    """A JPEG that was broken before it came into the corpus: its digest is right, its end is not there."""
    scenes = [plane_clip(k) for k in range(3)]
    views = list(scenes[1].views)
    views[6] = replace(views[6], image=views[6].image[: len(views[6].image) // 2])
    scenes[1] = replace(scenes[1], views=tuple(views))
    corpus = clip_corpus(tmp_path / "corpus", scenes)
    objective = rayzer(window=(12, 12), window_end=(12, 12), inputs=10)
    options: dict[str, Any] = {"batch": 3, "prepare": objective.prepare, "choose": objective.choose, "epochs": 1}
    with pytest.raises(CorruptDataError, match=r"scene planes/clip-001: views/6 \(frame-006\): .*truncated"):
        list(Stream(corpus, objective.fields, **options))
    allowed = Stream(corpus, objective.fields, bad_scenes=1, **options)
    assert len(next(iter(allowed))) == 3 and list(allowed.replaced) == ["planes/clip-001"]


def test_the_benchmark_in_its_smallest_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "KINDS", {"camera": (160, 120), "small": (44, 32)})
    rows = list(benchmark.measured(tmp_path, frames=12, size=32, clips=CLIPS))
    assert [row["kind"] for row in rows] == ["camera", "small"]
    assert all(row["read_for_used"] > 1 and min(row["ours"], row["pillow"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"inputs": 0}, "positive"),
        ({"window": (5, 9)}, "must hold 6 views"),
        ({"window": (9, 8)}, "be a range"),
        ({"order": "shuffled"}, "drawn"),
        ({"ramp": -1}, "ramp"),
    ],
)
def test_impossible_settings_are_refused(settings_: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(CLIPS, **settings_)
