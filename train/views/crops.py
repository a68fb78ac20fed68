"""Which points a view shows: grid sampling, then balls of a number of nearest points around chosen centres.

As published for Sonata: a scene is thinned to one random point a cell; a view is the `count` points nearest to its
centre, where the count is a share of the scene's points drawn from a range. The first global view's centre is any
point, the second one's a point of the first; each local view's centre is a point of the first global view that no
earlier local view shows (once all are shown, any). All scenes of a batch are cropped at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from brickyard.train.clouds import Clouds
from brickyard.train.views.noise import derive, uniform


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Sizes of the views.

    Attributes:
        points: of a scene that count: shares are of min(points, what the scene has).
        locals: number of local views; there are always two global ones.
        global_share, local_share: (least, most) share of a scene's points in a view.
    """

    points: int = 65536
    locals: int = 4
    global_share: tuple[float, float] = (0.4, 1.0)
    local_share: tuple[float, float] = (0.1, 0.4)

    def __post_init__(self) -> None:
        for name in ("global_share", "local_share"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} must be a range within (0, 1]")
        if self.points < 1 or self.locals < 0:
            raise ValueError("points must be positive, locals not negative")


def grid_sample(clouds: Clouds, size: float, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """(points kept int64 (n,), ascending; for every point the place in these of the one kept of its cell int64 (N,)):
    one random point for each cell of edge `size`.

    Args:
        seeds: int64 (batch,), one for every scene.
    """
    _, inverse, sizes = torch.unique(clouds.cell_codes(clouds.cells(size)), return_inverse=True, return_counts=True)
    order = _draw(clouds, seeds, "grid sample").argsort()
    members = order[inverse[order].argsort(stable=True)]
    kept, places = members[sizes.cumsum(0) - sizes].sort()
    place = torch.empty_like(places)
    place[places] = torch.arange(len(places), device=place.device)
    return kept, place[inverse]


def crops(clouds: Clouds, config: CropConfig, seeds: Tensor) -> list[Tensor]:
    """Masks bool (N,) of the two global views, then of the local ones."""
    counts = torch.tensor(clouds.counts, device=clouds.xyz.device)
    every = torch.ones_like(clouds.scene, dtype=torch.bool)
    masks: list[Tensor] = []
    free = every
    for number in range(2 + config.locals):
        low, high = config.global_share if number < 2 else config.local_share
        share = low + (high - low) * uniform(derive(seeds, "share", number))[:, 0]
        wanted = (share * counts.clamp(max=config.points)).long().clamp(min=1)
        among = every if number == 0 else masks[0]
        if number >= 2:
            among = masks[0] & free
            exhausted = _count(among, clouds) == 0
            free = free | exhausted[clouds.scene]
            among = masks[0] & free
        centre = _choose(clouds, among, derive(seeds, "centre", number))
        masks.append(_nearest(clouds, centre, wanted))
        if number >= 2:
            free = free & ~masks[-1]
    return masks


def rank_within(key: Tensor, scene: Tensor, counts: tuple[int, ...]) -> Tensor:
    """int64 (N,): place of every point among its scene's by ascending key; `scene` ascends."""
    order = key.argsort(stable=True)
    order = order[scene[order].argsort(stable=True)]
    sizes = torch.tensor(counts, device=key.device)
    start = (sizes.cumsum(0) - sizes)[scene]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=key.device) - start
    return rank


def _nearest(clouds: Clouds, centre: Tensor, wanted: Tensor) -> Tensor:
    distance = (clouds.xyz - clouds.xyz[centre][clouds.scene]).square().sum(1)
    return rank_within(distance, clouds.scene, clouds.counts) < wanted[clouds.scene]


def _choose(clouds: Clouds, among: Tensor, seeds: Tensor) -> Tensor:
    """int64 (batch,): a random point of every scene out of those marked."""
    key = torch.where(among, _draw(clouds, seeds, "choice"), 2.0)
    first = rank_within(key, clouds.scene, clouds.counts) == 0
    return first.nonzero()[:, 0]


def _draw(clouds: Clouds, seeds: Tensor, purpose: str) -> Tensor:
    """A uniform number for every point, by its number within its scene."""
    return uniform(derive(seeds[clouds.scene], purpose, clouds.numbers()))[:, 0]


def _count(marked: Tensor, clouds: Clouds) -> Tensor:
    return torch.zeros(clouds.batch, dtype=torch.int64, device=marked.device).index_add_(0, clouds.scene, marked.long())
