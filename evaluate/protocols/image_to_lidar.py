"""The downstream protocols of the image-to-lidar publications (PPKT, SLidR, ST-SLidR), as presets of `segmentation`.

    slidr-nuscenes-linear               a linear layer on the frozen network, all training keyframes, 100 epochs
    slidr-nuscenes-finetune@1%          all of the network, on every 100th drive of the training split
    slidr-semantickitti-finetune@1%     all of the network, on every 100th scan
    slidr-waymo-finetune@1%             likewise; whose scans published numbers were trained on is not known
    stslidr-...                         as ST-SLidR trains: 50 epochs, batch 16
    slidr-...-tiny                      the same question on a CPU, in so many steps; numbers of their own

Settings are those of SLidR's code (github.com/valeoai/SLidR, `config/semseg_*.yaml` and `downstream/`): SGD with
momentum 0.9, dampening 0.1 and weight decay 1e-4; a cosine that stays within an epoch; the trunk at 0.02 (0.05 on
SemanticKITTI) and the new layer at 2.0, or 0.05 for the linear probe; cross-entropy and Lovasz; turns about z and
flips, nothing else; batch norms with momentum 0.02 and, where the trunk is frozen, with the statistics they were
trained with; a classifier with an output more than there are classes, for points without label; voxels as in
pretraining; points take the prediction of their voxel; the last weights are scored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from brickyard.evaluate.augment import AugmentConfig
from brickyard.evaluate.protocols.benchmarks import BENCHMARKS, OUTDOOR
from brickyard.evaluate.segment import SupervisedConfig
from brickyard.train.views.geometry import GeometryConfig

System = Literal["slidr", "stslidr"]
Kind = Literal["linear", "finetune"]
SYSTEMS: tuple[System, ...] = ("slidr", "stslidr")
KINDS: tuple[Kind, ...] = ("linear", "finetune")

AUGMENT = AugmentConfig(
    geometry=GeometryConfig(scale=(1.0, 1.0), turn=1.0, tilt_chance=0.0, jitter=0.0, elastic=()),
    about="sensor",
    drop=0.0,
    drop_chance=0.0,
    contrast_chance=0.0,
    color_noise=0.0,
    color_noise_chance=0.0,
    crop=None,
    mix=0.0,
)
"""Turns about z by any angle, flips of x and of y with probability 0.5."""


def _published(system: System, family: str, kind: Kind) -> SupervisedConfig:
    dataset, labels = BENCHMARKS[family]
    head = 2.0 if kind == "finetune" else 0.05
    trunk = 0.05 if family == "semantickitti" and system == "slidr" else 0.02
    return SupervisedConfig(
        kind=kind,
        dataset=dataset,
        taxonomy=labels,
        every="sequence" if family == "nuscenes" else "scene",
        grid=None,
        epochs=100.0 if system == "slidr" else 50.0,
        batch=10 if family == "semantickitti" and system == "slidr" else 16,
        optimiser="sgd",
        schedule="epoch_cosine",
        lr=head,
        encoder_rate=trunk / head if kind == "finetune" else 1.0,
        weight_decay=1e-4,
        momentum=0.9,
        dampening=0.1,
        momentum_cycle=None,
        warmup=0.0,
        clip=None,
        lovasz=1.0,
        augment=AUGMENT,
        spare=1,
        frozen_mode="eval",
        calibrate=False,
        norm_momentum=0.02,
        validations=0,
        scored="last",
        test_variants="none",
        most_turns=1,
    )


def _tiny(family: str, kind: Kind) -> SupervisedConfig:
    return replace(_published("slidr", family, kind), steps=80, batch=4)


PRESETS = {
    **{
        f"{system}-{family}-{kind}": _published(system, family, kind)
        for system in SYSTEMS
        for family in OUTDOOR
        for kind in KINDS
    },
    **{f"slidr-{family}-{kind}-tiny": _tiny(family, kind) for family in OUTDOOR for kind in KINDS},
}
