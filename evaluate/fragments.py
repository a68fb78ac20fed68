"""Prediction for every raw point: the scene is split into as many fragments as its fullest voxel has points.

A network on voxels sees one point of each, its representative; in fragment t it is the t-th (modulo the voxel's count),
so over all fragments every point is classified once with its own colour and normal. Its scores are the sum of softmax
over fragments and over test-time augmentations ("variants"), as published with Sonata's evaluation. Where every voxel
has one point this is plain inference; it costs fragments x variants times as much. The code calls a fragment a turn.

Variants are made of the cloud itself, about the scene's origin: coordinates are turned, scaled and mirrored, normals
turned and mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from brickyard.train.clouds import Cloud
from brickyard.train.students.base import Rows

Classify = Callable[[Sequence[Cloud], int], Rows]
"""(clouds, turn) -> rows whose features are class scores (logits); see `Student.encode`."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of showing a scene: mirrored, then scaled, then turned about z.

    Attributes:
        turn: in quarters of a full turn.
        scale: factor.
        mirror_x, mirror_y: x -> -x, y -> -y.
    """

    turn: int = 0
    scale: float = 1.0
    mirror_x: bool = False
    mirror_y: bool = False


PLAIN = (Variant(),)
INDOOR = (*(Variant(turn=turn, scale=scale) for scale in (1.0, 0.95, 1.05) for turn in range(4)),
          Variant(mirror_x=True))  # fmt: skip
"""13: four turns by three scales, and a mirror image. (The published one mirrors both axes, which is a half turn and
among the others already; this one mirrors x.)"""
OUTDOOR = tuple(
    Variant(scale=scale, mirror_x=mirror, mirror_y=mirror)
    for mirror in (False, True)
    for scale in (0.9, 0.95, 1.0, 1.05, 1.1)
)
"""10: five scales by two."""
VARIANTS = {"none": PLAIN, "indoor": INDOOR, "outdoor": OUTDOOR}


def vary(cloud: Cloud, variant: Variant) -> Cloud:
    """The cloud as a variant shows it."""
    cosine, sine = round(math.cos(variant.turn * math.pi / 2)), round(math.sin(variant.turn * math.pi / 2))
    turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    mirror = torch.tensor([-1.0 if variant.mirror_x else 1.0, -1.0 if variant.mirror_y else 1.0, 1.0])
    matrix = (turn * mirror).T
    values = dict(cloud.values)
    if "normal" in values:
        values["normal"] = values["normal"] @ matrix
    return replace(cloud, xyz=cloud.xyz @ matrix * variant.scale, values=values)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Scores of the points of one scene.

    Attributes:
        scores: float32 (N, classes), sums of softmax; every row has at least one.
        votes: int64 (N,), how many were added for each point.
        shared: points that had no say of their own, because their voxel has more points than there were turns; they
            have the scores of their voxel.
    """

    scores: Tensor
    votes: Tensor
    shared: int


@torch.no_grad()
def predict(
    classify: Classify, cloud: Cloud, variants: Sequence[Variant] = PLAIN, *, most_turns: int = 64
) -> Prediction:
    """Scores for every point.

    Args:
        classify: a segmenting network.
        cloud: of one scene.
        most_turns: bound on the turns of a variant; 1 is inference by voxels.
    """
    scores = votes = shared = None
    for variant in variants:
        shown = vary(cloud, variant)
        turn, turns = 0, 1
        while turn < turns:
            rows = classify([shown], turn)
            softmax = rows.features.float().softmax(1)
            if scores is None or votes is None or shared is None:
                scores = softmax.new_zeros(len(cloud.xyz), softmax.shape[1])
                votes = torch.zeros_like(rows.inverse)
                shared = torch.zeros_like(scores)
            if turn == 0:
                turns = min(most_turns, int(torch.bincount(rows.inverse).max()))
            scores[rows.representative] += softmax
            votes[rows.representative] += 1
            shared += softmax[rows.inverse]
            turn += 1
    assert scores is not None and votes is not None and shared is not None, "without variants nothing is predicted"
    silent = votes == 0
    scores[silent] = shared[silent]
    return Prediction(scores=scores, votes=votes, shared=int(silent.sum()))
