"""What others have published, to stand beside our numbers: mean IoU on the official validation sets, in percent.

    Sonata (Wu et al., CVPR 2025, arXiv 2503.16429): point transformer of 108 M parameters, 140 thousand scenes
    SLidR (Sautier et al., CVPR 2022, arXiv 2203.16258), PPKT (arXiv 2104.04687), and SLidR's random weights
    ST-SLidR (Mahmoud et al., CVPR 2023, arXiv 2301.05709), mean of three runs

A number is shown only where nothing differs: the fingerprint of the settings as they were used, with the sizes of the
splits, is that of the published settings with the official sizes. The seed alone is free. Official lists of scenes and
points are files that only users have, so where a number was measured on such a list, one must have been given.

Beside some presets nothing stands although numbers were published, because it is not known how they came about: those
of Sonata outdoors (neither settings nor weights were released), those on 1 % of Waymo (nobody says which scans).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from brickyard.evaluate.protocols.benchmarks import OUTDOOR
from brickyard.evaluate.protocols.fingerprint import fingerprint, settings
from brickyard.evaluate.protocols.protocol import Published
from brickyard.evaluate.segment import SupervisedConfig

SONATA = "published (Sonata, 108M, 140k scenes)"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A published number.

    Attributes:
        miou: percent.
        source: whose it is.
        train, val: scenes of the official splits; a range where the number of training scenes is known no better.
        listed: the setting that names the official list, where there is one.
    """

    miou: float
    source: str
    train: int | range
    val: int
    listed: str | None = None


def _sonata() -> dict[str, Record]:
    full = {
        "scannet": ((72.5, 79.1, 79.4), 1201, 312),
        "scannet200": ((29.3, 33.5, 36.8), 1201, 312),
        "s3dis": ((72.3, 74.5, 76.0), 204, 68),
    }
    shares = {
        "1%": ((43.6, 44.5, 45.3), 12),
        "5%": ((62.5, 64.1, 65.7), 60),
        "10%": ((68.6, 69.8, 72.4), 120),
        "20%": ((69.8, 72.5, 72.8), 240),
    }
    points = {
        "20pts": (69.0, 69.8, 70.5),
        "50pts": (70.5, 73.1, 73.6),
        "100pts": (71.1, 75.0, 76.0),
        "200pts": (71.5, 76.3, 77.0),
    }
    found = {}
    for place, kind in enumerate(("linear", "decoder", "finetune")):
        for family, (miou, train, val) in full.items():
            found[f"{family}-{kind}"] = Record(miou=miou[place], source=SONATA, train=train, val=val)
        for suffix, (miou, train) in shares.items():
            found[f"scannet-{kind}@{suffix}"] = Record(
                miou=miou[place], source=SONATA, train=train, val=312, listed="scene_list"
            )
        for suffix, miou in points.items():
            found[f"scannet-{kind}@{suffix}"] = Record(
                miou=miou[place], source=SONATA, train=1201, val=312, listed="points_list"
            )
    return found


_SEVEN_DRIVES = range(270, 291)
"""Keyframes of seven drives of nuScenes, which have 40 or so each."""
_NUSCENES, _KITTI = (28_130, 6019), (19_130, 4071)

RECORDS: Mapping[str, Record] = {
    **_sonata(),
    "slidr-nuscenes-linear": Record(
        miou=38.8, source="published (SLidR; PPKT 36.4, random 8.1)", train=_NUSCENES[0], val=_NUSCENES[1]
    ),
    "slidr-nuscenes-finetune@1%": Record(
        miou=38.3, source="published (SLidR; PPKT 37.8, random 30.3)", train=_SEVEN_DRIVES, val=_NUSCENES[1]
    ),
    "slidr-semantickitti-finetune@1%": Record(
        miou=44.6, source="published (SLidR; PPKT 43.9, random 39.5)", train=-(-_KITTI[0] // 100), val=_KITTI[1]
    ),
    "stslidr-nuscenes-linear": Record(
        miou=40.56, source="published (ST-SLidR; SLidR 38.08)", train=_NUSCENES[0], val=_NUSCENES[1]
    ),
    "stslidr-nuscenes-finetune@1%": Record(
        miou=41.13, source="published (ST-SLidR; SLidR 40.01)", train=_SEVEN_DRIVES, val=_NUSCENES[1]
    ),
    "stslidr-semantickitti-finetune@1%": Record(
        miou=44.72, source="published (ST-SLidR, as later papers print it)", train=-(-_KITTI[0] // 100), val=_KITTI[1]
    ),
}
"""Name of a preset, with the suffix of its split -> the number."""


def published(name: str, preset: SupervisedConfig, config: SupervisedConfig, scenes: tuple[int, int]) -> Published:
    """The published mean IoU, 0..1, beside a protocol, or why there is none.

    Args:
        name: of the protocol, such as "scannet-linear@5%". preset: the settings of that name.
        config: the settings as they were used. scenes: training and validation scenes.
    """
    record = RECORDS.get(name)
    if record is None:
        return Published(source=_missing(name))
    used = replace(config, seed=preset.seed)
    if record.listed is not None:
        if getattr(config, record.listed) is None:
            return Published(source=f"not comparable: published on the official list, give it as {record.listed}")
        nothing: dict[str, Any] = {record.listed: None}
        used = replace(used, **nothing)
    train = scenes[0] if isinstance(record.train, range) and scenes[0] in record.train else record.train
    if scenes != (train, record.val):
        expected = f"{record.train.start} to {record.train[-1]}" if isinstance(record.train, range) else record.train
        return Published(
            source=f"not comparable: {scenes[0]} training and {scenes[1]} validation scenes here, {expected} and"
            f" {record.val} in the official splits"
        )
    if fingerprint(used, scenes) != fingerprint(preset, scenes):
        differing = ", ".join(_differing(settings(used), settings(preset)))
        return Published(source=f"not comparable: published with another {differing}")
    return Published(source=record.source, values={"miou": record.miou / 100})


def _missing(name: str) -> str:
    base = name.partition("@")[0]
    if base.endswith("-tiny"):
        return "nothing was published for this protocol"
    if base.split("-")[0] in OUTDOOR:
        return "not comparable: the settings behind Sonata's outdoor numbers were not released"
    if base.startswith(("slidr-waymo", "stslidr-waymo")):
        return "not comparable: which scans of Waymo published numbers are of is not known"
    return "nothing was published for this " + ("split" if base in RECORDS else "protocol")


def _differing(used: Mapping[str, Any], wanted: Mapping[str, Any], above: str = "") -> list[str]:
    """Dotted names of settings that differ."""
    found = []
    for name in used:
        one, other = used[name], wanted[name]
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differing(one, other, f"{above}{name}.")
        elif one != other:
            found.append(f"{above}{name}")
    return found
