"""Negatives of all ranks: the loss and gradients of one rank that has all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.augment import CropConfig
from brickyard.train.models.norms import synchronise
from brickyard.train.objectives import SLidR, STSLidR
from brickyard.train.objectives.image_to_lidar import ImageToLidar, Rows, contrast
from brickyard.train.students.unet import UNetConfig
from tests.train.rings import ring_corpus
from tests.train.spy import one_thread, ranks

ROWS = 60
CUTS = {2: (17, 43), 3: (20, 0, 40)}
SETTINGS: dict[str, ImageToLidar] = {
    "slidr": SLidR(gather_negatives=True),
    "votes": STSLidR(gather_negatives=True, neighbour_share=0.1),
    "similarity": STSLidR(gather_negatives=True, weighting="similarity", balance="none"),
    "adaptive": STSLidR(gather_negatives=True, weighting="adaptive", balance="clusters", exclusion="code-compatible"),
}


def everything() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    keys, queries = (functional.normalize(torch.randn(ROWS, 8, generator=generator), dim=1) for _ in range(2))
    return keys, queries, torch.rand(ROWS, 5, generator=generator) ** 3


def learn(settings: ImageToLidar, part: slice) -> list[Tensor]:
    """[loss, gradients of keys and queries] of one rank."""
    keys, queries, descriptors = (rows[part].clone() for rows in everything())
    keys.requires_grad_()
    queries.requires_grad_()
    described = descriptors if settings.needs_descriptors else None
    loss, units = contrast(Rows(keys=keys, queries=queries, target=None, descriptors=described), settings)
    loss.backward()  # type: ignore[no-untyped-call]
    assert units == ROWS
    assert keys.grad is not None
    assert queries.grad is not None
    return [loss.detach(), keys.grad, queries.grad]


def one_rank(folder: str) -> None:
    dist.init_process_group("gloo")
    rank, cuts = dist.get_rank(), CUTS[dist.get_world_size()]
    part = slice(sum(cuts[:rank]), sum(cuts[: rank + 1]))
    found: dict[str, Any] = {name: learn(settings, part) for name, settings in SETTINGS.items()}
    torch.save(found | {"whole": learn_from_scenes(f"{folder}/rings", blind=rank == 1)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def learn_from_scenes(folder: str, *, blind: bool) -> list[Tensor]:
    """[loss, norm of all gradients] of a whole pass over a scene that may have no images."""
    torch.manual_seed(0)
    crop = CropConfig(height=32, width=64, min_pairs=20)
    objective = STSLidR(
        student=UNetConfig(network="tiny"), crop=crop, gather_negatives=True, weighting="adaptive"
    ).build()
    synchronise(objective, True)
    rows = np.array([0 if blind else 1])
    stream = Stream(Corpus.open(folder), objective.fields, batch=1, rows=rows, prepare=objective.prepare, threads=1)
    loss = objective(objective.collate(next(iter(stream)), torch.device("cpu")))
    loss.total.backward()
    assert loss.usable
    norms = [p.grad.norm() for p in objective.parameters() if p.grad is not None]
    assert len(norms) == len(list(objective.parameters()))
    return [loss.total.detach(), torch.stack(norms).norm()]


@pytest.mark.parametrize("world", CUTS)
def test_ranks_together_are_one_rank_with_all_rows(world: int, tmp_path: Path) -> None:
    """Also where a rank has no rows, or no images. The loop averages what ranks find."""
    ring_corpus(tmp_path / "rings", train=2, blind=1)
    assert ranks(world, one_rank, str(tmp_path)) == [0] * world
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    with one_thread():
        for name, settings in SETTINGS.items():
            loss, keys, queries = learn(settings, slice(None))
            mine = [torch.stack([part[name][0] for part in found]).mean()]
            mine += [torch.cat([part[name][number] for part in found]) / world for number in (1, 2)]
            for got, expected in zip(mine, (loss, keys, queries), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    losses, norms = zip(*(part["whole"] for part in found), strict=True)
    assert float(losses[1]) == 0
    assert float(losses[0]) > 0
    assert all(bool(torch.isfinite(norm)) for norm in norms)
    assert float(norms[0]) > 0


def test_without_it_a_rank_has_its_own_negatives() -> None:
    keys, queries, _ = everything()
    rows = Rows(keys=keys[:20], queries=queries[:20], target=None, descriptors=None)
    assert contrast(rows, SLidR())[1] == 20
    assert contrast(rows, SLidR(gather_negatives=True))[1] == 20  # alone there is nobody to ask
