"""What all image-to-lidar objectives can do: leave cameras out unread, take sweeps apart, scale, drop as published."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import BrickyardError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.stream import Sample, Stream
from brickyard.train.augment import CropConfig, CuboidConfig, drop_cuboid
from brickyard.train.objectives import PPKT, ScaLR, SLidR, STSLidR
from brickyard.train.objectives.distillation import Distillation, DistillationObjective
from brickyard.train.objectives.image_to_lidar import ImageToLidarObjective, Rows, contrast
from brickyard.train.objectives.paired import PairedScene
from brickyard.train.students.unet import UNetConfig
from tests.train.rings import ring_scene

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "student": UNetConfig(network="tiny"),
    "crop": CropConfig(height=32, width=64, min_pairs=20),
    "cuboid": CuboidConfig(extent=0.0),
}
VIEWS = 6


def swept(number: int, sweeps: int) -> Scene:
    """A ring whose points are of several sweeps, in turns."""
    scene = ring_scene(number, views=2)
    assert scene.points is not None
    sweep = (np.arange(len(scene.points.xyz)) % sweeps).astype(np.uint8)
    return replace(scene, points=replace(scene.points, sweep=sweep), views=scene.views * (VIEWS // 2))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("swept")
    store, build = Store(folder), fingerprint_digest({})
    start_build(store, {})
    scenes = [swept(number, 3) for number in range(3)] + [ring_scene(3)]
    commit_task(store, 0, build, [encode_scene(_renamed(scene)) for scene in scenes], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)


def _renamed(scene: Scene) -> Scene:
    """Views of one scene have names of their own."""
    return replace(scene, views=tuple(replace(view, name=f"camera-{i}") for i, view in enumerate(scene.views)))


def stream_of(
    corpus: Corpus, objective: DistillationObjective, prepare: Any, scenes: int = 3, epochs: int = 1
) -> Stream:
    return Stream(
        corpus, objective.fields, batch=scenes, prepare=prepare, choose=objective.choose, rows=np.arange(scenes),
        epochs=epochs, threads=1,
    )  # fmt: skip


def items(corpus: Corpus, config: Distillation) -> tuple[Any, list[PairedScene]]:
    torch.manual_seed(0)
    objective: Any = config.build()
    return objective, next(iter(stream_of(corpus, objective, objective.prepare)))


@pytest.mark.parametrize("views", [None, 4])
def test_cameras_that_are_dropped_are_not_read(views: int | None, corpus: Corpus) -> None:
    objective = ScaLR(**SMALL, camera_drop=0.7, views=views).build()
    read: list[int] = []
    kept: list[int] = []

    def prepare(sample: Sample, rng: np.random.Generator) -> None:
        there = [v for v in range(VIEWS) if f"views/{v}/image" in sample]
        item = objective.prepare(sample, rng)  # which would fail for a camera that was not read
        read.append(len(there))
        kept.append(len(item.images))

    for _ in stream_of(corpus, objective, prepare, epochs=40):
        pass
    assert read == kept
    counts = Counter(kept)
    assert min(counts) == 1
    assert max(counts) <= (views or VIEWS)
    expected = 0.3 * (views or VIEWS)
    assert abs(sum(kept) / len(kept) - expected) < 0.45  # a little above, as one always stays


def test_without_a_drop_all_cameras_come(corpus: Corpus) -> None:
    objective, scenes = items(corpus, SLidR(**SMALL))
    assert objective.choose is None
    assert [len(scene.images) for scene in scenes] == [VIEWS] * 3


def test_sweeps_apart_are_clouds_of_the_same_points(corpus: Corpus) -> None:
    """Every pair meets the pixel that it meets in the whole cloud; a sweep's cloud holds the points of that sweep."""
    built, scenes = items(corpus, SLidR(**SMALL, sweeps="apart"))
    whole, together = items(corpus, SLidR(**SMALL))
    apart, one = built.collate(scenes, CPU), whole.collate(together, CPU)
    assert apart.clouds.batch == 9
    assert one.clouds.batch == 3
    assert sum(apart.clouds.counts) == sum(one.clouds.counts)
    for mine, theirs in ((apart.pair_pixel, one.pair_pixel), (apart.pair_image, one.pair_image)):
        assert torch.equal(mine, theirs)
    assert torch.equal(apart.clouds.xyz[apart.pair_point], one.clouds.xyz[one.pair_point])
    samples = next(iter(Stream(corpus, ["points/*"], batch=3, rows=np.arange(3), threads=1)))
    for scene in scenes:
        sample = next(s for s in samples if s.key == scene.cloud.key)
        numbers = np.asarray(sample["points/sweep"])
        xyz = sample["points/xyz"].dequantise()
        assert scene.parts == tuple(np.bincount(numbers))
        np.testing.assert_allclose(scene.cloud.xyz[: scene.parts[0]].numpy(), xyz[numbers == 0], atol=1e-6)


def test_each_sweep_of_a_superpixel_is_told_the_same(corpus: Corpus) -> None:
    built, scenes = items(corpus, STSLidR(**SMALL, sweeps="apart", pixel_stride=2))
    assert isinstance(built, ImageToLidarObjective)
    batch = built.collate(scenes, CPU)
    features, voxels = built.student(batch.clouds)
    seen = built.teacher(batch.images.float() / 255)
    rows = built._rows(batch, features, voxels.inverse, seen)
    assert rows.target is not None
    points = torch.nn.functional.normalize(built.point_head(features), dim=1)[voxels.inverse[batch.pair_point]]
    sweep = batch.clouds.scene[batch.pair_point]
    expected = [
        points[(batch.pair_superpixel == s) & (sweep == t)].mean(0)
        for s in torch.unique(batch.labels[:, 1::2, 1::2]).tolist()  # those that are left at half the resolution
        for t in torch.unique(sweep[batch.pair_superpixel == s]).tolist()
    ]
    torch.testing.assert_close(rows.keys, torch.stack(expected), rtol=1e-3, atol=1e-4)
    assert len(rows.keys) > 2 * len(rows.queries)
    assert torch.unique(rows.target).tolist() == list(range(len(rows.queries)))
    loss = built(batch)
    loss.total.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in built.parameters())


def test_rows_that_share_a_query_count_each() -> None:
    """Keys doubled are the loss of each once."""
    generator = torch.Generator().manual_seed(0)
    keys, queries = torch.randn(30, 8, generator=generator), torch.randn(30, 8, generator=generator)
    described = torch.rand(30, 5, generator=generator)
    for config in (SLidR(), STSLidR(), STSLidR(weighting="adaptive", balance="clusters")):
        once, _ = contrast(Rows(keys=keys, queries=queries, target=None, descriptors=described), config)
        target = torch.arange(30).repeat_interleave(2)
        twice, _ = contrast(Rows(keys=keys[target], queries=queries, target=target, descriptors=described), config)
        torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("config", [PPKT, ScaLR])
def test_points_of_all_sweeps_are_pairs_of_their_own(config: type[Distillation], corpus: Corpus) -> None:
    built, scenes = items(corpus, config(**SMALL, sweeps="apart"))
    assert built(built.collate(scenes, CPU)).usable


def test_a_scene_without_sweeps_is_refused_in_words(corpus: Corpus) -> None:
    objective = SLidR(**SMALL, sweeps="apart").build()
    stream = Stream(corpus, objective.fields, batch=1, prepare=objective.prepare, rows=np.array([3]), threads=1)
    with pytest.raises(BrickyardError, match=r"ring-003 does not say which sweep .* build the\s+corpus with several"):
        next(iter(stream))


def test_scaled_clouds_keep_their_shape(corpus: Corpus) -> None:
    _, scenes = items(corpus, SLidR(**SMALL, scale=0.1))
    sizes = [float(np.cbrt(abs(np.linalg.det(scene.transform.double().numpy())))) for scene in scenes]
    assert len(set(sizes)) == 3
    assert all(0.9 <= size <= 1.1 for size in sizes)
    for scene, size in zip(scenes, sizes, strict=True):
        square = (scene.transform @ scene.transform.T).numpy()
        np.testing.assert_allclose(square, size**2 * np.eye(3), atol=1e-5)


def test_the_published_cuboid_has_one_share_and_one_try() -> None:
    """Its edges are one share of the extents: what is dropped reaches equally far on all axes."""
    rng = np.random.default_rng(0)
    xyz = (rng.uniform(0, 1, (40_000, 3)) * (8, 4, 2)).astype(np.float32)
    published = CuboidConfig(extent=0.2, shares="one", tries=1, min_pairs=0)
    shapes = []
    for config in (published, replace(published, shares="each")):
        found = []
        for seed in range(60):
            gone = xyz[~drop_cuboid(xyz, [], config, np.random.default_rng(seed))]
            edges = np.ptp(gone, axis=0) / (8, 4, 2)
            if len(gone) > 60 and gone.min() > 0.2 and (gone.max(0) < (7.8, 3.8, 1.8)).all():  # whole, not at the edge
                found.append(edges.max() / edges.min())
        shapes.append(max(found))
    assert shapes[0] < 1.3
    assert shapes[1] > 1.45
    many = np.tile(np.arange(2000, dtype=np.int32), 1)
    strict = replace(published, min_pairs=2000)
    tried = [drop_cuboid(xyz, [many], replace(strict, tries=n), np.random.default_rng(4)).all() for n in (1, 50)]
    assert tried[0]  # the one try would have taken pairs, so nothing goes


def test_a_turned_cuboid_is_dropped_along_the_axes_of_the_turned_cloud(corpus: Corpus) -> None:
    """The box that holds what is gone is smaller along the turned axes than along those of the scene."""
    cuboid = CuboidConfig(extent=0.9, shares="one", turned=True, tries=1, min_pairs=0)
    _, scenes = items(corpus, SLidR(**{**SMALL, "cuboid": cuboid}))
    _, whole = items(corpus, SLidR(**SMALL))
    for scene, full in zip(scenes, whole, strict=True):
        kept = {tuple(row) for row in scene.cloud.xyz.tolist()}
        turned = full.cloud.xyz @ scene.transform.T
        inside = torch.tensor([tuple(row) not in kept for row in full.cloud.xyz.tolist()])
        assert 0 < int(inside.sum()) < len(inside)
        low, high = turned[inside].amin(0), turned[inside].amax(0)
        boxed = ((turned >= low) & (turned <= high)).all(1)
        assert torch.equal(boxed, inside)  # nobody else stands in that box


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    for bad in ({"camera_drop": 1.0}, {"scale": -0.1}, {"views": 0}, {"alike_deviations": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SLidR(**bad)
