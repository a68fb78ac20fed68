"""k-nearest-neighbour probe: the classes of the most similar training voxels vote; nothing is trained.

As in DINO (Caron et al., ICCV 2021, arXiv 2104.14294): cosine similarity, k = 20 neighbours, each voting for its class
with weight exp(similarity / 0.07). The search is exact, in chunks of queries times chunks of the bank, so memory is
bounded by `chunk`; 100,000 queries against 100,000 voxels with 64 channels take some 30 s on one CPU core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brickyard.evaluate.features import Encoder, training_set
from brickyard.evaluate.metrics import confusion_matrix
from brickyard.evaluate.protocols.protocol import Measured, StudentProtocol
from brickyard.evaluate.scores import COLUMNS, ClassScores, score
from brickyard.evaluate.splits import DataConfig, train_rows, val_rows
from brickyard.evaluate.subject import Subject
from brickyard.shards.taxonomy import taxonomy


@dataclass(frozen=True, kw_only=True)
class KnnConfig(DataConfig):
    """The probe.

    Attributes:
        k: neighbours that vote.
        temperature: of their similarities.
        voxels_per_scene: random labelled voxels of each training scene that form the bank; None takes all.
        queries_per_scene: random voxels of each validation scene that are classified, every one of its points counting
            as classified with it; None takes all voxels, which counts every point.
        cache_gib: largest memory of the bank.
        chunk: queries and bank entries that are compared at a time.
        seed: of what is drawn.
    """

    k: int = 20
    temperature: float = 0.07
    voxels_per_scene: int | None = 2000
    queries_per_scene: int | None = 4000
    cache_gib: float = 8.0
    chunk: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.k, self.chunk) < 1 or self.temperature <= 0:
            raise ValueError("k, chunk and temperature must be positive")


def knn_probe(encoder: Encoder, config: KnnConfig) -> ClassScores:
    """The scores of a frozen student; raises `RecipeError` as the linear probe does."""
    names = taxonomy(config.taxonomy).classes
    rows, held_out = train_rows(encoder.corpus, config), val_rows(encoder.corpus, config)
    bank, labels = training_set(
        encoder,
        config,
        rows,
        voxels_per_scene=config.voxels_per_scene,
        seed=config.seed,
        cache_gib=config.cache_gib,
    )
    bank = functional.normalize(bank, dim=1)
    generator = torch.Generator().manual_seed(config.seed)
    confusion = np.zeros((len(names), len(names)), np.int64)
    for scene in encoder.scenes(held_out):
        queries, voxel, truth = scene.rows.features, scene.rows.inverse, scene.labels
        if config.queries_per_scene is not None:
            drawn = torch.randperm(len(queries), generator=generator)[: config.queries_per_scene].to(voxel.device)
            place = torch.full((len(queries),), -1, device=voxel.device)
            place[drawn] = torch.arange(len(drawn), device=voxel.device)
            queries, voxel = queries[drawn], place[voxel]
            truth, voxel = truth[voxel >= 0], voxel[voxel >= 0]
        votes = knn_votes(bank, labels, queries, len(names), k=config.k, temperature=config.temperature,
                          chunk=config.chunk)  # fmt: skip
        predicted = votes.argmax(1)[voxel]
        confusion += confusion_matrix(truth.cpu().numpy(), predicted.cpu().numpy(), len(names))
    return score(confusion, names, (len(rows), len(held_out)))


def knn_votes(
    bank: Tensor, labels: Tensor, queries: Tensor, classes: int, *, k: int, temperature: float, chunk: int = 4096
) -> Tensor:
    """float32 (Q, classes): the sum over the k nearest of exp((similarity - 1) / temperature), by class.

    Args:
        bank: (B, C), rows of unit length. labels: int64 (B,).
        queries: (Q, C), of any length.
    """
    votes = bank.new_zeros(len(queries), classes)
    for start in range(0, len(queries), chunk):
        similarity, index = nearest(bank, functional.normalize(queries[start : start + chunk], dim=1), k, chunk)
        weight = torch.exp((similarity - 1) / temperature)
        votes[start : start + chunk].scatter_add_(1, labels[index], weight)
    return votes


def nearest(bank: Tensor, queries: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """(similarity, index) (Q, min(k, B)) of the k entries with the greatest dot product, greatest first."""
    best = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), chunk):
        similarity = queries @ bank[start : start + chunk].T
        here = torch.arange(start, start + similarity.shape[1], device=queries.device).expand_as(similarity)
        best, index = torch.cat((best, similarity), 1), torch.cat((index, here), 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        index = index.gather(1, order)
    return best, index


class NearestNeighbours(StudentProtocol[KnnConfig]):
    """See the module's text."""

    config = KnnConfig
    reads_features = True
    columns = COLUMNS

    def run(self, subject: Subject, config: KnnConfig) -> Measured:
        return knn_probe(subject.encoder(config), config).measured


PROTOCOL = NearestNeighbours()
