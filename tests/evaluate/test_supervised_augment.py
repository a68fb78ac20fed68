"""Augmentation of labelled scenes: what belongs together stays together, and a scene's view is its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brickyard.evaluate.augment import AugmentConfig, augmented, mixed
from brickyard.train.clouds import Cloud, Clouds, join_clouds
from brickyard.train.views.color import ColorConfig
from brickyard.train.views.geometry import GeometryConfig

INPUTS = ("xyz", "color", "normal", "valid")
RIGID = AugmentConfig(geometry=GeometryConfig(turn=1.0, scale=(1.0, 1.0), jitter=0.0, elastic=()), drop=0.0, crop=None)


def cloud(seed: int, points: int = 300, color: bool = True) -> Cloud:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=generator) * torch.tensor([4.0, 3.0, 2.0])
    values = {"normal": torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)}
    if color:
        values["color"] = 0.3 + 0.4 * torch.rand(points, 3, generator=generator)
    return Cloud(key=f"a/{seed}", domain="indoor", xyz=xyz, values=values)


def run(config: AugmentConfig, *seeds: int, color: bool = True) -> tuple[Clouds, torch.Tensor]:
    clouds = join_clouds([cloud(seed, color=color) for seed in seeds], INPUTS, "cpu")
    return augmented(clouds, torch.arange(len(clouds.xyz)), config, torch.tensor(seeds), 0.05)


@pytest.mark.parametrize("about", ["middle", "sensor"])
def test_points_move_as_one_with_their_normals(about: str) -> None:
    clouds, numbers = run(replace(RIGID, about=about), 5)  # type: ignore[arg-type]
    before = cloud(5)
    assert torch.equal(numbers, torch.arange(300))
    torch.testing.assert_close(torch.pdist(clouds.xyz), torch.pdist(before.xyz), atol=1e-4, rtol=0)
    turned, straight = clouds.xyz - clouds.xyz[:1], before.xyz - before.xyz[:1]
    assert (turned - straight).abs().max() > 0.1
    expected = (straight * before.values["normal"]).sum(1)
    torch.testing.assert_close((turned * clouds.values["normal"]).sum(1), expected, atol=1e-4, rtol=0)
    if about == "sensor":
        torch.testing.assert_close(clouds.xyz.norm(dim=1), before.xyz.norm(dim=1))


def test_dropped_and_cropped_points_take_their_labels_along() -> None:
    config = replace(RIGID, drop=0.4, drop_chance=1.0, crop=50)
    clouds, numbers = run(config, 1, 2)
    assert clouds.counts[0] == (numbers < 300).sum() and sum(clouds.counts) == len(numbers) == len(clouds.xyz)
    assert all(40 <= count < 120 for count in clouds.counts)
    original = torch.cat([cloud(1).values["normal"], cloud(2).values["normal"]])[numbers]
    # the angle to z changes by tilts alone, so a wrong pairing would show
    assert (original[:, 2] - clouds.values["normal"][:, 2]).abs().max() < 0.15
    whole, _ = run(replace(config, drop=0.0, crop=None), 1, 2)
    assert whole.counts == (300, 300)


def test_a_share_is_cropped_before_a_ball_and_labelled_points_stay_where_few_are() -> None:
    size = replace(RIGID, crop_share=0.6)
    whole, _ = run(RIGID, 1)
    share, _ = run(size, 1)
    both, numbers = run(replace(size, crop=100), 1)
    assert whole.counts == (300,) and 170 <= share.counts[0] <= 190 and 95 <= both.counts[0] <= 110
    assert len(numbers.unique()) == both.counts[0]
    clouds = join_clouds([cloud(1)], INPUTS, "cpu")
    labels = torch.full((300,), -1)
    labels[::10] = 3
    seeds = torch.tensor([1])
    dropping = replace(RIGID, drop=0.5, drop_chance=1.0)
    kept = {few: augmented(clouds, labels, dropping, seeds, 0.05, few=few)[1] for few in (False, True)}
    assert int((kept[True] == 3).sum()) == 30 > int((kept[False] == 3).sum())
    assert len(kept[True]) < 200


def test_a_scenes_view_does_not_depend_on_its_batch_mates() -> None:
    config = AugmentConfig(crop=100, drop_chance=1.0)
    alone, first = run(config, 3)
    both, second = run(config, 3, 4)
    count = alone.counts[0]
    assert both.counts[0] == count
    torch.testing.assert_close(both.xyz[:count], alone.xyz)
    torch.testing.assert_close(both.values["color"][:count], alone.values["color"])
    assert torch.equal(first, second[:count])
    again, _ = run(config, 3)
    assert torch.equal(again.xyz, alone.xyz)


def test_colours_are_stretched_and_speckled_or_left_alone() -> None:
    quiet = replace(RIGID, contrast_chance=0.0, color_noise=0.0, color=ColorConfig(chance=0.0, shift=0.0))
    same, numbers = run(quiet, 6)
    torch.testing.assert_close(same.values["color"], cloud(6).values["color"][numbers])
    stretched, _ = run(replace(quiet, contrast_chance=1.0), 6)
    span = stretched.values["color"].amax(0) - stretched.values["color"].amin(0)
    assert (span > 0.41).all() and float(stretched.values["color"].max()) <= 1
    speckled, _ = run(replace(quiet, color_noise=0.05, color_noise_chance=1.0), 6)
    assert float((speckled.values["color"] - same.values["color"]).std()) == pytest.approx(0.05, abs=0.005)
    without, _ = run(replace(RIGID, contrast_chance=1.0), 6, color=False)
    assert not without.values["color"].any()


def test_scenes_are_mixed_in_pairs() -> None:
    clouds = join_clouds([cloud(1), cloud(2, color=False), cloud(3)], INPUTS, "cpu")
    pairs = mixed(clouds, replace(RIGID, mix=1.0), torch.tensor([0]))
    assert pairs.counts == (600, 300) and pairs.batch == 2
    assert torch.equal(pairs.xyz, clouds.xyz) and pairs.scene.unique(return_counts=True)[1].tolist() == [600, 300]
    assert pairs.valid["color"].tolist() == [False, True] and not pairs.values["color"][:600].any()
    assert mixed(clouds, replace(RIGID, mix=0.0), torch.tensor([0])) is clouds


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no elastic distortion"):
        AugmentConfig(about="sensor")
    with pytest.raises(ValueError, match="crop must be positive"):
        AugmentConfig(crop=0)
