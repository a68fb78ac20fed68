"""The named protocols: how features are judged, to the number.

    scannet-linear, scannet-decoder, scannet-finetune     as published with Sonata, for a GPU and hours
    scannet-linear-tiny, ...                              the same question in a minute on a CPU; other numbers
    knn, geometry                                         nearest neighbours; the geometric shortcut
    linear_probe                                          the recipe's own linear probe on cached features

and likewise for scannet200, s3dis, nuscenes, waymo and semantickitti. A suffix asks for a data-efficient split:
"scannet-linear@5%" trains on a share of the scenes, "scannet-linear@20pts" on so many labelled points in each.

Published (recipes of Sonata and Pointcept): voxels of 0.02 m, batch 24, 800 epochs (3,000 for S3DIS, with larger
crops), AdamW 0.002 with weight decay 0.02, encoder blocks at a tenth, one cycle with 5 % warm-up from a tenth to a
ten-thousandth, cross-entropy and Lovasz, gradient norm 3, 13 test variants; outdoor 0.05 m, 50 epochs, weight decay
0.005, 4 % warm-up and down to a thousandth, 10 variants.

A protocol's fingerprint is a digest of all its settings (but not of how many threads read), its taxonomy and the sizes
of its splits: two numbers may be compared if their fingerprints are equal.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import xxhash

from brickyard.evaluate.augment import AugmentConfig
from brickyard.evaluate.knn import KnnConfig
from brickyard.evaluate.linear_probe import ProbeConfig
from brickyard.evaluate.segmenter import Kind
from brickyard.evaluate.shortcut import ShortcutConfig
from brickyard.evaluate.splits import DataConfig
from brickyard.evaluate.supervised import SupervisedConfig
from brickyard.shards.errors import RecipeError
from brickyard.shards.taxonomy import taxonomy
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.views.geometry import GeometryConfig

LINEAR_PROBE = "linear_probe"
KINDS: tuple[Kind, ...] = ("linear", "decoder", "finetune")
DATASETS = {
    "scannet": ("scannet", "scannet20"),
    "scannet200": ("scannet", "scannet200"),
    "s3dis": ("s3dis", "s3dis13"),
    "nuscenes": ("nuscenes", "nuscenes16"),
    "waymo": ("waymo_v2", "waymo22"),
    "semantickitti": ("kitti_odometry", "semantickitti19"),
}
"""Name of a family of protocols -> (dataset of the corpus, taxonomy)."""

_OUTDOOR = ("nuscenes", "waymo", "semantickitti")
_SUFFIX = re.compile(r"(?P<name>[^@]+)@(?:(?P<share>\d+(?:\.\d+)?)%|(?P<points>\d+)pts)")
_NOT_NUMERIC = ("threads", "cache_gib")
_TINY_DECODER = PointDecoderConfig(channels=(32, 32, 48, 64), heads=(2, 2, 3, 4), depths=(1, 1, 1, 1), drop_path=0.1)


def preset_names() -> list[str]:
    """The names without suffix."""
    families = [f"{family}-{kind}{size}" for family in DATASETS for kind in KINDS for size in ("", "-tiny")]
    return [LINEAR_PROBE, "knn", "geometry", *families]


def preset(name: str, own: ProbeConfig) -> DataConfig:
    """The settings of a name, with its suffix applied.

    Args:
        own: the recipe's linear probe; "knn" and "geometry" look at the same data.

    Raises:
        RecipeError: an unknown name.
    """
    match = _SUFFIX.fullmatch(name)
    config = _named(match["name"] if match else name, own)
    if match and match["share"]:
        return replace(config, fraction=float(match["share"]) / 100)
    return replace(config, points_per_scene=int(match["points"])) if match else config


def _named(name: str, own: ProbeConfig) -> DataConfig:
    same = {field.name: getattr(own, field.name) for field in dataclasses.fields(DataConfig)}
    if name == LINEAR_PROBE:
        return own
    if name == "knn":
        return KnnConfig(**same)
    if name == "geometry":
        return ShortcutConfig(**same)
    base, tiny = name.removesuffix("-tiny"), name.endswith("-tiny")
    family, _, kind = base.rpartition("-")
    for known in KINDS:
        if kind == known and family in DATASETS:
            return _tiny(family, known) if tiny else _published(family, known)
    raise RecipeError(
        f"unknown protocol {name!r}; known: {LINEAR_PROBE}, knn, geometry, and {{{','.join(DATASETS)}}}-"
        f"{{{','.join(KINDS)}}} with or without -tiny, each also as NAME@5% or NAME@20pts"
    )


def _published(family: str, kind: Kind) -> SupervisedConfig:
    dataset, labels = DATASETS[family]
    indoor = SupervisedConfig(kind=kind, dataset=dataset, taxonomy=labels)
    if family == "s3dis":
        return replace(indoor, epochs=3000, augment=AugmentConfig(crop=204_800))
    if family not in _OUTDOOR:
        return indoor
    geometry = GeometryConfig(turn=0.5, tilt_chance=0.0, elastic=())
    return replace(
        indoor,
        grid=0.05,
        epochs=50,
        weight_decay=0.005,
        warmup=0.04,
        final_factor=1e-3,
        augment=AugmentConfig(geometry=geometry, about="sensor", drop_chance=0.0, crop=None),
        test_variants="outdoor",
    )


def _tiny(family: str, kind: Kind) -> DataConfig:
    dataset, labels = DATASETS[family]
    if kind == "linear":
        return ProbeConfig(dataset=dataset, taxonomy=labels, steps=400, batch=4096, lovasz=1.0, voxels_per_scene=2000)
    return SupervisedConfig(
        kind=kind,
        dataset=dataset,
        taxonomy=labels,
        grid=None,
        steps=80,
        batch=4,
        lr=0.005,
        augment=AugmentConfig(
            geometry=GeometryConfig(turn=0.5, tilt_chance=0.0, elastic=()),
            about="sensor" if family in _OUTDOOR else "middle",
            crop=2048,
            mix=0.0,
        ),
        decoder=_TINY_DECODER,
        test_variants="none",
        most_turns=2,
    )


def settings(config: DataConfig) -> dict[str, Any]:
    """All settings as JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return plain


def fingerprint(config: DataConfig, scenes: tuple[int, int]) -> str:
    """12 hexadecimal digits; `scenes` are the numbers of training and validation scenes."""
    labels = taxonomy(config.taxonomy)
    numbers = {name: value for name, value in settings(config).items() if name not in _NOT_NUMERIC}
    for name in ("scene_list", "points_list"):
        path = getattr(config, name)
        numbers[name] = None if path is None else _digest_files(path)
    content = {
        "protocol": type(config).__name__,
        "settings": numbers,
        "taxonomy": [labels.name, labels.version, list(labels.classes)],
        "scenes": list(scenes),
    }
    return xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())[:12]


def _digest_files(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return xxhash.xxh3_64_hexdigest(b"".join(xxhash.xxh3_64_digest(file.read_bytes()) for file in files))
