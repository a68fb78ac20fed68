"""Training of a classifier on labelled scenes, and its score on every raw point of the validation scenes.

One device, one loop: AdamW, one-cycle learning rate, cross-entropy and Lovasz softmax on the labelled voxels, a clipped
gradient; scenes come from the stream and are augmented on the device. The published settings (see
`evaluate.protocols.segmentation`) run the network at every step, frozen or not, because augmentation changes its input;
that takes a GPU and hours. The score is per point, by fragments (`evaluate.fragments`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from brickyard.evaluate.augment import AugmentConfig, augmented, mixed
from brickyard.evaluate.features import frozen
from brickyard.evaluate.fragments import VARIANTS, predict
from brickyard.evaluate.labels import label_field, read_labels, spread_labels
from brickyard.evaluate.lovasz import lovasz_softmax
from brickyard.evaluate.metrics import confusion_matrix
from brickyard.evaluate.scores import ClassScores, score
from brickyard.evaluate.segmenter import Kind, Segmenter, adapted
from brickyard.evaluate.splits import DataConfig, LabelledPoints, split_rows, train_rows
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.stream import Stream
from brickyard.shards.taxonomy import taxonomy
from brickyard.train.clouds import Cloud, join_clouds
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.schedules import one_cycle
from brickyard.train.students.base import Rows, Student

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(DataConfig):
    """A supervised protocol; the defaults are those published for ScanNet.

    Attributes:
        kind: "linear", "decoder" or "finetune", see `evaluate.segmenter`.
        grid: edge of a voxel, metres in the scene, for a point transformer; None keeps what it was trained with.
        epochs: passes over the training scenes. steps: of the optimiser, instead of `epochs`.
        batch: scenes of a step. accumulate: forward passes that a step is divided into.
        lr: peak. encoder_rate: factor for the encoder's blocks. weight_decay: of the optimiser.
        warmup: share of the steps until the peak. start_factor, final_factor: first and last learning rate over peak.
        clip: largest global norm of the gradient, or None.
        lovasz: weight of the Lovasz softmax beside cross-entropy.
        augment: None shows the scenes as they are.
        decoder: its sizes.
        calibrate: measure a frozen U-Net's batch norms on the training scenes first.
        test_variants: name in `evaluate.fragments.VARIANTS`.
        most_turns: of inference by fragments; 1 predicts by voxels.
        seed: of weights, order and augmentation.
        bf16: autocast on CUDA.
    """

    kind: Kind = "linear"
    grid: float | None = 0.02
    epochs: float = 800.0
    steps: int | None = None
    batch: int = 24
    accumulate: int = 1
    lr: float = 0.002
    encoder_rate: float = 0.1
    weight_decay: float = 0.02
    warmup: float = 0.05
    start_factor: float = 0.1
    final_factor: float = 1e-4
    clip: float | None = 3.0
    lovasz: float = 1.0
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)
    decoder: PointDecoderConfig = field(default_factory=PointDecoderConfig)
    calibrate: bool = True
    test_variants: str = "indoor"
    most_turns: int = 64
    seed: int = 0
    bf16: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_variants not in VARIANTS:
            raise ValueError(f"test_variants must be one of {', '.join(VARIANTS)}")
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise ValueError("batch must be a positive multiple of accumulate")
        if min(self.lr, self.epochs) <= 0 or (self.steps is not None and self.steps < 1) or self.most_turns < 1:
            raise ValueError("lr, epochs, steps and most_turns must be positive")
        if self.lovasz < 0 or self.weight_decay < 0 or not 0 <= self.warmup < 1:
            raise ValueError("lovasz and weight_decay must not be negative, warmup in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class LabelledCloud:
    """A scene of the stream; `seed` is of its augmentation."""

    cloud: Cloud
    labels: Tensor
    seed: int


def supervised(student: Student, corpus: Corpus, config: SupervisedConfig) -> ClassScores:
    """Train on a copy of the student, then score; the student is not changed.

    Raises:
        RecipeError: scenes without labels, an impossible combination.
        BrickyardError: the loss is not finite; the message names the scenes.
    """
    model = trained(student, corpus, config)
    rows, held_out = train_rows(corpus, config), split_rows(corpus, config, config.val_split)
    names = taxonomy(config.taxonomy).classes
    confusion = np.zeros((len(names), len(names)), np.int64)
    variants = VARIANTS[config.test_variants]
    for items in _stream(model.student, corpus, config, held_out, LabelledPoints(DataConfig()), batch=1, epochs=1):
        for item in items:
            with _autocast(model, config):
                scores = predict(model.classify, item.cloud, variants, most_turns=config.most_turns).scores
            confusion += confusion_matrix(item.labels.numpy(), scores.argmax(1).cpu().numpy(), len(names))
    return score(confusion, names, (len(rows), len(held_out)))


def trained(student: Student, corpus: Corpus, config: SupervisedConfig) -> Segmenter:
    """The segmenter after training, in evaluation mode."""
    rows = train_rows(corpus, config)
    domain = str(corpus.index.column("domain")[int(rows[0])])
    student = adapted(student, grid=config.grid, domain=domain)
    if config.kind != "finetune":
        student = frozen(student, corpus, rows, measure=config.calibrate, threads=config.threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Segmenter(student, len(taxonomy(config.taxonomy).classes), config.kind, config.decoder)
        _train(model.train(), corpus, config, rows, size=student.config.voxel_size(domain))
    return model.eval()


def _train(model: Segmenter, corpus: Corpus, config: SupervisedConfig, rows: NDArray[np.int64], *, size: float) -> None:
    steps = config.steps or max(1, round(config.epochs * len(rows) / config.batch))
    groups = [{"params": parameters, "rate": rate} for rate, parameters in model.groups(config.encoder_rate)]
    optimiser = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    share = config.batch // config.accumulate
    kept = LabelledPoints(config)
    batches: Any = iter(_stream(model.student, corpus, config, rows, kept, batch=share, epochs=None))
    try:
        for step in range(steps):
            rate = one_cycle(
                config.lr,
                step,
                steps,
                config.warmup * steps,
                start_factor=config.start_factor,
                final_factor=config.final_factor,
            )
            for group in optimiser.param_groups:
                group["lr"] = rate * group["rate"]
            optimiser.zero_grad(set_to_none=True)
            for _ in range(config.accumulate):
                items = next(batches)
                loss = segmentation_loss(model, items, config, size=size, few=kept.few)
                if not bool(torch.isfinite(loss)):
                    keys = ", ".join(item.cloud.key for item in items)
                    raise BrickyardError(f"the loss of the {config.kind} protocol is {loss.item()}; scenes: {keys}")
                (loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
            if config.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
    finally:
        batches.close()


def segmentation_loss(
    model: Segmenter, items: Sequence[LabelledCloud], config: SupervisedConfig, *, size: float, few: bool
) -> Tensor:
    """Cross-entropy and Lovasz softmax over the labelled voxels of a batch; 0 where none is labelled.

    Args:
        size: edge of a voxel, metres. few: whether a voxel takes the label of any of its points (see
            `evaluate.labels.row_labels`).
    """
    device = model.student.device
    clouds = join_clouds([item.cloud for item in items], model.student.inputs, device)
    labels, turn = torch.cat([item.labels for item in items]).to(device), 0
    domains = [item.cloud.domain for item in items]
    if config.augment is not None:
        seeds = torch.tensor([item.seed for item in items], device=device)
        clouds, labels = augmented(clouds, labels, config.augment, seeds, size)
        batch, clouds = clouds.batch, mixed(clouds, config.augment, seeds[:1])
        domains = domains[::2] if clouds.batch < batch else domains
        turn = items[0].seed % 1021  # another point speaks for its voxel at every step
    with _autocast(model, config):  # the loss itself is float32
        rows: Rows = model(clouds, domains, turn)
    label = spread_labels(labels, rows.inverse, len(rows.features)) if few else labels[rows.representative]
    known = label != UNLABELLED
    logits = rows.features[known]
    if not len(logits):
        return rows.features.sum() * 0
    loss = functional.cross_entropy(logits, label[known])
    if config.lovasz:
        loss = loss + config.lovasz * lovasz_softmax(logits.softmax(1), label[known])
    return loss


def _stream(
    student: Student,
    corpus: Corpus,
    config: SupervisedConfig,
    rows: NDArray[np.int64],
    kept: LabelledPoints,
    *,
    batch: int,
    epochs: int | None,
) -> Stream:
    """Batches of `LabelledCloud`: one ordered pass, or for ever and shuffled."""

    def prepare(sample: Sample, rng: np.random.Generator) -> LabelledCloud:
        labels = kept.keep(sample.key, read_labels(sample, config.taxonomy).numpy())
        return LabelledCloud(
            cloud=student.read(sample), labels=torch.from_numpy(labels), seed=int(rng.integers(1 << 62))
        )

    return Stream(
        corpus,
        (*student.fields, label_field(config.taxonomy)),
        batch=batch,
        seed=config.seed,
        rows=rows,
        threads=config.threads,
        prepare=prepare,
        epochs=epochs,
        shuffle=epochs is None,
    )


def _autocast(model: Segmenter, config: SupervisedConfig) -> contextlib.AbstractContextManager[Any]:
    if config.bf16 and model.student.device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
