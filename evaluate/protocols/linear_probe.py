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

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from brickyard.evaluate.features import Encoder, frozen, training_set
from brickyard.evaluate.lovasz import lovasz_softmax
from brickyard.evaluate.metrics import confusion_matrix
from brickyard.evaluate.protocols.benchmarks import BENCHMARKS
from brickyard.evaluate.protocols.protocol import Measured, StudentProtocol
from brickyard.evaluate.scores import COLUMNS, ClassScores, score
from brickyard.evaluate.splits import DataConfig, shuffled_rows, val_rows
from brickyard.evaluate.subject import Subject
from brickyard.shards.corpus import Corpus
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


def probe(student: Student, corpus: Corpus, config: ProbeConfig) -> ClassScores:
    """Train a linear classifier on the frozen student and score it; the student is not changed.

    Raises:
        RecipeError: no scenes with these labels in a split, or features larger than the cache.
    """
    rows = probe_rows(corpus, config)
    student = frozen(student, corpus, rows, measure=config.calibrate, threads=config.threads)
    return probe_features(Encoder(student, corpus, config.taxonomy, threads=config.threads), config)


def probe_rows(corpus: Corpus, config: ProbeConfig) -> NDArray[np.int64]:
    """The training scenes, in the order in which they are encoded."""
    return shuffled_rows(corpus, config, config.seed)[: config.scenes]


def probe_features(encoder: Encoder, config: ProbeConfig) -> ClassScores:
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
    held_out = val_rows(encoder.corpus, config)
    confusion = np.zeros((len(names), len(names)), np.int64)
    for scene in encoder.scenes(held_out):
        predicted = classifier(scene.rows.features).argmax(1)[scene.rows.inverse]
        confusion += confusion_matrix(scene.labels.cpu().numpy(), predicted.cpu().numpy(), len(names))
    return score(confusion, names, (len(rows), len(held_out)))


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


PRESETS = {
    f"{family}-linear-tiny": ProbeConfig(
        dataset=dataset, taxonomy=labels, steps=400, batch=4096, lovasz=1.0, voxels_per_scene=2000
    )
    for family, (dataset, labels) in BENCHMARKS.items()
}
"""They ask what "*-linear" asks, of features without augmentation."""


class LinearProbe(StudentProtocol[ProbeConfig]):
    """See the module's text."""

    config = ProbeConfig
    reads_features = True
    columns = COLUMNS
    presets = PRESETS

    def run(self, subject: Subject, config: ProbeConfig) -> Measured:
        rows = probe_rows(subject.corpus, config)
        return probe_features(subject.encoder(config, rows, calibrate=config.calibrate), config).measured


PROTOCOL = LinearProbe()
