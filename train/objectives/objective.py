"""The protocol between an objective and the loop, which knows nothing of any particular objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.train.checks import refuse_nonfinite
from brickyard.train.students.base import Exported

if TYPE_CHECKING:
    from brickyard.shards.stream import Choose, Sample


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What one batch gives.

    Attributes:
        total: scalar to differentiate.
        metrics: numbers to log; scalars (tensors are read only when they are logged).
        usable: False where the batch held nothing to learn from; then no optimiser step is made.
    """

    total: Tensor
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)
    usable: bool = True


class Objective(nn.Module):
    """A loss with its networks. Its parameters and buffers are checkpointed. Those that ask for a gradient are trained;
    the others belong to a teacher that follows the student. A frozen teacher, which never changes, must not be
    registered as a submodule.

    Attributes:
        fields: patterns for the stream.
        needed: those of them without which a scene teaches nothing.
        student: what is exported.
        items_on_device: whether `collate` also takes items whose tensors lie on the device already.
        unusable: what the summary of a run calls the steps whose batches held nothing to learn from.
    """

    fields: tuple[str, ...]
    needed: tuple[str, ...] = ()
    student: Exported
    items_on_device: ClassVar[bool] = False
    unusable: ClassVar[str] = "unusable_steps"

    @property
    def networks(self) -> dict[str, Exported]:
        """What can be measured while training: the student and, where one follows it, the teacher."""
        return {"student": self.student}

    @property
    def companions(self) -> dict[str, Exported]:
        """What is exported beside the student, by name: parts of the training that an evaluation wants to see."""
        return {}

    def rate(self, parameter: str) -> float:
        """Factor on the learning rate of a parameter, by its name in `named_parameters`."""
        del parameter
        return 1.0

    def begin_step(self, step: int, steps: int) -> None:
        """Set everything that follows a schedule; called before optimiser step `step` (from 0) of `steps`."""

    def end_step(self, step: int, steps: int) -> None:
        """Called after the optimiser has made that step: for a teacher that follows the student."""

    @property
    def choose(self) -> Choose | None:
        """What to read of a scene, for the stream (see `shards.stream.Stream`); None reads all of `fields`."""
        return None

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Any:
        """One scene, in a thread of the stream: decode, crop, and draw every random number from `rng`. What follows a
        schedule goes by `sample.step`; of how many steps `begin_step` has said before, which runs while later scenes
        are prepared."""
        raise NotImplementedError

    def collate(self, items: Sequence[Any], device: torch.device) -> Any:
        """A batch on the device. It has `keys`, the scenes' keys."""
        raise NotImplementedError

    def forward(self, batch: Any) -> Loss:
        """The loss of a batch."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Settings of an objective."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        refuse_nonfinite(self)

    def build(self, device: torch.device | str = "cpu") -> Objective:
        """The objective with freshly initialised networks (torch's random state decides)."""
        raise NotImplementedError
