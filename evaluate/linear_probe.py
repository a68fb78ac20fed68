"""Linear probe: how much of the classes can one linear layer read from frozen features?

The head of pretraining is gone; the classifier reads the student's last decoder features, not normalised to unit
length. Each voxel is trained on the label of the point that represents it; scores are per point, every point taking the
prediction of its voxel. The baseline is the same network as it was before training: `random_student` with the seed of
the run. Without augmentation the features never change, so the network runs once per scene and the classifier trains on
cached features: for 60 scenes of 10,000 points and a `tiny` network some 10 s on one CPU core. (The published protocol
augments, and runs the network again in each of 50 epochs.)

Before that, the batch norms' running statistics are measured anew on the training scenes (`calibrate`), for whichever
student is given. A fresh network has none (mean 0, variance 1), so its features may be badly scaled
inside the network, and true statistics alone can lift its score: from 0.30 to 0.42 mIoU (means of four seeds) in a toy
world of rings, though not in simulated nuScenes (0.142 and 0.138, one seed). Without calibration a probe would count
such a lift as something pretraining learned. Published tables do not calibrate their random baseline; compare with
those only with `calibrate` off.

Features are shifted and scaled to zero mean and unit variance over the training voxels before the linear layer. That is
a linear map too, so the classifier remains linear; it only makes one learning rate fit features of any scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from brickyard.evaluate.features import EncodedScene, Encoder, frozen
from brickyard.evaluate.lovasz import lovasz_softmax
from brickyard.evaluate.metrics import class_iou, confusion_matrix, mean_iou
from brickyard.evaluate.splits import DataConfig, LabelledPoints, split_rows, train_rows
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy
from brickyard.train.students.base import Student


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(DataConfig):
    """How the classifier is trained, beside what `DataConfig` says of the data.

    Attributes:
        scenes: use at most so many training scenes (the first ones of a random order given by `seed`).
        voxels_per_scene: keep a random subset of this size for training; None keeps all.
        steps: of the optimiser.
        batch: voxels per step.
        optimiser: "adamw" or "sgd" (momentum 0.9).
        lr: peak, cosine to 0. weight_decay: of the optimiser.
        lovasz: weight of the Lovasz softmax term beside cross-entropy (published: 1).
        seed: of the batches.
        cache_gib: largest memory for cached training features.
        calibrate: measure the batch norms' statistics on the training scenes first.
    """

    scenes: int | None = None
    voxels_per_scene: int | None = None
    steps: int = 1000
    batch: int = 8192
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 0.01
    weight_decay: float = 1e-4
    lovasz: float = 0.0
    seed: int = 0
    cache_gib: float = 8.0
    calibrate: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.batch < 1 or self.lr <= 0 or self.lovasz < 0:
            raise ValueError("steps, batch and lr must be positive, lovasz not negative")


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Scores on the validation split, per point.

    Attributes:
        miou: mean over the classes that occur in it.
        iou: class name -> IoU, NaN where the class does not occur.
        confusion: int64 (classes, classes), truth by row.
        scenes: training and validation scenes.
    """

    miou: float
    iou: dict[str, float]
    confusion: NDArray[np.int64]
    scenes: tuple[int, int]


def probe(student: Student, corpus: Corpus, config: ProbeConfig) -> ProbeResult:
    """Train a linear classifier on the frozen student and score it; the student is not changed.

    Raises:
        RecipeError: no scenes with these labels in a split, or features larger than the cache.
    """
    rows = probe_rows(corpus, config)
    student = frozen(student, corpus, rows, measure=config.calibrate, threads=config.threads)
    return probe_features(Encoder(student, corpus, config.taxonomy, threads=config.threads), config)


def probe_rows(corpus: Corpus, config: ProbeConfig) -> NDArray[np.int64]:
    """The training scenes, in the order in which they are encoded."""
    rows = train_rows(corpus, config)
    return np.random.default_rng(config.seed).permutation(rows)[: config.scenes]


def probe_features(encoder: Encoder, config: ProbeConfig) -> ProbeResult:
    """`probe` of a student that is frozen already."""
    names = taxonomy(config.taxonomy).classes
    rows = probe_rows(encoder.corpus, config)
    features, labels = training_set(
        encoder,
        config,
        rows,
        voxels_per_scene=config.voxels_per_scene,
        seed=config.seed,
        cache_gib=config.cache_gib,
    )
    classifier = fit(features, labels, len(names), config)
    held_out = split_rows(encoder.corpus, config, config.val_split)
    confusion = np.zeros((len(names), len(names)), np.int64)
    for scene in encoder.scenes(held_out):
        predicted = classifier(scene.rows.features).argmax(1)[scene.rows.inverse]
        confusion += confusion_matrix(scene.labels.cpu().numpy(), predicted.cpu().numpy(), len(names))
    return score(confusion, names, (len(rows), len(held_out)))


def score(confusion: NDArray[np.int64], names: Sequence[str], scenes: tuple[int, int]) -> ProbeResult:
    """The result of a confusion matrix."""
    iou = dict(zip(names, class_iou(confusion).tolist(), strict=True))
    return ProbeResult(miou=mean_iou(confusion), iou=iou, confusion=confusion, scenes=scenes)


def fit(features: Tensor, labels: Tensor, classes: int, config: ProbeConfig) -> nn.Linear:
    """The linear classifier, on raw features: the standardisation is folded into its weights.

    Args:
        features: float32 (T, C).
        labels: int64 (T,), 0..classes-1.
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    linear = nn.Linear(features.shape[1], classes).to(features.device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    if config.optimiser == "adamw":
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            linear.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
    else:
        optimiser = torch.optim.SGD(linear.parameters(), lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.steps):
        drawn = torch.randint(len(features), (min(config.batch, len(features)),), generator=generator)
        drawn = drawn.to(features.device)
        logits = linear((features[drawn] - mean) / deviation)
        loss = functional.cross_entropy(logits, labels[drawn])
        if config.lovasz:
            loss = loss + config.lovasz * lovasz_softmax(logits.softmax(1), labels[drawn])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        linear.weight.div_(deviation)
        linear.bias.sub_(linear.weight @ mean)
    return linear.requires_grad_(False)


def training_set(
    encoder: Encoder,
    config: DataConfig,
    rows: NDArray[np.int64],
    *,
    voxels_per_scene: int | None,
    seed: int,
    cache_gib: float,
) -> tuple[Tensor, Tensor]:
    """Features and labels of the labelled voxels of all training scenes."""
    features, labels, size = [], [], 0
    generator = torch.Generator().manual_seed(seed)
    kept = LabelledPoints(config)
    for scene in encoder.scenes(rows):
        label = row_labels(scene, kept)
        chosen = (label != UNLABELLED).nonzero().squeeze(1)
        if voxels_per_scene is not None:
            order = torch.randperm(len(chosen), generator=generator)[:voxels_per_scene]
            chosen = chosen[order.to(chosen.device)]
        features.append(scene.rows.features[chosen])
        labels.append(label[chosen])
        size += features[-1].nbytes
        if size > cache_gib * 2**30:
            raise RecipeError(
                f"training features exceed {cache_gib} GiB; raise cache_gib or lower scenes or voxels_per_scene"
            )
    joined = torch.cat(features)
    if not len(joined):
        raise RecipeError(f"no point of split {config.train_split!r} has a label of {config.taxonomy!r}")
    return joined, torch.cat(labels)


def row_labels(scene: EncodedScene, kept: LabelledPoints) -> Tensor:
    """int64 (V,): the label of each row's representative; where few points are labelled, that of a labelled point in
    the row (the one with the greatest class, should there be several)."""
    if not kept.few:
        return scene.labels[scene.rows.representative]
    few = torch.from_numpy(kept.keep(scene.key, scene.labels.cpu().numpy())).to(scene.labels.device)
    return spread_labels(few, scene.rows.inverse, len(scene.rows.features))


def spread_labels(labels: Tensor, inverse: Tensor, rows: int) -> Tensor:
    """int64 (rows,): the greatest label of each row's points, UNLABELLED where none has any."""
    result = labels.new_full((rows,), UNLABELLED)
    return result.scatter_reduce_(0, inverse, labels, "amax")
