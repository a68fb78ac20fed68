"""Rendering: what a network that was trained by rendering shows of views it has never seen.

Scenes of the validation split are encoded from their points, and some of their views are rendered and compared with the
images and depths that were taken (see `evaluate.images` for the measures). Beside the network as it was before training
stands what needs no network: another view of the scene warped by its depth, the one that covers most of the view (see
`evaluate.warping`). It is given images and depths of the scene, the network points alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from brickyard.evaluate.pictured import Pictured
from brickyard.evaluate.posed_views import posed_clouds
from brickyard.evaluate.protocols.protocol import Measured, Protocol
from brickyard.evaluate.rendered_views import best_warp, compared, rendered_view, warped_compared
from brickyard.evaluate.splits import SceneConfig, val_rows
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import Column
from brickyard.evaluate.view_pictures import view_pictures
from brickyard.train.rendering.network import SceneRenderer


@dataclass(frozen=True, kw_only=True)
class RenderingConfig(SceneConfig):
    """What is rendered.

    Attributes:
        views: of each scene, spread evenly over those with an image, a depth image and a pose.
        side: pixels of the shorter edge, about.
        pictures: so many scenes are drawn for the page of the run, a view each.
        rays: that are rendered at a time.
    """

    views: int = 2
    side: int = 120
    pictures: int = 4
    rays: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.views, self.rays) < 1 or self.side < 11 or self.pictures < 0:
            raise ValueError("views and rays must be positive, side 11 or more, pictures not negative")


class Rendering(Protocol[RenderingConfig]):
    """See the module's text."""

    config = RenderingConfig
    needs = SceneRenderer
    columns = (
        Column(metric="psnr", title="PSNR dB"),
        Column(metric="psnr_warped", title="PSNR dB, another view warped"),
        Column(metric="ssim", title="SSIM", digits=3),
        Column(metric="ssim_warped", title="SSIM, another view warped", digits=3),
        Column(metric="abs_rel", title="depth error, share", digits=3, less_is_better=True),
        Column(metric="abs_rel_warped", title="depth error, share, another view warped", digits=3, less_is_better=True),
        Column(metric="rmse", title="depth RMSE m", less_is_better=True),
        Column(metric="delta_1", title="depth within 1.25 times, %", percent=True),
        Column(metric="normal_angle", title="normal angle °", less_is_better=True),
    )

    def run(self, subject: Subject, config: RenderingConfig) -> Measured:
        network = subject.network
        assert isinstance(network, SceneRenderer)
        numbers: dict[str, list[float]] = defaultdict(list)
        pictures: list[Pictured] = []
        scenes, mode = 0, network.training
        network.eval()
        sizes = {"views": config.views, "side": config.side, "threads": config.threads}
        for scene in posed_clouds(subject.corpus, network, val_rows(subject.corpus, config), **sizes):
            scenes += 1
            with torch.no_grad():
                filled = network([scene.given])
                for number in range(scene.rendered):
                    view = scene.views[number]
                    shown, warped = rendered_view(network, filled, view, config.rays), best_warp(scene.views, number)
                    for name, value in (compared(shown, view) | warped_compared(warped, view)).items():
                        numbers[name].append(value)
                    if number == 0 and len(pictures) < config.pictures:
                        drawn = view_pictures(view, shown, warped)
                        pictures.append(Pictured(scene=scene.cloud.key, title=view.name, pictures=drawn))
        network.train(mode)
        means = {name: _mean(values) for name, values in numbers.items()}
        return Measured(metrics=means, scenes=(0, scenes), pictures=tuple(pictures))


PROTOCOL = Rendering()


def _mean(values: list[float]) -> float | None:
    """Over the views that have the number."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None
