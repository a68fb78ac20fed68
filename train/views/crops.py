"""Which points a view shows: grid sampling, then balls of a number of nearest points around chosen centres.

As published for Sonata: a scene is thinned to one random point a cell; a view is the `count` points nearest to its
centre, where the count is a share of the scene's points drawn from a range. The first global view's centre is any
point, the second one's a point of the first; each local view's centre is a point of the first global view that no
earlier local view shows (once all are shown, any). All scenes of a batch are cropped at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from brickyard.train.clouds import Clouds, check_cells
from brickyard.train.transfer import send, send_table
from brickyard.train.views.noise import derive, for_points, uniform
from brickyard.train.voxels import runs

_KEY, _PLACE = 30, 31
"""Bits of a random key and of a point's number, packed into one integer."""


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


def grid_sample(clouds: Clouds, size: float, seeds: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """One random point for each cell of edge `size`.

    Args:
        seeds: int64 (batch,), one for every scene.

    Returns:
        The points kept, int64 (n,), ascending; for every point the place in these of the one kept of its cell, int64
        (N,); how many of every scene are kept. The device is asked once.
    """
    cells = clouds.cells_unchecked(size)
    code = clouds.cell_codes(cells.long())
    order = uniform(for_points(seeds, "grid sample", clouds.scene, clouds.numbers()))[:, 0].argsort()
    code, place = code[order].sort(stable=True)
    members, (group, first) = order[place], runs(code)
    last = send_table([sum(clouds.counts[: scene + 1]) - 1 for scene in range(clouds.batch)], code.device)
    *found, largest = torch.cat((group[last].double() + 1, cells.amax()[None])).tolist()
    check_cells(largest, size)
    groups = int(found[-1])
    kept, places = members[torch.nonzero_static(first, size=groups)[:, 0]].sort()
    place, inverse = torch.empty_like(places), torch.empty_like(group)
    place[places] = torch.arange(groups, device=place.device)
    inverse[members] = group
    counts = tuple(int(b - a) for a, b in itertools.pairwise((0, *found)))
    return kept, place[inverse], counts


def crops(clouds: Clouds, config: CropConfig, seeds: Tensor) -> list[tuple[Tensor, tuple[int, ...]]]:
    """(mask bool (N,), points of every scene in it) of the two global views, then of the local ones.

    Every scene must have a point.
    """
    scene, numbers, counts = clouds.scene, clouds.numbers(), torch.tensor(clouds.counts)
    views = range(2 + config.locals)
    centres = torch.stack([derive(seeds, "centre", number) for number in views])
    keys = ordered(uniform(for_points(centres, "choice", scene, numbers))[..., 0])
    shown: list[tuple[Tensor, tuple[int, ...]]] = []
    hidden = torch.zeros_like(scene)  # 2 outside the first view, 1 in an earlier local one
    for number in views:
        low, high = config.global_share if number < 2 else config.local_share
        share = low + (high - low) * uniform(derive(seeds, "share", number))[:, 0].cpu()
        wanted = (share * counts.clamp(max=config.points)).long().clamp(min=1)
        centre, seen = _choose(keys[number], hidden, clouds)
        mask = _nearest(clouds, numbers, centre, send(wanted, scene.device))
        shown.append((mask, tuple(torch.minimum(wanted, counts).tolist())))
        if number == 0:
            hidden = (~mask).long() << 1
        elif number > 1:  # where everything had been shown already, it begins anew
            hidden = hidden & ~seen[scene] | mask
    return shown


def _nearest(clouds: Clouds, numbers: Tensor, centre: Tensor, wanted: Tensor) -> Tensor:
    distance = (clouds.xyz - clouds.xyz[centre][clouds.scene]).square().sum(1)
    order = (clouds.scene << 32 | ordered(distance)).argsort(stable=True)
    mask = torch.empty_like(clouds.scene, dtype=torch.bool)
    mask[order] = numbers < wanted[clouds.scene]  # sorted by scene, so these are numbers along the order too
    return mask


def _choose(key: Tensor, hidden: Tensor, clouds: Clouds) -> tuple[Tensor, Tensor]:
    """(the point with the least key of every scene's least hidden ones, how far it is hidden); int64 (batch,)."""
    place = torch.arange(len(key), device=key.device)
    packed = (hidden << _KEY | key) << _PLACE | place
    least = packed.new_full((clouds.batch,), torch.iinfo(torch.int64).max)
    least.scatter_reduce_(0, clouds.scene, packed, "amin")
    return least & (1 << _PLACE) - 1, least >> _PLACE + _KEY


def ordered(values: Tensor) -> Tensor:
    """Numbers int64 in the order of float32 that are not negative; below 2**30 for those below 1."""
    return values.view(torch.int32).long()
