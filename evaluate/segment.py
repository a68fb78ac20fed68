"""Segmentation as something to train: the loss of a classifier on labelled scenes, for the loop of `train.loop`.

The settings of a supervised protocol are here, with the objective that learns by them: cross-entropy and Lovasz softmax
on the labelled voxels of augmented scenes. How it is trained and scored is in `evaluate.supervised`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.evaluate.augment import AugmentConfig, augmented, mixed
from brickyard.evaluate.fragments import VARIANTS
from brickyard.evaluate.labels import label_field, read_labels, spread_labels
from brickyard.evaluate.lovasz import lovasz_softmax
from brickyard.evaluate.segmenter import Frozen, Kind, Segmenter, SegmenterConfig
from brickyard.evaluate.splits import DataConfig, LabelledPoints
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy
from brickyard.train.clouds import Cloud, join_clouds
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.students.base import Rows, Student

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(DataConfig):
    """A supervised protocol; the defaults are those published for ScanNet.

    Attributes:
        kind: "linear", "decoder" or "finetune", see `evaluate.segmenter`.
        grid: edge of a voxel, metres in the scene, for a point transformer; None keeps what it was trained with.
        clamp: least x, y, z and greatest x, y, z, metres in the scene's frame, to which coordinates are clamped before
            anything else, in training and in scoring; points beyond count at the border. None leaves them.
        epochs: passes over the training scenes. steps: of the optimiser, instead of `epochs`.
        batch: scenes of a step. accumulate: forward passes that a step is divided into.
        optimiser, schedule, momentum, dampening, momentum_cycle: see `train.optimiser.OptimiserConfig`.
        lr: peak. encoder_rate: factor for the encoder's blocks, or for all of a U-Net. weight_decay: of the optimiser.
        warmup: share of the steps until the peak. start_factor, final_factor: first and last learning rate over peak.
        clip: largest global norm of the gradient, or None.
        lovasz: weight of the Lovasz softmax beside cross-entropy.
        augment: None shows the scenes as they are.
        decoder: its sizes.
        spare: outputs of the classifier beside the classes, see `evaluate.segmenter`.
        frozen_mode: of a frozen student, see `evaluate.segmenter.SegmenterConfig`.
        calibrate: measure a frozen U-Net's batch norms on the training scenes first; False keeps those it was trained
            with.
        norm_momentum: of the student's batch norms while all of it is trained; None keeps its own.
        validations: so many times in the training, the validation scenes are scored by voxels, without test variants.
        scored: whose weights are scored in the end: the "last", or those with the "best" validation.
        test_variants: name in `evaluate.fragments.VARIANTS`.
        most_turns: of inference by fragments; 1 predicts by voxels.
        seed: of weights, order and augmentation.
        bf16: autocast on CUDA.
    """

    kind: Kind = "linear"
    grid: float | None = 0.02
    clamp: tuple[float, float, float, float, float, float] | None = None
    epochs: float = 800.0
    steps: int | None = None
    batch: int = 24
    accumulate: int = 1
    optimiser: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one_cycle", "epoch_cosine"] = "one_cycle"
    lr: float = 0.002
    encoder_rate: float = 0.1
    weight_decay: float = 0.02
    momentum: float = 0.9
    dampening: float = 0.1
    momentum_cycle: tuple[float, float] | None = (0.95, 0.85)
    warmup: float = 0.05
    start_factor: float = 0.1
    final_factor: float = 1e-4
    clip: float | None = 3.0
    lovasz: float = 1.0
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)
    decoder: PointDecoderConfig = field(default_factory=PointDecoderConfig)
    spare: int = 0
    frozen_mode: Frozen = "train"
    calibrate: bool = True
    norm_momentum: float | None = None
    validations: int = 100
    scored: Literal["last", "best"] = "best"
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
        if min(self.lovasz, self.weight_decay, self.validations, self.spare) < 0 or not 0 <= self.warmup < 1:
            raise ValueError("lovasz, weight_decay, validations and spare must not be negative, warmup in [0, 1)")
        if self.scored == "best" and not self.validations:
            raise ValueError('scored: "best" needs validations, which find the best')
        if self.momentum_cycle is not None and self.schedule != "one_cycle":
            raise ValueError('momentum_cycle goes with schedule "one_cycle": set it to null')
        if self.clamp is not None and not all(a < b for a, b in zip(self.clamp[:3], self.clamp[3:], strict=True)):
            raise ValueError("clamp is least x, y, z, then greatest x, y, z")


@dataclass(frozen=True, kw_only=True)
class LabelledCloud:
    """A scene of the stream; `seed` is of its augmentation."""

    cloud: Cloud
    labels: Tensor
    seed: int


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A batch."""

    items: Sequence[LabelledCloud]

    @property
    def keys(self) -> tuple[str, ...]:
        """The scenes' keys."""
        return tuple(item.cloud.key for item in self.items)


def reader(
    student: Student, config: SupervisedConfig, kept: LabelledPoints
) -> Callable[[Sample, np.random.Generator], LabelledCloud]:
    """What makes a labelled cloud of a sample, for the stream.

    Args:
        kept: which points keep their labels.
    """

    def prepare(sample: Sample, rng: np.random.Generator) -> LabelledCloud:
        labels = kept.keep(sample.key, read_labels(sample, config.taxonomy).numpy())
        cloud = read_cloud(student, config, sample)
        return LabelledCloud(cloud=cloud, labels=torch.from_numpy(labels), seed=int(rng.integers(1 << 62)))

    return prepare


def read_cloud(student: Student, config: SupervisedConfig, sample: Sample) -> Cloud:
    """A sample as a supervised protocol shows it to its student, without its labels."""
    cloud = student.read(sample)
    if config.clamp is None:
        return cloud
    low, high = torch.tensor(config.clamp).reshape(2, 3)
    return Cloud(key=cloud.key, domain=cloud.domain, xyz=cloud.xyz.clamp(low, high), values=cloud.values)


@dataclass(frozen=True, kw_only=True)
class Segment(ObjectiveConfig):
    """Settings of the objective; the student is given along and stands in no record but by its digest.

    Attributes:
        weights: digest of the student.
        protocol: settings of the protocol.
        domain: of the scenes.
        student: the network, adapted to the protocol; it is copied.
    """

    name: ClassVar[str] = "segment"

    weights: str
    protocol: SupervisedConfig
    domain: str
    student: InitVar[Student]

    def __post_init__(self, student: Student) -> None:
        super().__post_init__()
        object.__setattr__(self, "_student", student)

    def build(self, device: torch.device | str = "cpu") -> Segmentation:
        config = self.protocol
        student: Student = copy.deepcopy(self._student).to(device)  # type: ignore[attr-defined]
        settings = SegmenterConfig(
            student=student.config,
            classes=tuple(taxonomy(config.taxonomy).classes),
            trained=config.kind,
            decoder=config.decoder,
            spare=config.spare,
            frozen_mode=config.frozen_mode,
        )
        if config.kind == "finetune" and config.norm_momentum is not None:
            for module in student.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.momentum = config.norm_momentum
        return Segmentation(Segmenter(student, settings), config, student.config.voxel_size(self.domain))


class Segmentation(Objective):
    """The loss of a segmenter.

    Args:
        size: edge of a voxel in metres of the scene, by which crops count.
    """

    student: Segmenter

    def __init__(self, segmenter: Segmenter, config: SupervisedConfig, size: float) -> None:
        super().__init__()
        self.student, self.config, self.size, self.kept = segmenter, config, size, LabelledPoints(config)
        self.fields = (*segmenter.student.fields, label_field(config.taxonomy))
        self.needed = (label_field(config.taxonomy),)
        self._read = reader(segmenter.student, config, self.kept)

    def rate(self, parameter: str) -> float:
        slow = self.student.is_slow(parameter.removeprefix("student."))
        return self.config.encoder_rate if slow else 1.0

    def prepare(self, sample: Sample, rng: np.random.Generator) -> LabelledCloud:
        return self._read(sample, rng)

    def collate(self, items: Sequence[LabelledCloud], device: torch.device) -> Labelled:
        del device  # clouds are joined where they are augmented
        return Labelled(items=items)

    def forward(self, batch: Labelled) -> Loss:
        return segmentation_loss(self.student, batch.items, self.config, size=self.size, few=self.kept.few)


def segmentation_loss(
    model: Segmenter, items: Sequence[LabelledCloud], config: SupervisedConfig, *, size: float, few: bool
) -> Loss:
    """Cross-entropy and Lovasz softmax over the labelled voxels of a batch; 0, and of no use, where none is labelled.

    Args:
        size: edge of a voxel, metres. few: whether a voxel takes the label of any of its points (see
            `evaluate.labels.row_labels`).
    """
    device = model.device
    clouds = join_clouds([item.cloud for item in items], model.student.inputs, device)
    labels, turn = torch.cat([item.labels for item in items]).to(device), 0
    domains = [item.cloud.domain for item in items]
    if config.augment is not None:
        seeds = torch.tensor([item.seed for item in items], device=device)
        clouds, labels = augmented(clouds, labels, config.augment, seeds, size, few=few)
        batch, clouds = clouds.batch, mixed(clouds, config.augment, seeds[:1])
        domains = domains[::2] if clouds.batch < batch else domains
        turn = items[0].seed % 1021  # another point speaks for its voxel at every step
    rows: Rows = model(clouds, domains, turn)
    label = spread_labels(labels, rows.inverse, len(rows.features)) if few else labels[rows.representative]
    known = label != UNLABELLED
    logits = rows.features[known]
    if not len(logits):
        return Loss(total=rows.features.sum() * 0, usable=False)
    with torch.autocast(device.type, enabled=False):  # the loss itself is float32
        metrics: dict[str, Any] = {"cross_entropy": functional.cross_entropy(logits, label[known])}
        loss = metrics["cross_entropy"]
        if config.lovasz:
            metrics["lovasz"] = lovasz_softmax(logits.softmax(1), label[known])
            loss = loss + config.lovasz * metrics["lovasz"]
    return Loss(total=loss, metrics=metrics)
