"""Tokens: what a network of views knows of the views that it renders, beside their colours.

The tokens of a target's patches, from which its pixels are painted, are frozen; linear probes of them are fitted on
clips of the training split and judged on those of the validation split:

    depth order    of two patches of a view whose depths differ by a tenth or more, which is nearer: the share that is
                   right (a half by chance), by a probe of the logarithm of depth
    classes        the most frequent class of a patch, where views have label images (`taxonomy`): share right, mean IoU

Targets were never looked at, so it is the scene and the camera that tell. Beside them stand the same probes of the true
pixels of the patch, and of nothing but its place in the view: floors are below and near in every picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from brickyard.evaluate.metrics import accuracy, confusion_matrix, mean_iou
from brickyard.evaluate.patch_truth import PatchTruth, read_truth
from brickyard.evaluate.protocols.protocol import Measured, Protocol
from brickyard.evaluate.ridge import Float64, Ridge, predicted
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import Column
from brickyard.evaluate.unseen_clips import ClipsConfig, UnseenClips
from brickyard.shards.errors import RecipeError
from brickyard.shards.taxonomy import taxonomy, taxonomy_names
from brickyard.train.models.view_network import ViewNetwork
from brickyard.train.models.view_tokens import patchify

KINDS = ("", "_pixels", "_place")
APART = 0.1
"""Difference of the logarithms of two depths from which on their order is asked."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig(ClipsConfig):
    """Which clips and what is asked of them.

    Attributes:
        train_split: of the corpus: clips that probes are fitted on. train_clips: so many of them, all if None.
        taxonomy: of label images; None asks for no classes.
        pairs: of patches in each view, whose order is asked.
    """

    train_split: str = "train"
    train_clips: int | None = None
    taxonomy: str | None = None
    pairs: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs < 1 or (self.train_clips is not None and self.train_clips < 1):
            raise ValueError("pairs and train_clips must be positive")
        if self.taxonomy is not None and self.taxonomy not in taxonomy_names():
            raise ValueError(f"no taxonomy {self.taxonomy!r}; there are {', '.join(taxonomy_names())}")


class Tokens(Protocol[TokensConfig]):
    """See the module's text."""

    config = TokensConfig
    needs = ViewNetwork
    columns = (
        *(
            Column(metric=f"depth_order{kind}", title=f"depth order{words}, %", percent=True)
            for kind, words in zip(KINDS, ("", ", of pixels", ", of places"), strict=True)
        ),
        *(
            Column(metric=f"class_miou{kind}", title=f"classes{words}: mIoU %", percent=True)
            for kind, words in zip(KINDS, ("", " of pixels", " of places"), strict=True)
        ),
        Column(metric="left_out", title="clips left out", digits=0),
    )

    def run(self, subject: Subject, config: TokensConfig) -> Measured:
        network = subject.network
        assert isinstance(network, ViewNetwork)
        classes = () if config.taxonomy is None else taxonomy(config.taxonomy).classes
        mode = network.training
        network.eval()
        learned = replace(config, val_split=config.train_split, val_scenes=config.train_clips)
        clips = _clips(subject, network, learned)
        weights, trained = _fitted(network, clips, len(classes))
        clips = _clips(subject, network, config)
        right = dict.fromkeys(KINDS, 0)
        asked = scored = 0
        confusion = {kind: np.zeros((len(classes), len(classes)), np.int64) for kind in KINDS}
        for inputs, truth in _patches(network, clips):
            scored += 1
            first, second = _pairs(truth.log_depth, config.pairs, scored)
            nearer = truth.log_depth.ravel()[first] < truth.log_depth.ravel()[second]
            asked += len(first)
            for kind, values in inputs.items():
                of_depth, of_classes = weights[kind]
                distance = predicted(values, of_depth)[:, 0]
                right[kind] += int(((distance[first] < distance[second]) == nearer).sum())
                if of_classes is not None and truth.label is not None:
                    found = predicted(values, of_classes).argmax(axis=1)
                    confusion[kind] += confusion_matrix(truth.label.ravel(), found, len(classes))
        network.train(mode)
        metrics: dict[str, float | None] = {f"depth_order{kind}": right[kind] / max(1, asked) for kind in KINDS}
        for kind, table in confusion.items():
            metrics |= {f"class_accuracy{kind}": accuracy(table), f"class_miou{kind}": mean_iou(table)}
        metrics["left_out"] = float(len(clips.left_out))
        files = {"tokens-left-out.txt": clips.list_of_left_out} if clips.left_out else {}
        return Measured(metrics=metrics, scenes=(trained, scored), files=files)


PROTOCOL = Tokens()


def _clips(subject: Subject, network: ViewNetwork, config: TokensConfig) -> UnseenClips:
    rows = int(network.config.rows)
    fields = ("views/*/depth", *(() if config.taxonomy is None else (f"views/*/semantic.{config.taxonomy}",)))
    return UnseenClips(
        subject.corpus, network, config, posed=False, what="tokens", fields=fields,
        beside=lambda sample, drawn: read_truth(sample, drawn, rows, config.taxonomy),
    )  # fmt: skip


def _patches(network: ViewNetwork, clips: UnseenClips) -> Iterator[tuple[dict[str, Float64], PatchTruth]]:
    """(inputs of the probes by kind, (T n n, D) each; the truth) of each clip."""
    for clip in clips:
        truth = clip.beside
        assert isinstance(truth, PatchTruth)
        with torch.no_grad():
            found = clip.look(network)
            tokens = network.patch_tokens(found.scene, found.told[:, clip.inputs :]).float()
        pixels = patchify(clip.real[None], int(network.config.patch))
        views, rows = truth.log_depth.shape[:2]
        side = np.eye(rows)
        place = np.concatenate([side.repeat(rows, axis=0), np.tile(side, (rows, 1))], axis=1)
        yield {
            "": tokens.flatten(0, 1).double().cpu().numpy(),
            "_pixels": pixels.flatten(0, 2).double().cpu().numpy(),
            "_place": np.tile(place, (views, 1)),
        }, truth  # fmt: skip


def _fitted(
    network: ViewNetwork, clips: UnseenClips, classes: int
) -> tuple[dict[str, tuple[Float64, Float64 | None]], int]:
    """(kind -> weights for depth, and for classes where there are labels; clips)."""
    depth: dict[str, Ridge] = {}
    label: dict[str, Ridge] = {}
    count = 0
    for inputs, truth in _patches(network, clips):
        count += 1
        within = truth.log_depth - np.nanmean(truth.log_depth, axis=(1, 2), keepdims=True)
        known = np.isfinite(within.ravel())
        for kind, table in inputs.items():
            depth.setdefault(kind, Ridge(table.shape[1], 1)).add(table[known], within.ravel()[known, None])
            if classes and truth.label is not None:
                named = truth.label.ravel() >= 0
                wanted = np.eye(classes)[truth.label.ravel()[named]]
                label.setdefault(kind, Ridge(table.shape[1], classes)).add(table[named], wanted)
    if not min(ridge.rows for ridge in depth.values()):
        raise RecipeError("tokens: no patch of the training clips has depth: nothing can be fitted")
    usable = {kind: ridge.weights() for kind, ridge in label.items() if ridge.rows}
    return {kind: (ridge.weights(), usable.get(kind)) for kind, ridge in depth.items()}, count


def _pairs(log_depth: Float64, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of two patches each, of one view, whose depths are known and apart."""
    rng = np.random.default_rng(seed)
    views, patches = len(log_depth), log_depth[0].size
    first, second = (rng.integers(0, patches, (views, count)) + np.arange(views)[:, None] * patches for _ in range(2))
    difference = np.abs(log_depth.ravel()[first] - log_depth.ravel()[second])
    apart = difference > APART  # NaN compares as false
    return first[apart], second[apart]
