"""Sonata: a point transformer that teaches itself (CVPR 2025, arXiv 2503.16429), indoors, outdoors and both.

A student sees two global views of a scene with most of their cubes masked, and four local views whole; a teacher, a
moving average of the student, sees the global views whole. Where both look at the same place, the student should say
what the teacher says, in terms of learned prototypes: for a masked view what the teacher says of that view and of the
other global one, for a local view what it says of the first. There is no decoder: both speak of coarse cells, whose
features are joined from the coarsest levels, because finer ones can be guessed from geometry alone.

All quantities with a schedule follow the share of the training that is over. The published code differs in details
that this one does not keep: see `train.views.masks` and `PointTransformerConfig.published`. What an image network knows
can be added as a further term (`train.objectives.sonata_images`).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.train.clouds import Cloud, join_clouds
from brickyard.train.ema import follow
from brickyard.train.models.point_transformer import Encoded, block_of
from brickyard.train.objectives.matching import Task, match
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.objectives.prototypes import PrototypeHead, cross_entropy, sinkhorn
from brickyard.train.objectives.sonata_images import (
    FIELDS,
    ImagePredictor,
    ImageTerm,
    ScenePictures,
    draw_views,
    fields_of,
    join_pictures,
    prepare_pictures,
)
from brickyard.train.objectives.spread import agreement, feature_rank, koleo
from brickyard.train.schedules import cosine, layer_decay, linear_then_constant
from brickyard.train.students.base import Exported
from brickyard.train.students.point import PointStudent, PointStudentConfig
from brickyard.train.views.views import ViewConfig, Views, make_views

if TYPE_CHECKING:
    from brickyard.shards.stream import Choose, Sample

Range = tuple[float, float]
_COLLAPSED_RANK, _COLLAPSED_STEPS = 2.0, 100


@dataclass(frozen=True, kw_only=True)
class Sonata(ObjectiveConfig):
    """Settings; defaults are those published for rooms.

    Attributes:
        student: the network.
        views: crops and augmentations.
        upcast: levels joined to the coarsest one for the loss. (With a decoder in the student the loss is about the
            finest level; published without.)
        mask_size: edge of masked cubes, metres, at the start and from `ramp` on. mask_ratio: share of them, likewise.
        ramp: share of the training over which masks and the teacher's temperature change.
        radius: rows of two views match if they are closer than this before augmentation, metres.
        prototypes, hidden, dimensions: of the heads.
        temperature: of the student. teacher_temperature: at the start and from `ramp` on.
        momentum: of the teacher, at the start and at the end.
        mask_weight, roll_weight, local_weight: of the three terms.
        teacher_head: which of its heads the teacher uses for local views: "own", or "mask", as a later release does.
        koleo: weight of a term that spreads the student's features of the first global view, at most 1024 rows of a
            pass; the paper speaks of one, the released code has none. See `train.objectives.spread`.
        block_decay: factor on the learning rate from each block of the encoder to the one before it.
        images: what is to be learned from images besides, if anything.
    """

    name: ClassVar[str] = "sonata"

    student: PointStudentConfig = field(default_factory=PointStudentConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    upcast: int = 2
    mask_size: Range = (0.1, 0.4)
    mask_ratio: Range = (0.3, 0.7)
    ramp: float = 0.05
    radius: float = 0.32
    prototypes: int = 4096
    hidden: int = 4096
    dimensions: int = 256
    temperature: float = 0.1
    teacher_temperature: Range = (0.04, 0.07)
    momentum: Range = (0.994, 1.0)
    mask_weight: float = 0.25
    roll_weight: float = 0.25
    local_weight: float = 0.5
    teacher_head: Literal["own", "mask"] = "own"
    koleo: float = 0.0
    block_decay: float = 0.9
    images: ImageTerm | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = len(self.student.sizes.channels)
        if not 0 <= self.upcast < levels:
            raise ValueError(f"upcast must be within 0..{levels - 1}, the network's levels")
        if self.views.withhold and "valid" not in self.student.inputs:
            raise ValueError('views.withhold needs "valid" among the student\'s inputs')
        if not all(0 <= ratio <= 1 for ratio in self.mask_ratio) or min(self.mask_size) <= 0 or self.radius <= 0:
            raise ValueError("mask_ratio must be within 0..1, mask_size and radius positive")
        if min(self.temperature, *self.teacher_temperature) <= 0 or not 0 < self.block_decay <= 1:
            raise ValueError("temperatures and block_decay must be positive, block_decay at most 1")
        weights = (self.mask_weight, self.roll_weight, self.local_weight if self.views.crop.locals else 0.0)
        if min(weights) < 0 or sum(weights) == 0:
            raise ValueError("weights must not be negative, and one of a term that has views must be positive")
        if self.koleo < 0:
            raise ValueError("koleo must not be negative")
        if not all(0 <= m <= 1 for m in self.momentum) or self.ramp < 0:
            raise ValueError("momentum must be within 0..1, ramp not negative")
        if min(self.prototypes, self.hidden, self.dimensions) < 1:
            raise ValueError("prototypes, hidden and dimensions must be positive")
        if self.images and self.images.upcast >= levels:
            raise ValueError(f"images.upcast must be within 0..{levels - 1}, the network's levels")

    def build(self, device: torch.device | str = "cpu") -> SonataObjective:
        return SonataObjective(self, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class SonataScene:
    """A scene from the stream: its cloud, the seed that all of its views follow from, images if they are used."""

    cloud: Cloud
    seed: int
    pictures: ScenePictures | None = None


@dataclass(frozen=True, kw_only=True)
class SonataBatch:
    """Views of a batch on the device."""

    keys: tuple[str, ...]
    views: Views
    pictures: ScenePictures | None = None


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """What a network says of every view: features (n, C) of coarse rows and where these were before augmentation."""

    features: Tensor
    origins: list[Tensor]

    @staticmethod
    def of(student: PointStudent, encoded: Encoded, upcast: int) -> Coarse:
        level = encoded.levels[0 if student.decoder else len(encoded.levels) - 1 - upcast]
        assert level.origin is not None
        return Coarse(
            features=student.rows(encoded, upcast), origins=list(torch.split(level.origin, list(level.counts)))
        )

    def rows(self, views: int) -> int:
        """Number of rows of the first so many views."""
        return sum(len(origin) for origin in self.origins[:views])


class _Network(nn.Module):
    """Student or teacher: encoder and two heads."""

    def __init__(self, config: Sonata, device: torch.device) -> None:
        super().__init__()
        self.encoder = PointStudent(config.student, device)
        width = self.encoder.channels if config.student.decoder else self.encoder.network.config.width(config.upcast)
        sizes = {"hidden": config.hidden, "dimensions": config.dimensions, "prototypes": config.prototypes}
        self.mask_head = PrototypeHead(width, **sizes).to(device)
        self.local_head = PrototypeHead(width, **sizes).to(device)


class SonataObjective(Objective):
    """See the module's text."""

    items_on_device = True

    def __init__(self, config: Sonata, device: torch.device) -> None:
        super().__init__()
        self.config = config
        self.trained = _Network(config, device)
        self.teacher = copy.deepcopy(self.trained).requires_grad_(False).eval()
        self.needed = ("points/xyz",)
        self.fields = (*self.student.fields, *(FIELDS if config.images else ()))
        self.predictor = None
        if config.images:
            width = self.student.network.config.width(config.images.upcast)
            self.predictor = ImagePredictor(config.images, width, device)
        self._starved = 0
        self._rank = torch.tensor(torch.inf)
        self.begin_step(0, 1)

    @property
    def student(self) -> PointStudent:  # type: ignore[override]
        """The encoder that is exported: the student's, as in published evaluations."""
        return self.trained.encoder

    @property
    def networks(self) -> dict[str, Exported]:
        return {"student": self.student, "teacher": self.teacher.encoder}

    def train(self, mode: bool = True) -> SonataObjective:
        super().train(mode)
        self.teacher.eval()
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the heads. In the encoder every pass has other shapes, and patches and levels are no torch.compile's
        business."""
        for head in (self.trained.mask_head, self.trained.local_head):
            head.compile(*args, **kwargs)

    def rate(self, parameter: str) -> float:
        prefix = "trained.encoder.network."
        sizes = self.student.network.config
        block = block_of(parameter.removeprefix(prefix), sizes) if parameter.startswith(prefix) else None
        return 1.0 if block is None else layer_decay(block, sum(sizes.depths), self.config.block_decay)

    def begin_step(self, step: int, steps: int) -> None:
        config, progress = self.config, step / steps
        self.mask_size = linear_then_constant(*config.mask_size, config.ramp, progress)
        self.mask_ratio = linear_then_constant(*config.mask_ratio, config.ramp, progress)
        self.teacher_temperature = linear_then_constant(*config.teacher_temperature, config.ramp, progress)

    def end_step(self, step: int, steps: int) -> None:
        follow(self.teacher, self.trained, cosine(*self.config.momentum, step / steps))
        self._watch(float(self._rank))

    @property
    def choose(self) -> Choose | None:
        return self._choose if self.config.images else None

    def _choose(self, sample: Sample, rng: np.random.Generator) -> tuple[str, ...]:
        """The points, and the images that `prepare` will draw."""
        _, numbers = self._drawn(sample, rng)
        return (*self.student.fields, *fields_of(numbers))

    def _drawn(self, sample: Sample, rng: np.random.Generator) -> tuple[int, list[int]]:
        """(seed, views) of a scene, by its header alone."""
        seed = int(rng.integers(2**62))
        return seed, draw_views(sample.header, rng, self.config.images) if self.config.images else []

    def prepare(self, sample: Sample, rng: np.random.Generator) -> SonataScene:
        seed, numbers = self._drawn(sample, rng)
        images = self.config.images
        pictures = prepare_pictures(sample, numbers, rng, images) if images else None
        return SonataScene(cloud=self.student.scaled(self.student.read(sample)), seed=seed, pictures=pictures)

    def collate(self, items: Sequence[SonataScene], device: torch.device) -> SonataBatch:
        scenes = join_clouds([item.cloud for item in items], self.student.inputs, device)
        views = make_views(
            scenes,
            torch.tensor([item.seed for item in items]),
            self.config.views,
            size=self.config.student.size,
            mask_size=self.mask_size,
            mask_ratio=self.mask_ratio,
        )
        pictures = [item.pictures for item in items if item.pictures is not None]
        return SonataBatch(
            keys=tuple(item.cloud.key for item in items),
            views=views,
            pictures=join_pictures(pictures, scenes.counts, device) if self.config.images else None,
        )

    def forward(self, batch: SonataBatch) -> Loss:
        views, whole = batch.views, 2 * batch.views.scenes
        points = sum(views.clouds.counts[:whole])
        with torch.no_grad():
            seen = self.teacher.encoder(views.clouds.first(whole), origin=views.origin[:points])
            taught = Coarse.of(self.teacher.encoder, seen, self.config.upcast)
        encoded = self.trained.encoder(views.shown, xyz=views.xyz, masked=views.masked, origin=views.origin)
        said = Coarse.of(self.student, encoded, self.config.upcast)
        loss = self._compare(said, taught, views.scenes)
        if self.predictor is None or batch.pictures is None:
            return loss
        term, patches = self.predictor(encoded, views, batch.pictures)
        return Loss(
            total=loss.total + self.predictor.config.weight * term,
            metrics={**loss.metrics, "loss_images": term.detach(), "patches": patches},
            usable=loss.usable,
        )

    def _compare(self, said: Coarse, taught: Coarse, scenes: int) -> Loss:
        """The three terms; the loss is their weighted sum."""
        config, views = self.config, len(said.origins) // scenes
        split = said.rows(2 * scenes)
        masked = self.trained.mask_head(said.features[:split])
        local = self.trained.local_head(said.features[split:])
        with torch.no_grad():
            answer = self.teacher.mask_head(taught.features)
            head = self.teacher.local_head if config.teacher_head == "own" else self.teacher.mask_head
            principal = head(taught.features[: taught.rows(scenes)])
        whole = [(v * scenes + b) for v in range(2) for b in range(scenes)]
        terms = {
            "mask": (masked, answer, said.origins[: 2 * scenes], [(view, view) for view in whole]),
            "roll": (masked, answer, said.origins[: 2 * scenes], [(v, (v + scenes) % (2 * scenes)) for v in whole]),
            "local": (
                local, principal, said.origins[2 * scenes :],
                [(v * scenes + b, b) for v in range(views - 2) for b in range(scenes)],
            ),
        }  # fmt: skip
        weights = {"mask": config.mask_weight, "roll": config.roll_weight, "local": config.local_weight}
        total, metrics = said.features.new_zeros((), dtype=torch.float32), dict[str, float | Tensor]()
        assigned, entropy, points = said.features.new_zeros(config.prototypes, dtype=torch.float32), 0.0 * total, 0
        wanted = [name for name, (*_, pairs) in terms.items() if pairs and weights[name] > 0]
        tasks = [Task(points=terms[name][2], others=taught.origins, pairs=terms[name][3]) for name in wanted]
        both = Task(points=taught.origins, others=taught.origins, pairs=[(b, b + scenes) for b in range(scenes)])
        *matches, same = match([*tasks, both], config.radius)
        for name, found in zip(wanted, matches, strict=True):
            similarity, teacher, *_ = terms[name]
            target = sinkhorn(teacher[found.others], self.teacher_temperature)
            loss = cross_entropy(similarity[found.rows], target, config.temperature)
            term = _mean_of_means(loss, found.owner, found.sizes)
            total = total + weights[name] * term
            metrics |= {f"loss_{name}": term.detach(), f"matched_{name}": len(found.rows) / max(1, len(similarity))}
            assigned, entropy = assigned + target.sum(0), entropy + torch.special.entr(target).sum()
            points += len(target)
        if config.koleo > 0:  # one view of a scene, as no place should be pushed away from itself
            apart = koleo(said.features[: said.rows(scenes)])
            total, metrics["loss_koleo"] = total + config.koleo * apart, apart.detach()
        metrics |= _use(assigned, entropy, points) if points else {}
        rank = feature_rank(taught.features)
        # It arrives while the loss is waited for: `end_step` comes after that.
        self._rank = rank.to("cpu", non_blocking=True)
        metrics["agreement"] = agreement(taught.features[same.rows], taught.features[same.others])
        metrics |= {"feature_rank": rank, "mask_ratio": self.mask_ratio, "mask_size": self.mask_size}
        return Loss(total=total, metrics=metrics, usable=points > 0)

    def _watch(self, rank: float) -> None:
        self._starved = self._starved + 1 if rank < _COLLAPSED_RANK else 0
        if self._starved == _COLLAPSED_STEPS:
            warnings.warn(
                f"the features have collapsed: for {_COLLAPSED_STEPS} steps they vary in {rank:.1f} directions; lower"
                " the learning rate, raise the teacher's momentum, or give `koleo` a weight",
                stacklevel=2,
            )


def _use(assigned: Tensor, entropy: Tensor, points: int) -> dict[str, Tensor]:
    """Signs of collapse, both 0..1: the share of prototypes in use (exp of the entropy of the mean assignment, of all),
    and the entropy of single assignments (of the greatest there is)."""
    prototypes = len(assigned)
    used = torch.exp(torch.special.entr(assigned / points).sum()) / prototypes
    return {"prototypes_used": used, "teacher_entropy": entropy / points / math.log(prototypes)}


def _mean_of_means(values: Tensor, owner: Tensor, sizes: Tensor) -> Tensor:
    """Mean over each owner's values, whose numbers are `sizes`, then over the owners that have any; 0 without any."""
    sums = values.new_zeros(len(sizes)).index_add(0, owner, values)
    return (sums / sizes.clamp(min=1)).sum() / (sizes > 0).sum().clamp(min=1)
