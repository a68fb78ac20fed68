"""Novel views: how well networks that render new views of a few do so in films they have never seen.

Clips of the validation split are cut into inputs and targets (see `evaluate.unseen_clips`); RayZer is shown the targets
only to find their cameras, LVSM is given cameras. PSNR and SSIM are means over the target images, and so is how unlike
they look to a frozen network (`train.objectives.perceptual`), which goes by the name of that network; LPIPS is measured
where its weights are given.
Beside stand the network before training and what needs none: the nearest input view, the mean of both neighbours, and
that mean blurred.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from brickyard.evaluate.clip_pictures import flight, view_pictures
from brickyard.evaluate.images import psnr, ssim
from brickyard.evaluate.lpips import LPIPS
from brickyard.evaluate.pictured import Pictured
from brickyard.evaluate.protocols.protocol import Measured, Protocol
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import Column
from brickyard.evaluate.unseen_clips import ClipsConfig, UnseenClip, UnseenClips
from brickyard.evaluate.view_baselines import blurred, mean_of_neighbours, nearest_input
from brickyard.train.models.view_network import Look, ViewNetwork
from brickyard.train.objectives.perceptual import EMBEDDED, NONE, PerceptualConfig, load_perceptual

Measure: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


@dataclass(frozen=True, kw_only=True)
class NovelViewsConfig(ClipsConfig):
    """What is rendered.

    Attributes:
        perceptual: a file with VGG-19's weights, for that measure beside the one that comes in a package.
        lpips: a file with LPIPS's weights, see `evaluate.lpips`; without, it is not measured.
        pictures: so many clips are drawn for the page of the run. flight: frames of the animation of each, 0 for none.
    """

    perceptual: str = NONE
    lpips: Path | None = None
    pictures: int = 4
    flight: int = 48

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.pictures, self.flight) < 0:
            raise ValueError("pictures and flight must not be negative")


class NovelViews(Protocol[NovelViewsConfig]):
    """See the module's text."""

    config = NovelViewsConfig
    presets = MappingProxyType({"novel_views-random": NovelViewsConfig(split="random")})
    needs = ViewNetwork
    columns = (
        Column(metric="psnr", title="PSNR dB", digits=2),
        Column(metric="psnr_nearest", title="PSNR dB, nearest input view", digits=2),
        Column(metric="psnr_mean", title="PSNR dB, mean of the two neighbours", digits=2),
        Column(metric="psnr_blurred", title="PSNR dB, that mean blurred", digits=2),
        Column(metric="better_than_mean", title="views better than the mean of the two neighbours, %", percent=True),
        Column(metric="ssim", title="SSIM", digits=3),
        Column(metric="ssim_nearest", title="SSIM, nearest input view", digits=3),
        Column(metric="ssim_mean", title="SSIM, mean of the two neighbours", digits=3),
        *(
            Column(metric=f"{metric}{suffix}", title=f"{title}{words}", digits=3, less_is_better=True)
            for metric, title in ((f"perceptual_{EMBEDDED}", f"distance to {EMBEDDED}"), ("lpips", "LPIPS (VGG)"))
            for suffix, words in (
                ("", ""),
                ("_nearest", ", nearest input view"),
                ("_mean", ", mean of the two neighbours"),
            )
        ),
        Column(metric="left_out", title="clips left out", digits=0),
    )

    def run(self, subject: Subject, config: NovelViewsConfig) -> Measured:
        network = subject.network
        assert isinstance(network, ViewNetwork)
        measures = _measures(config, network.device)
        clips = UnseenClips(subject.corpus, network, config, posed=False, what="novel_views")
        numbers: dict[str, list[float]] = defaultdict(list)
        pictures: list[Pictured] = []
        mode, scenes = network.training, 0
        network.eval()
        with torch.no_grad():
            for clip in clips:
                scenes += 1
                look = clip.look(network)
                images, times = clip.batch.images[0], clip.times
                found = {
                    "": network.render(look.scene, look.told[:, clip.inputs :])[0].float(),
                    "_nearest": nearest_input(images, times, clip.inputs),
                    "_mean": mean_of_neighbours(images, times, clip.inputs),
                }
                blurry = blurred(found["_mean"])
                numbers["psnr_blurred"] += [float(psnr(*pair)) for pair in zip(blurry, clip.real, strict=True)]
                for suffix, views in found.items():
                    for name, values in compared(views, clip.real, measures).items():
                        numbers[name + suffix] += values
                if len(pictures) < config.pictures:
                    pictures.append(_pictured(network, clip, look, found, config.flight))
        network.train(mode)
        pairs = zip(numbers["psnr"], numbers["psnr_mean"], strict=True)
        means: dict[str, float | None] = {f"lpips{suffix}": None for suffix in ("", "_nearest", "_mean")}
        means |= {name: float(np.mean(values)) for name, values in numbers.items()}
        means |= {"better_than_mean": float(np.mean([ours > theirs for ours, theirs in pairs]))}
        means |= {"left_out": float(len(clips.left_out)), "views": float(len(numbers["psnr"]))}
        files = {f"novel_views-{config.split}-left-out.txt": clips.list_of_left_out} if clips.left_out else {}
        return Measured(metrics=means, scenes=(0, scenes), pictures=tuple(pictures), files=files)


PROTOCOL = NovelViews()


def compared(found: Tensor, real: Tensor, measures: Mapping[str, Measure]) -> dict[str, list[float]]:
    """How alike images (T, 3, H, W) in [0, 1] are to others: name -> a number for each."""
    pairs = [(one.permute(1, 2, 0), other.permute(1, 2, 0)) for one, other in zip(found.clamp(0, 1), real, strict=True)]
    result = {
        "psnr": [float(psnr(one, other)) for one, other in pairs],
        "ssim": [float(ssim(one, other)) for one, other in pairs],
    }
    for name, measure in measures.items():
        result[name] = [float(measure(found[k : k + 1], real[k : k + 1])) for k in range(len(found))]
    return result


def _measures(config: NovelViewsConfig, device: torch.device) -> dict[str, Measure]:
    """Name -> measure: the embedded one, and those of files where they are given."""
    loaded = [load_perceptual(PerceptualConfig(network=name), device) for name in {EMBEDDED, config.perceptual}]
    found: dict[str, Measure] = {measure.name: measure for measure in loaded if measure is not None}
    return found if config.lpips is None else {**found, "lpips": LPIPS(config.lpips).eval().to(device)}


def _pictured(network: ViewNetwork, clip: UnseenClip, look: Look, found: Mapping[str, Tensor], frames: int) -> Pictured:
    """The middle target and what was found for it, and a flight along the clip's cameras."""
    number = len(clip.real) // 2
    drawn = view_pictures(clip.real[number], {name: images[number] for name, images in found.items()})
    if frames and network.tells_poses:
        drawn += (("A flight along the cameras", flight(network, look, clip.times, frames)),)
    return Pictured(scene=clip.key, title=f"{clip.inputs} inputs over {max(clip.times) + 1} frames", pictures=drawn)
