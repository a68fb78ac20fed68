"""Named protocols hold the published settings, and fingerprints tell settings apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from brickyard.evaluate.fragments import VARIANTS
from brickyard.evaluate.protocols import image_to_lidar
from brickyard.evaluate.protocols.benchmarks import BENCHMARKS
from brickyard.evaluate.protocols.fingerprint import fingerprint
from brickyard.evaluate.protocols.knn import KnnConfig
from brickyard.evaluate.protocols.linear_probe import ProbeConfig
from brickyard.evaluate.protocols.registry import choose, names
from brickyard.evaluate.protocols.segmentation import KINDS
from brickyard.evaluate.protocols.shortcut import ShortcutConfig
from brickyard.evaluate.segment import SupervisedConfig
from brickyard.evaluate.splits import SceneConfig
from brickyard.shards.errors import RecipeError

OWN = ProbeConfig(taxonomy="s3dis13", dataset="s3dis", val_split="test", threads=1)


def preset(name: str, own: ProbeConfig) -> Any:
    return choose(name, own).config


def supervised_preset(name: str) -> SupervisedConfig:
    config = preset(name, OWN)
    assert isinstance(config, SupervisedConfig)
    return config


def test_indoor_numbers_are_the_published_ones() -> None:
    config = supervised_preset("scannet-finetune")
    numbers = (config.grid, config.batch, config.epochs, config.lr, config.encoder_rate, config.weight_decay)
    assert numbers == (0.02, 24, 800, 0.002, 0.1, 0.02)
    assert (config.warmup, config.start_factor, config.clip, config.lovasz) == (0.05, 0.1, 3.0, 1.0)
    assert config.start_factor / config.final_factor == pytest.approx(1000)
    assert config.augment is not None
    assert (config.augment.crop, config.augment.mix) == (102_400, 0.8)
    assert (config.augment.drop, config.augment.drop_chance) == (0.2, 1.0)
    assert (config.optimiser, config.momentum_cycle, config.frozen_mode) == ("adamw", (0.95, 0.85), "train")
    assert (config.validations, config.scored) == (100, "best")
    assert config.augment.geometry.scale == (0.9, 1.1) and config.augment.geometry.jitter == 0.005
    assert len(VARIANTS[config.test_variants]) == 13
    s3dis = supervised_preset("s3dis-linear")
    assert s3dis.epochs == 3000 and s3dis.augment is not None
    assert (s3dis.augment.crop_share, s3dis.augment.crop) == (0.6, 204_800)


def test_outdoor_numbers_are_the_published_ones() -> None:
    config = supervised_preset("nuscenes-decoder")
    assert (config.grid, config.epochs, config.weight_decay, config.warmup) == (0.05, 50, 0.005, 0.04)
    assert (config.batch, config.clamp) == (64, None)
    assert supervised_preset("waymo-linear").clamp == (-75.2, -75.2, -4, 75.2, 75.2, 2)
    assert config.start_factor / config.final_factor == pytest.approx(100)
    assert config.augment is not None and config.augment.geometry.elastic == ()
    assert len(VARIANTS[config.test_variants]) == 10


def test_every_name_has_settings_and_a_tiny_sister() -> None:
    found = [name for name, protocol in names() if type(protocol).__module__.startswith("brickyard.")]
    assert len(set(found)) == len(found)
    full = {f"{family}-{kind}" for family in BENCHMARKS for kind in KINDS}
    assert {*full, *(f"{name}-tiny" for name in full), *image_to_lidar.PRESETS} < set(found)
    for name in found[::7]:
        chosen = choose(name, OWN)
        assert type(chosen.config) is chosen.protocol.config
    assert preset("linear_probe", OWN) is OWN
    assert preset("knn", OWN) == KnnConfig(taxonomy="s3dis13", dataset="s3dis", val_split="test", threads=1)
    assert preset("geometry@5%", OWN) == ShortcutConfig(
        taxonomy="s3dis13", dataset="s3dis", val_split="test", threads=1, fraction=0.05
    )
    assert preset("scannet-linear-tiny@20pts", OWN).points_per_scene == 20
    assert preset("segmentation", OWN) == replace(
        supervised_preset("scannet-linear"), taxonomy="s3dis13", dataset="s3dis", val_split="test", threads=1
    )
    with pytest.raises(RecipeError, match="nearest: scannet-linear,"):
        preset("scannet-lineal", OWN)
    for wrong in ("scannet-lineal", "kitti-linear", "scannet-linear@5", "scannet-linear@5%-tiny", "knn-tiny"):
        with pytest.raises(RecipeError, match="unknown protocol"):
            preset(wrong, OWN)


def test_fingerprints_tell_settings_taxonomies_and_sizes_apart(tmp_path: Path) -> None:
    config = preset("scannet-linear", OWN)
    same = fingerprint(config, (1201, 312))
    assert same == fingerprint(replace(config, threads=7), (1201, 312)) and len(same) == 12
    path = tmp_path / "list.txt"
    path.write_text("a")
    others = [
        fingerprint(config, (1201, 311)),
        fingerprint(preset("scannet200-linear", OWN), (1201, 312)),
        fingerprint(preset("scannet-decoder", OWN), (1201, 312)),
        fingerprint(replace(config, draw_seed=1), (1201, 312)),
        fingerprint(replace(config, scene_list=path), (1201, 312)),
    ]
    path.write_text("b")
    others.append(fingerprint(replace(config, scene_list=path), (1201, 312)))
    assert len({same, *others}) == 7


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("linear_probe", "914c81d12fc2"),
        ("knn", "5faf751e1df3"),
        ("geometry", "5659fd098d6b"),
        ("scannet-linear", "da81cc6a4dca"),
        ("nuscenes-finetune@5%", "999121d059d7"),
        ("s3dis-decoder-tiny", "a7dd8855a18b"),
        ("waymo-linear-tiny@20pts", "cd51232a3147"),
    ],
)
def test_fingerprints_of_earlier_versions_stay_what_they_are(name: str, digest: str) -> None:
    """Else numbers that were measured the same way would not be known as such.

    Those of supervised protocols are of the version in which the loop of training trains them, with settings that they
    had not before: what was measured earlier was measured otherwise.
    """
    assert fingerprint(preset(name, ProbeConfig()), (1201, 312)) == digest


def test_a_file_counts_by_what_it_holds_and_a_protocol_without_training_has_no_split(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Poses(SceneConfig):
        trajectory: Path | None = None

    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("1 2 3")
    other.write_text("1 2 3")
    same = fingerprint(Poses(trajectory=one), (0, 2))
    assert same == fingerprint(Poses(trajectory=other, threads=5), (0, 2))
    other.write_text("1 2 4")
    others = {fingerprint(Poses(trajectory=other), (0, 2)), fingerprint(Poses(), (0, 2))}
    assert len({same, *others}) == 3
    with pytest.raises(RecipeError, match="no data-efficient split"):
        Poses().reduced(fraction=0.05)
