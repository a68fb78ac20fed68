"""PPKT, SLidR and ST-SLidR end to end on rings: what is paired, what is pooled, what learns, what must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.augment import CropConfig, CuboidConfig
from brickyard.train.objectives import PPKT, SLidR, STSLidR, image_to_lidar
from brickyard.train.objectives.image_to_lidar import ImageToLidar, ImageToLidarObjective
from brickyard.train.objectives.paired import PairedBatch, PairedScene, collate
from brickyard.train.students.unet import UNetConfig
from tests.train.rings import COLOURS, ring_corpus, ring_scene

CPU = torch.device("cpu")
SMALL = UNetConfig(network="tiny")
CROP = CropConfig(height=48, width=80, min_pairs=20)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=5, blind=1)


@pytest.fixture(scope="module")
def objective() -> ImageToLidarObjective:
    torch.manual_seed(0)
    cuboid = CuboidConfig(min_pairs=20, extent=0.6)  # large, so that points do go
    return STSLidR(student=SMALL, crop=CROP, cuboid=cuboid, pixel_stride=2).build()


def items(corpus: Corpus, objective: ImageToLidarObjective, batch: int = 5) -> list[PairedScene]:
    stream = Stream(
        corpus,
        objective.fields,
        batch=batch,
        rows=corpus.select(split="train"),
        prepare=objective.prepare,
        shuffle=False,
        epochs=1,
    )
    return next(iter(stream))


def batch_of(corpus: Corpus, config: ImageToLidar) -> tuple[ImageToLidarObjective, PairedBatch]:
    torch.manual_seed(0)
    built = config.build()
    return built, collate(items(corpus, built), SMALL.inputs, CPU)


def test_pairs_lead_to_the_colour_of_the_points_class(corpus: Corpus, objective: ImageToLidarObjective) -> None:
    """After dropping, cropping, flipping and shuffling views, a point still meets a pixel of its own thing."""
    checked = 0
    for number, item in enumerate(items(corpus, objective)):
        points = ring_scene(number).points
        assert points is not None
        exact = points.xyz
        for point, image, (row, column) in zip(
            item.pair_point.tolist(), item.pair_image.tolist(), item.pair_pixel.tolist(), strict=True
        ):
            nearest = np.abs(exact - item.cloud.xyz[point].numpy()).sum(1).argmin()
            kind = points.semantic["nuscenes16"][nearest]
            seen = item.images[image, :, row, column].numpy().astype(int)
            checked += int(np.abs(COLOURS.astype(int) - seen).sum(1).argmin() == kind)
    pairs = sum(len(item.pair_point) for item in items(corpus, objective))
    assert pairs > 500
    assert checked / pairs > 0.93  # pixels on an edge mix two things


def test_collate_shifts_every_index_into_its_scene(corpus: Corpus, objective: ImageToLidarObjective) -> None:
    scenes = items(corpus, objective)
    batch = collate(scenes, SMALL.inputs, CPU)
    assert len(batch.keys) == 5
    assert batch.empty == 1
    place = batch.labels[batch.pair_image, batch.pair_pixel[:, 0], batch.pair_pixel[:, 1]]
    assert torch.equal(place, batch.pair_superpixel)
    assert sorted(torch.unique(batch.pair_superpixel).tolist()) == list(range(batch.superpixels))
    owner = batch.clouds.scene[batch.pair_point]
    counts = torch.bincount(owner, minlength=5).tolist()
    assert counts == [len(scene.pair_point) for scene in scenes]
    turned = scenes[2].cloud.xyz @ scenes[2].transform.T
    torch.testing.assert_close(batch.clouds.xyz[batch.clouds.scene == 2], turned)


def test_items_depend_on_the_generator_alone(corpus: Corpus, objective: ImageToLidarObjective) -> None:
    first, second = items(corpus, objective), items(corpus, objective)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, getattr(b, name)) for name, x in vars(a).items() if isinstance(x, torch.Tensor))
        assert torch.equal(a.cloud.xyz, b.cloud.xyz)
        assert a.seed == b.seed


def test_superpixel_rows_equal_a_loop_over_superpixels(corpus: Corpus) -> None:
    built, batch = batch_of(corpus, STSLidR(student=SMALL, crop=CROP))
    built.eval()
    with torch.no_grad():
        features, voxels = built.student(batch.clouds)
        points = functional.normalize(built.point_head(features), dim=1)[voxels.inverse][batch.pair_point]
        seen = built.teacher(batch.images.float() / 255)
        pixels = built._embed_pixels(seen)
        rows = built._superpixel_rows(batch, points, pixels, seen)
        keys, queries, descriptors = rows.keys, rows.queries, rows.descriptors
        assert descriptors is not None
        assert len(keys) == batch.superpixels
        cells = functional.interpolate(seen, size=pixels.shape[-2:], mode="nearest")
        for number in range(0, batch.superpixels, 7):
            mask = batch.labels == number
            expected = pixels.permute(0, 2, 3, 1)[mask].mean(0)
            torch.testing.assert_close(queries[number], expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(
                keys[number], points[batch.pair_superpixel == number].mean(0), atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(
                descriptors[number], cells.permute(0, 2, 3, 1)[mask].mean(0), atol=1e-5, rtol=1e-4
            )
    torch.testing.assert_close(pixels.norm(dim=1), torch.ones_like(pixels[:, 0]), atol=1e-5, rtol=0)


def test_descriptions_in_parts_are_the_same(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    _, batch = batch_of(corpus, STSLidR(student=SMALL, crop=CROP))
    seen = torch.randn(len(batch.images), 5, CROP.height // 8, CROP.width // 8)
    place = (batch.labels >= 0).nonzero(as_tuple=True)
    area = torch.bincount(batch.labels[place], minlength=batch.superpixels)
    whole = image_to_lidar.describe(seen, batch.labels, place, area)
    monkeypatch.setattr(image_to_lidar, "_VOTES", 7)
    assert torch.equal(image_to_lidar.describe(seen, batch.labels, place, area), whole)


@pytest.mark.parametrize("stride", [1, 2])
def test_labelled_pixels_are_counted(corpus: Corpus, stride: int) -> None:
    _, batch = batch_of(corpus, SLidR(student=SMALL, crop=CROP, pixel_stride=stride))
    looked_at = batch.labels[:, stride // 2 :: stride, stride // 2 :: stride]
    assert batch.labelled == int((looked_at >= 0).sum()) > 0


@pytest.mark.parametrize("sizes", [(7, 13, 224, 416), (2, 4, 32, 64), (8, 16, 8, 16), (1, 1, 5, 5), (3, 4, 1, 1)])
def test_interpolation_at_some_places_is_that_of_the_whole_map(sizes: tuple[int, int, int, int]) -> None:
    height, width, *size = sizes
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width, requires_grad=True)
    image, row, column = torch.randint(3, (500,)), torch.randint(size[0], (500,)), torch.randint(size[1], (500,))
    whole = functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)[image, :, row, column]
    there = image_to_lidar.interpolate_at(x, (size[0], size[1]), image, row, column)
    torch.testing.assert_close(there, whole, atol=1e-6, rtol=1e-6)
    weights = torch.randn_like(whole)
    (expected,) = torch.autograd.grad((whole * weights).sum(), x)
    (found,) = torch.autograd.grad((there * weights).sum(), x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_pixels_of_drawn_pairs_alone_are_those_of_the_whole_map(corpus: Corpus) -> None:
    built, batch = batch_of(corpus, PPKT(student=SMALL, crop=CROP, pixel_stride=2))
    seen, points = built.teacher(batch.images.float() / 255), torch.randn(len(batch.pair_point), 64)
    whole = built._point_rows(batch, points, built._embed_pixels(seen), seen)
    alone = built._point_rows(batch, points, None, seen)
    assert torch.equal(alone.keys, whole.keys)
    torch.testing.assert_close(alone.queries, whole.queries, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("cls", [PPKT, SLidR, STSLidR])
def test_what_trains_gets_gradients_and_the_teacher_none(corpus: Corpus, cls: type[ImageToLidar]) -> None:
    built, batch = batch_of(corpus, cls(student=SMALL, crop=CROP, pixel_stride=2))
    loss = built(batch)
    loss.total.backward()
    assert loss.usable
    assert float(loss.total.detach()) > 0
    for parameter_name, parameter in built.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), parameter_name
    assert all(parameter.grad is None for parameter in built.teacher.parameters())
    assert not any("teacher" in key or "frozen" in key for key in built.state_dict())
    assert sum(p.numel() for p in built.parameters()) < 700_000


def test_settings_are_those_of_the_papers() -> None:
    slidr, st, ppkt = SLidR(), STSLidR(), PPKT()
    assert (slidr.unit, slidr.weighting, slidr.balance, slidr.temperature) == ("superpixel", "none", "none", 0.07)
    assert (st.unit, st.weighting, st.balance, st.neighbour_share) == ("superpixel", "neighbours", "votes", 0.01)
    assert (ppkt.unit, ppkt.max_pairs, ppkt.teacher.output_stride) == ("point", 4096, 32)
    for config in (slidr, st, ppkt):
        assert config.student.network == "mink34"
        assert (config.crop.height, config.crop.width, config.dimensions, config.pixel_stride) == (224, 416, 64, 1)
        assert not config.visible_only


def test_ppkt_draws_pairs_without_replacement_by_the_scenes_seed(corpus: Corpus) -> None:
    built, batch = batch_of(corpus, PPKT(student=SMALL, crop=CROP, max_pairs=100))
    points = torch.arange(len(batch.pair_point), dtype=torch.float32)[:, None]
    pixels, seen = torch.zeros(len(batch.images), 64, 48, 80), torch.zeros(0)
    rows = [built._point_rows(batch, points, pixels, seen).keys for _ in range(2)]
    assert torch.equal(rows[0], rows[1])
    assert len(torch.unique(rows[0])) == 100
    other = built._point_rows(replace(batch, seed=batch.seed + 1), points, pixels, seen).keys
    assert not torch.equal(rows[0], other)


def test_st_weights_work_with_points_as_units(corpus: Corpus) -> None:
    config = PPKT(student=SMALL, crop=CROP, max_pairs=200, weighting="similarity", balance="votes")
    built, batch = batch_of(corpus, config)
    assert torch.isfinite(built(batch).total)


def test_visible_pairs_and_fewer_views_are_options(corpus: Corpus) -> None:
    sizes = {}
    for name, config in {
        "all": SLidR(student=SMALL, crop=CROP),
        "visible": SLidR(student=SMALL, crop=CROP, visible_only=True),
        "one view": SLidR(student=SMALL, crop=CROP, views=1),
    }.items():
        _, batch = batch_of(corpus, config)
        sizes[name] = (len(batch.pair_point), len(batch.images))
    assert 0.5 < sizes["visible"][0] / sizes["all"][0] < 0.8
    assert sizes["one view"][1] == 4
    assert sizes["all"][1] == 8


def test_a_batch_without_pairs_gives_a_zero_loss_that_reaches_every_parameter(
    corpus: Corpus, objective: ImageToLidarObjective
) -> None:
    blind = collate(items(corpus, objective, batch=1), SMALL.inputs, CPU)
    assert blind.empty == 1
    objective.zero_grad()
    loss = objective(blind)
    loss.total.backward()
    assert not loss.usable
    assert float(loss.total.detach()) == 0
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


def test_impossible_settings_are_refused() -> None:
    for bad in ({"temperature": 0.0}, {"pixel_stride": 3}, {"views": 0}, {"neighbour_share": 1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            STSLidR(**bad)  # type: ignore[arg-type]
