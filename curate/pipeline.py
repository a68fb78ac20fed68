"""The curation of one scene: normals, superpixels, correspondences, figures of clips; each step can be left out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from brickyard.curate.clip_figures import ClipFiguresConfig, add_clip_figures
from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.curate.fast_superpixels import FastConfig, add_fast_superpixels
from brickyard.curate.normals import NormalsConfig, add_normals
from brickyard.curate.superpixel_files import SuperpixelFiles, add_superpixel_files
from brickyard.curate.superpixels import SlicConfig, add_superpixels
from brickyard.shards.scene import Scene


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """What is added to each scene; None leaves a step out.

    Attributes:
        superpixels: `kind` "slic" (the default), "fast", or "files".
    """

    normals: NormalsConfig | None = None
    superpixels: SlicConfig | FastConfig | SuperpixelFiles | None = field(default_factory=SlicConfig)
    correspondences: CorrespondenceConfig | None = field(default_factory=CorrespondenceConfig)
    clip_figures: ClipFiguresConfig | None = field(default_factory=ClipFiguresConfig)


def curate(
    scene: Scene,
    config: CurateConfig,
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
) -> Scene:
    """The scene with what the config asks for; raises `SceneError` for images that cannot be decoded.

    Args:
        stage: is entered with the name of each step while it runs, such as a clock.
    """
    if config.normals is not None:
        with stage("normals"):
            scene = add_normals(scene, config.normals)
    if config.superpixels is not None and scene.points is not None:  # a clip has nothing to pool over them
        with stage("superpixels"):
            scene = _with_superpixels(scene, config.superpixels)
    if config.correspondences is not None:
        with stage("correspondences"):
            scene = add_correspondences(scene, config.correspondences)
    if config.clip_figures is not None and scene.points is None:
        with stage("clip_figures"):
            scene = add_clip_figures(scene, config.clip_figures)
    return scene


def _with_superpixels(scene: Scene, config: SlicConfig | FastConfig | SuperpixelFiles) -> Scene:
    if isinstance(config, SlicConfig):
        return add_superpixels(scene, config)
    if isinstance(config, FastConfig):
        return add_fast_superpixels(scene, config)
    return add_superpixel_files(scene, config)
