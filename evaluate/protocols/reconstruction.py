"""Reconstruction: the surface that a network's signed distance describes, beside the points that were measured.

Scenes of the validation split are encoded from their points; the surface of what comes out is compared with these
points where views see it (see `evaluate.surfaces`): accuracy, completeness and F-score at 5 cm, as ScanNet's
reconstruction benchmarks count them. The network was shown the points, but no surface: what is asked is whether the
volume keeps it. The first surfaces lie beside the run's pictures as PLY files.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from brickyard.evaluate.posed_views import posed_clouds
from brickyard.evaluate.protocols.protocol import Measured, Protocol
from brickyard.evaluate.splits import SceneConfig, val_rows
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.surfaces import (
    seen_points,
    seen_surface,
    surface_errors,
    surface_of,
    surface_ply,
    surface_points,
)
from brickyard.evaluate.table import Column
from brickyard.shards.export.folder import safe_name
from brickyard.train.rendering.network import SceneRenderer


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(SceneConfig):
    """How the surface is found and compared.

    Attributes:
        cells: of the grid on which the distance is asked, along the longest side.
        near: metres within which a point counts as met.
        points: on the surface, of each scene.
        files: so many scenes' surfaces are kept as PLY.
    """

    cells: int = 160
    near: float = 0.05
    points: int = 40_000
    files: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.cells, self.points) < 2 or self.near <= 0 or self.files < 0:
            raise ValueError("cells, points and near must be positive, files not negative")


class Reconstruction(Protocol[ReconstructionConfig]):
    """See the module's text."""

    config = ReconstructionConfig
    needs = SceneRenderer
    columns = (
        Column(metric="f_score", title="F-score %", percent=True),
        Column(metric="accuracy", title="accuracy m", digits=3, less_is_better=True),
        Column(metric="completeness", title="completeness m", digits=3, less_is_better=True),
    )

    def run(self, subject: Subject, config: ReconstructionConfig) -> Measured:
        network = subject.network
        assert isinstance(network, SceneRenderer)
        numbers: dict[str, list[float]] = defaultdict(list)
        files: dict[str, bytes] = {}
        scenes, mode = 0, network.training
        network.eval()
        rows = val_rows(subject.corpus, config)
        for scene in posed_clouds(subject.corpus, network, rows, views=1, side=120, threads=config.threads):
            scenes += 1
            with torch.no_grad():
                whole = surface_of(network.renderer, network([scene.given]), config.cells)
            surface, real = seen_surface(whole, scene.views), scene.cloud.xyz.numpy().astype(np.float64)
            found = surface_points(surface, config.points)
            for name, value in surface_errors(found, real[seen_points(real, scene.views)], config.near).items():
                numbers[name].append(value)
            if len(files) < config.files:
                files[f"{safe_name(scene.cloud.key)}-surface.ply"] = surface_ply(surface)
        network.train(mode)
        means = {name: float(np.nanmean(v)) if np.isfinite(v).any() else None for name, v in numbers.items()}
        return Measured(metrics=means, scenes=(0, scenes), files=files)


PROTOCOL = Reconstruction()
