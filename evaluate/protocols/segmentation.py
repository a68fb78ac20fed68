"""Segmentation: a classifier, a decoder or all of the network trained on labelled scenes, scored on every raw point.

How it is trained is told in `evaluate.supervised`; here are the numbers, as presets "<benchmark>-<kind>" and
"<benchmark>-<kind>-tiny" (of the linear kind, the tiny one is a preset of the linear probe).

Published (recipes of Sonata and Pointcept): voxels of 0.02 m, batch 24, 800 epochs (3,000 for S3DIS, with larger
crops), AdamW 0.002 with weight decay 0.02, encoder blocks at a tenth, one cycle with 5 % warm-up from a tenth to a
ten-thousandth, cross-entropy and Lovasz, gradient norm 3, 13 test variants; outdoor 0.05 m, 50 epochs, weight decay
0.005, 4 % warm-up and down to a thousandth, 10 variants.
"""

from __future__ import annotations

from dataclasses import replace

from brickyard.evaluate.augment import AugmentConfig
from brickyard.evaluate.protocols.benchmarks import BENCHMARKS, OUTDOOR
from brickyard.evaluate.protocols.protocol import Measured, Published, StudentProtocol
from brickyard.evaluate.protocols.published import published
from brickyard.evaluate.scores import COLUMNS
from brickyard.evaluate.segmenter import Kind
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.supervised import SupervisedConfig, supervised
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.views.geometry import GeometryConfig

KINDS: tuple[Kind, ...] = ("linear", "decoder", "finetune")

_TINY_DECODER = PointDecoderConfig(channels=(32, 32, 48, 64), heads=(2, 2, 3, 4), depths=(1, 1, 1, 1), drop_path=0.1)


def _published(family: str, kind: Kind) -> SupervisedConfig:
    dataset, labels = BENCHMARKS[family]
    indoor = SupervisedConfig(kind=kind, dataset=dataset, taxonomy=labels)
    if family == "s3dis":
        return replace(indoor, epochs=3000, augment=AugmentConfig(crop=204_800))
    if family not in OUTDOOR:
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
        test_variants="none",
        most_turns=2,
    )


PRESETS = {
    **{f"{family}-{kind}": _published(family, kind) for family in BENCHMARKS for kind in KINDS},
    **{f"{family}-{kind}-tiny": _tiny(family, kind) for family in BENCHMARKS for kind in KINDS[1:]},
}


class Segmentation(StudentProtocol[SupervisedConfig]):
    """See the module's text. Under its own name it has the published settings for rooms, on the recipe's data."""

    config = SupervisedConfig
    columns = COLUMNS
    presets = PRESETS

    def run(self, subject: Subject, config: SupervisedConfig) -> Measured:
        return supervised(subject.student, subject.corpus, config).measured

    def published(self, name: str, config: SupervisedConfig, scenes: tuple[int, int]) -> Published:
        preset = name.partition("@")[0]
        return published(preset, PRESETS.get(preset), config, scenes)


PROTOCOL = Segmentation()
