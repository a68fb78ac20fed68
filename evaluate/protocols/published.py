"""What others have published, to stand beside our numbers: Sonata (Wu et al., CVPR 2025, arXiv 2503.16429).

Mean IoU on the official validation sets, in percent. A number is shown only beside the same protocol on the same data:
the published settings, unchanged, and as many validation scenes as the official split has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from brickyard.evaluate.protocols.protocol import Published
from brickyard.evaluate.supervised import SupervisedConfig

SOURCE = "published (Sonata, 108M, 140k scenes)"
OUTDOOR_SOURCE = "published (Sonata outdoor, nuScenes + Waymo + SemanticKITTI)"

_FULL = {
    "scannet": (72.5, 79.1, 79.4),
    "scannet200": (29.3, 33.5, 36.8),
    "s3dis": (72.3, 74.5, 76.0),
    "nuscenes": (66.1, 77.3, 81.7),
    "waymo": (60.5, 70.8, 72.9),
    "semantickitti": (62.0, 68.4, 72.6),
}
"""Family -> (linear, decoder, finetune)."""
_SCANNET_SHARES = {
    0.01: (43.6, 44.5, 45.3),
    0.05: (62.5, 64.1, 65.7),
    0.1: (68.6, 69.8, 72.4),
    0.2: (69.8, 72.5, 72.8),
}
_SCANNET_POINTS = {20: (69.0, 69.8, 70.5), 50: (70.5, 73.1, 73.6), 100: (71.1, 75.0, 76.0), 200: (71.5, 76.3, 77.0)}
_KINDS = ("linear", "decoder", "finetune")
_VAL_SCENES = {
    "scannet": 312,
    "scannet200": 312,
    "s3dis": 68,
    "nuscenes": 6019,
    "waymo": 5976,
    "semantickitti": 4071,
}


def published(
    name: str, preset: SupervisedConfig | None, config: SupervisedConfig, scenes: tuple[int, int]
) -> Published:
    """The published mean IoU, 0..1, of a preset.

    Args:
        name: of the preset, such as "scannet-linear". preset: its settings, None where there is no such preset.
        config: the settings as they were used. scenes: training and validation scenes.
    """
    family, _, kind = name.rpartition("-")
    if preset is None or family not in _FULL or kind not in _KINDS:
        return Published(source="nothing was published for this protocol")
    # What is free: whose lists, and what decides neither data nor training.
    free: dict[str, Any] = {
        "fraction": config.fraction,
        "scene_list": config.scene_list,
        "points_per_scene": config.points_per_scene,
        "points_list": config.points_list,
        "threads": config.threads,
        "seed": config.seed,
        "draw_seed": config.draw_seed,
        "accumulate": config.accumulate,
    }
    if replace(preset, **free) != config:
        return Published(source="not comparable: the settings differ from the published ones")
    if scenes[1] != _VAL_SCENES[family]:
        expected = f"{scenes[1]} validation scenes here, {_VAL_SCENES[family]} in the official split"
        return Published(source=f"not comparable: {expected}")
    place = _KINDS.index(kind)
    if config.fraction is None and config.scene_list is None and config.points_per_scene is None:
        if config.points_list is not None:
            return Published(source="not comparable: say with points_per_scene how many the list has")
        source = SOURCE if family in ("scannet", "scannet200", "s3dis") else OUTDOOR_SOURCE
        return _miou(_FULL[family][place], source)
    if family == "scannet":
        shares = _SCANNET_SHARES if config.points_per_scene is None else {}
        points = _SCANNET_POINTS if config.fraction is None and config.scene_list is None else {}
        if config.fraction in shares:
            return _miou(shares[config.fraction][place], _lists(config.scene_list))
        if config.points_per_scene in points:
            return _miou(points[config.points_per_scene][place], _lists(config.points_list))
    return Published(source="nothing was published for this split")


def _miou(percent: float, source: str) -> Published:
    return Published(source=source, values={"miou": percent / 100})


def _lists(path: object) -> str:
    return SOURCE if path is not None else f"{SOURCE[:-1]}; on its official list, ours is drawn)"
