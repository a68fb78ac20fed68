"""Segmentation: a classifier, a decoder or all of the network trained on labelled scenes, scored on every raw point.

How it is trained is told in `evaluate.supervised`; here are the numbers, as presets "<benchmark>-<kind>" and
"<benchmark>-<kind>-tiny" (of the linear kind, the tiny one is a preset of the linear probe). Those of the
image-to-lidar publications are in `evaluate.protocols.image_to_lidar`.

Rooms, as published (recipes of Sonata and Pointcept): voxels of 0.02 m, batch 24, 800 epochs (3,000 for S3DIS, where
60 % of a room are cropped first, then larger balls), AdamW 0.002 with weight decay 0.02, encoder blocks at a tenth, one
cycle with 5 % warm-up from a tenth to a ten-thousandth, in which beta1 goes from 0.95 to 0.85 and back, a fifth of the
points dropped from every scene, cross-entropy and Lovasz, gradient norm 3. A frozen encoder stays in training mode, so
blocks are left out at random. A hundred validations by voxels; the best weights are scored, in 13 test variants.

Streets, as published with Concerto for several networks (Sonata's own settings were not released): 0.05 m, batch 64
(12 in the recipes of networks trained from scratch), 50 epochs, weight decay 0.005, 4 % warm-up and down to a
thousandth, 10 variants. On Waymo coordinates are clamped to 75.2 m around the sensor and heights of -4..2 m. (The joint
recipes of a sparse U-Net clamp SemanticKITTI likewise, at 35.2 m: `clamp: [-35.2, -35.2, -4, 35.2, 35.2, 2]`.)
"""

from __future__ import annotations

from dataclasses import replace

from brickyard.evaluate.augment import AugmentConfig
from brickyard.evaluate.protocols import image_to_lidar
from brickyard.evaluate.protocols.benchmarks import BENCHMARKS, OUTDOOR
from brickyard.evaluate.protocols.protocol import Measured, Published, StudentProtocol
from brickyard.evaluate.protocols.published import RECORDS, published
from brickyard.evaluate.protocols.registry import choose
from brickyard.evaluate.scores import COLUMNS
from brickyard.evaluate.segment import SupervisedConfig
from brickyard.evaluate.segmenter import Kind
from brickyard.evaluate.splits import DataConfig
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.supervised import supervised
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.views.geometry import GeometryConfig

KINDS: tuple[Kind, ...] = ("linear", "decoder", "finetune")

_TINY_DECODER = PointDecoderConfig(channels=(32, 32, 48, 64), heads=(2, 2, 3, 4), depths=(1, 1, 1, 1), drop_path=0.1)


def _published(family: str, kind: Kind) -> SupervisedConfig:
    dataset, labels = BENCHMARKS[family]
    indoor = SupervisedConfig(kind=kind, dataset=dataset, taxonomy=labels)
    if family == "s3dis":
        return replace(indoor, epochs=3000, augment=AugmentConfig(crop_share=0.6, crop=204_800))
    if family not in OUTDOOR:
        return indoor
    geometry = GeometryConfig(turn=0.5, tilt_chance=0.0, elastic=())
    return replace(
        indoor,
        grid=0.05,
        clamp=(-75.2, -75.2, -4.0, 75.2, 75.2, 2.0) if family == "waymo" else None,
        epochs=50,
        batch=64,
        weight_decay=0.005,
        warmup=0.04,
        final_factor=1e-3,
        augment=AugmentConfig(geometry=geometry, about="sensor", drop_chance=0.0, crop=None),
        validations=50,
        test_variants="outdoor",
    )


def _tiny(family: str, kind: Kind) -> SupervisedConfig:
    dataset, labels = BENCHMARKS[family]
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
            about="sensor" if family in OUTDOOR else "middle",
            crop=2048,
            mix=0.0,
        ),
        decoder=_TINY_DECODER,
        frozen_mode="eval",
        validations=0,
        scored="last",
        test_variants="none",
        most_turns=2,
    )


PRESETS = {
    **{f"{family}-{kind}": _published(family, kind) for family in BENCHMARKS for kind in KINDS},
    **{f"{family}-{kind}-tiny": _tiny(family, kind) for family in BENCHMARKS for kind in KINDS[1:]},
    **image_to_lidar.PRESETS,
}


class Segmentation(StudentProtocol[SupervisedConfig]):
    """See the module's text. Under its own name it has the published settings for rooms, on the recipe's data."""

    config = SupervisedConfig
    columns = COLUMNS
    presets = PRESETS

    def run(self, subject: Subject, config: SupervisedConfig) -> Measured:
        folder = subject.folder(config)
        return supervised(subject.student, subject.corpus, config, folder).measured

    def published(self, name: str, config: SupervisedConfig, scenes: tuple[int, int]) -> Published:
        preset = choose(name, DataConfig()).config if name in RECORDS else config
        assert isinstance(preset, SupervisedConfig)
        return published(name, preset, config, scenes)


PROTOCOL = Segmentation()
