"""Whole downloads as `brickyard plan` sees them: all scenes of a release, in files of about the right size, all holes.

So a corpus of 140,000 scenes can be planned before a byte of it is downloaded. Names, numbers of scenes and splits are
those that were published; which scene is how large is drawn around the published totals. The files take no room on
disks that know holes, and nothing can be read from them: a build of them quarantines every scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from brickyard.ingest import simulated
from brickyard.ingest.simulate.listings import indoor, structured3d
from brickyard.shards.errors import RecipeError

__all__ = ["LISTINGS", "write_listings"]

LISTINGS: dict[str, Callable[[Path, float], dict[str, int]]] = {
    "scannet": indoor.list_scannet,
    "scannetpp": indoor.list_scannetpp,
    "s3dis": indoor.list_s3dis,
    "arkitscenes": indoor.list_arkitscenes,
    "hm3d": indoor.list_hm3d,
    "structured3d": structured3d.list_structured3d,
    "ase": indoor.list_ase,
}
"""Dataset -> what writes its listing below a folder, or a share of it, and counts scenes and (apparent) bytes."""


def write_listings(
    out: Path,
    *,
    datasets: Sequence[str] = tuple(LISTINGS),
    share: float = 1.0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, dict[str, int]]:
    """Write `out/<dataset>` for each; returns dataset -> {"scenes", "bytes"}.

    Args:
        share: of the scenes of each split, above 0 and at most 1.

    Raises:
        RecipeError: a dataset of which there is no listing, or another share.
    """
    if not 0 < share <= 1:
        raise RecipeError(f"the share of a listing must be above 0 and at most 1, found {share:g}")
    if unknown := [name for name in datasets if name not in LISTINGS]:
        raise RecipeError(f"there is no listing of {unknown[0]!r}; there are {', '.join(LISTINGS)}")
    found = {}
    for done, name in enumerate(datasets):
        progress("listings", done, len(datasets))
        (out / name).mkdir(parents=True, exist_ok=True)
        found[name] = LISTINGS[name](out / name, share)
        simulated.mark(out / name)
    progress("listings", len(datasets), len(datasets))
    return found
