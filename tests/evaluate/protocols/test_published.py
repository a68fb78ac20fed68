"""A published number stands beside the published settings on the official splits, and beside nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brickyard.evaluate.protocols.linear_probe import ProbeConfig
from brickyard.evaluate.protocols.protocol import Published
from brickyard.evaluate.protocols.published import RECORDS, SONATA
from brickyard.evaluate.protocols.registry import choose
from brickyard.evaluate.segment import SupervisedConfig

FREE = ("seed", "threads")
"""What nobody published; what decides no number."""
OTHER: dict[str, Any] = {  # values of the type of a setting that is None in presets, or has few values
    "clamp": (-9.0, -9.0, -9.0, 9.0, 9.0, 9.0), "steps": 7, "fraction": 0.5, "points_per_scene": 3, "val_scenes": 5,
    "crop": 77, "crop_share": 0.7, "kind": "finetune", "optimiser": "sgd", "scored": "last", "about": "sensor",
    "frozen_mode": "eval", "test_variants": "none", "every": "scene", "norm_momentum": 0.5, "taxonomy": "s3dis13",
    "dataset": "another", "batch": 48, "accumulate": 3,
}  # fmt: skip


def said(name: str, scenes: tuple[int, int], **changes: Any) -> Published:
    chosen = choose(name, ProbeConfig())
    return chosen.protocol.published(name, replace(chosen.config, **changes), scenes)


def altered(config: Any, files: Path) -> Iterator[tuple[str, Any]]:
    """(dotted name, the config with this one setting changed) for every setting, also of configs below."""
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if dataclasses.is_dataclass(value):
            for name, inner in altered(value, files):
                yield f"{spec.name}.{name}", replace(config, **{spec.name: inner})
            continue
        if spec.name in ("scene_list", "points_list"):
            other: Any = files
        elif spec.name == "schedule":
            yield "schedule", replace(config, schedule="epoch_cosine", momentum_cycle=None)
            continue
        elif spec.name == "about":
            yield "about", replace(config, about="sensor", geometry=replace(config.geometry, elastic=()))
            continue
        elif isinstance(value, bool):
            other = not value
        elif spec.name in OTHER:
            other = OTHER[spec.name]
        elif isinstance(value, tuple):
            other = value[:-1] if spec.name == "elastic" else tuple(v * (2 if v >= 1 else 0.5) for v in value)
        elif isinstance(value, str):
            other = f"other {value}"
        else:
            other = value + 1 if isinstance(value, int) else value * 0.5 + 0.003
        yield spec.name, replace(config, **{spec.name: other})


def test_any_single_setting_takes_the_number_away(tmp_path: Path) -> None:
    files = tmp_path / "list.txt"
    files.write_text("scene0000_00")
    chosen = choose("scannet-linear", ProbeConfig())
    names, scenes = set(), (1201, 312)
    for name, config in altered(chosen.config, files):
        assert config != chosen.config, name
        found = chosen.protocol.published("scannet-linear", config, scenes)
        assert bool(found.values) == (name in FREE), name
        if name not in FREE:
            assert "not comparable" in found.source and name in found.source, (name, found.source)
        names.add(name)
    assert {"lr", "augment.geometry.jitter", "augment.drop_chance", "decoder.depths", "momentum_cycle"} <= names
    assert len(names) > len(dataclasses.fields(SupervisedConfig))


@pytest.mark.parametrize(
    ("name", "scenes", "changes", "miou"),
    [
        ("scannet-linear", (1201, 312), {}, 72.5),
        ("scannet-finetune", (1201, 312), {"seed": 5, "threads": 9}, 79.4),
        ("s3dis-decoder", (204, 68), {}, 74.5),
        ("scannet-linear@5%", (60, 312), {"scene_list": Path("list")}, 62.5),
        ("scannet-decoder@200pts", (1201, 312), {"points_list": Path("list")}, 76.3),
        ("slidr-nuscenes-linear", (28130, 6019), {}, 38.8),
        ("slidr-nuscenes-finetune@1%", (281, 6019), {}, 38.3),
        ("slidr-semantickitti-finetune@1%", (192, 4071), {}, 44.6),
        ("stslidr-nuscenes-linear", (28130, 6019), {}, 40.56),
    ],
)
def test_numbers_stand_beside_the_same(
    name: str, scenes: tuple[int, int], changes: dict[str, Any], miou: float
) -> None:
    found = said(name, scenes, **changes)
    assert found.values == {"miou": pytest.approx(miou / 100)} and found.source.startswith("published (")


@pytest.mark.parametrize(
    ("name", "scenes", "changes", "source"),
    [
        ("scannet-linear", (1201, 6), {}, "6 validation scenes here, 1201 and 312 in the official splits"),
        ("scannet-linear", (1200, 312), {}, "1200 training"),
        ("scannet-decoder@5%", (60, 312), {}, "published on the official list, give it as scene_list"),
        ("scannet-linear@20pts", (1201, 312), {}, "give it as points_list"),
        ("slidr-nuscenes-finetune@1%", (246, 6019), {}, "270 to 290 and 6019 in the official"),
        ("slidr-nuscenes-finetune@1%", (281, 6019), {"every": None}, "published with another every"),
        ("slidr-waymo-finetune@1%", (236, 5976), {}, "which scans of Waymo"),
        ("nuscenes-linear", (28130, 6019), {}, "Sonata's outdoor numbers were not released"),
        ("scannet-linear@3%", (36, 312), {}, "nothing was published for this split"),
        ("scannet-decoder-tiny", (1201, 312), {}, "nothing was published for this protocol"),
        ("slidr-nuscenes-linear-tiny", (28130, 6019), {}, "nothing was published for this protocol"),
        ("segmentation", (1201, 312), {}, "nothing was published for this protocol"),
        ("knn", (1201, 312), {}, "nothing was published"),
    ],
)
def test_no_number_stands_beside_anything_else(
    name: str, scenes: tuple[int, int], changes: dict[str, Any], source: str
) -> None:
    found = said(name, scenes, **changes)
    assert not found.values and source in found.source


def test_every_record_is_of_a_protocol_that_there_is() -> None:
    for name, record in RECORDS.items():
        config = choose(name, ProbeConfig()).config
        assert isinstance(config, SupervisedConfig) and 0 < record.miou < 100
        assert (record.listed is not None) == ("@" in name and record.source == SONATA)
