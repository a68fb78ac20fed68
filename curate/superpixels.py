"""SLIC superpixels: the partition of each image that SLidR and ST-SLidR pool features over.

Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods" (TPAMI 2012), as in scikit-image,
on the whole image at full size with SLidR's parameters. About 1.2 s for a 1600x900 image on one core: the most
expensive step of curating a driving corpus (`curate.fast_superpixels` has a cheaper one). Other library versions give
other partitions, so the version is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import ClassVar

import numpy as np

from brickyard.curate.images import decode_rgb
from brickyard.shards.errors import RecipeError, SceneError
from brickyard.shards.scene import Scene, Superpixels, View


@dataclass(frozen=True, kw_only=True)
class SlicConfig:
    """Parameters of `skimage.segmentation.slic`; everything else stays at the library's defaults.

    Attributes:
        segments: approximate number of superpixels. SLidR's 150 gave 91 to 144 at 1600x900, so ids fit one byte there.
        compactness: weight of closeness against colour (Lab).
        sigma: width in pixels of the Gaussian smoothing before clustering.
    """

    kind: ClassVar[str] = "slic"

    segments: int = 150
    compactness: float = 6.0
    sigma: float = 3.0

    def __post_init__(self) -> None:
        if not (1 <= self.segments < 65536 and self.compactness > 0 and self.sigma >= 0):
            raise RecipeError(
                f"superpixels need segments in 1..65535, compactness above 0 and sigma at least 0, found {self}"
            )


def add_superpixels(scene: Scene, config: SlicConfig) -> Scene:
    """The scene with superpixels in every view (existing ones are replaced); deterministic.

    Raises `SceneError` for an image that cannot be decoded.
    """
    views = tuple(replace(view, superpixels=_segment(scene, view, config)) for view in scene.views)
    return replace(scene, views=views).validate()


def _segment(scene: Scene, view: View, config: SlicConfig) -> Superpixels:
    from skimage.segmentation import slic

    labels = slic(
        decode_rgb(scene, view),
        n_segments=config.segments,
        compactness=config.compactness,
        sigma=config.sigma,
        start_label=0,
    )
    # The connectivity pass may split clusters, so the count is only approximately what was asked for.
    if int(labels.max()) >= 65536:
        raise SceneError(f"scene {scene.identity.key}, view {view.name}: more than 65536 superpixels")
    provenance = (
        f"skimage-{version('scikit-image')} slic n_segments={config.segments} "
        f"compactness={config.compactness:g} sigma={config.sigma:g}"
    )
    return Superpixels(labels=labels.astype(np.uint16), provenance=provenance)
