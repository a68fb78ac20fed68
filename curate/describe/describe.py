"""A scene -> its figures and descriptors: every picture is decoded once, at a reduced size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from brickyard.curate import clip_figures
from brickyard.curate.clip_figures import ClipFiguresConfig, add_clip_figures
from brickyard.curate.describe import calibration, images, points, poses
from brickyard.curate.describe.calibration import describe_calibration
from brickyard.curate.describe.descriptors import compact, picture_hashes, shape_signature, world_place
from brickyard.curate.describe.images import Pixels, chosen_views, decode_views, describe_depth, describe_images, evenly
from brickyard.curate.describe.points import describe_points
from brickyard.curate.describe.poses import describe_poses
from brickyard.shards.scene import Float32, Scene

Embed = Callable[[Sequence[Pixels]], Float32]
"""Pictures -> one vector of length 1."""
KNOWN_VIEWS = 4


@dataclass(frozen=True)
class Figure:
    """What a number of the index means; `version` grows when it is computed otherwise."""

    name: str
    unit: str
    meaning: str
    version: int


_FAMILIES = (points.FIGURES, images.FIGURES, poses.FIGURES, calibration.FIGURES)
_CLIP_UNITS = {"baseline_m": "m", "turn_degrees": "degrees", "cuts": "count", "sharpness": "1"}
FIGURES: tuple[Figure, ...] = (
    *(Figure(name, *about) for family in _FAMILIES for name, about in family.items()),
    *(Figure(name, _CLIP_UNITS.get(name, "share"), text, 1) for name, text in clip_figures.FIGURES.items()),
)


@dataclass(frozen=True)
class Described:
    """What is known of a scene; the columns of the index of the same names.

    Attributes:
        figures: name -> number, see `FIGURES`.
        hashes: 64 bits for each of up to four pictures that show anything.
        embedding: of up to four pictures, by the network that was given; None without pictures or network.
        signature: of the cloud; None without points.
        place: metres in the dataset's world; None where unknown.
    """

    figures: Mapping[str, float]
    hashes: Sequence[int] = ()
    embedding: Sequence[float] | None = None
    signature: Sequence[float] | None = None
    place: Sequence[float] | None = field(default=None)

    def columns(self) -> dict[str, Any]:
        """Values of the index's columns."""
        return {
            "figures": sorted(self.figures.items()) or None,
            "hashes": list(self.hashes) or None,
            "embedding": self.embedding,
            "signature": self.signature,
            "place": self.place,
        }


def describe(scene: Scene, embed: Embed | None = None) -> Described:
    """All that is known of a scene; pictures that cannot be decoded say nothing, and are counted."""
    views = chosen_views(scene)
    seen = decode_views(views)
    pictures = [pixels for _, pixels in seen]
    figures = describe_points(scene) | describe_poses(scene) | describe_depth(scene) | describe_images(pictures)
    figures |= {"undecodable_share": 1 - len(seen) / len(views)} if views else {}
    figures |= describe_calibration(scene, seen)
    figures |= add_clip_figures(replace(scene, figures={}), ClipFiguresConfig()).figures
    known = evenly(pictures, KNOWN_VIEWS)
    signature = shape_signature(scene)
    return Described(
        figures={name: value for name, value in figures.items() if math.isfinite(value)},
        hashes=picture_hashes(known),
        embedding=compact(embed(known)) if embed is not None and known else None,
        signature=None if signature is None else compact(signature),
        place=world_place(scene),
    )
