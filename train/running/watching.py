"""Evaluations while a training goes on: cheap ones, every so many steps, in the log and on the page of the run.

The loss of a self-supervised run says little about what its network is worth: that of a student that follows its own
teacher may fall while the features collapse. So the best checkpoint is kept by a score measured now and then, where
there is one. What is measured is the caller's business; the training does not notice it: random states are as before,
and the networks are handed over in evaluation mode and put back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from brickyard.shards.errors import RecipeError
from brickyard.train.objectives.objective import Objective
from brickyard.train.running.metrics import WATCHED
from brickyard.train.students.base import Exported


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is measured, and when.

    Attributes:
        every: steps; a multiple of those between checkpoints, so that the best one can be kept.
        network: which of the objective's `networks` is measured.
        measure: the network -> numbers by name; in evaluation mode, on the run's device, not to be changed.
        score: the name of the number that is the greater the better.
    """

    every: int
    network: str
    measure: Callable[[Exported], Mapping[str, float]]
    score: str

    def check(self, objective: Objective, checkpoint_every: int) -> None:
        """Raise `RecipeError` where the training has no such network or no checkpoint at such a step."""
        if self.every < 1 or self.every % checkpoint_every:
            raise RecipeError(
                f"watch.every is {self.every}, which must be a multiple of checkpoint_every ({checkpoint_every}): what"
                " is measured decides which checkpoint is the best"
            )
        if self.network not in objective.networks:
            raise RecipeError(f"watch.network {self.network!r}: this objective has {', '.join(objective.networks)}")

    def look(self, objective: Objective) -> dict[str, float]:
        """The numbers of a moment, by the names they have in the log."""
        network = objective.networks[self.network]
        modes = [(module, module.training) for module in network.modules()]
        devices = [network.device] if network.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            numbers = self.measure(network.eval())
        for module, training in modes:
            module.training = training
        return {f"{WATCHED}{name}": float(value) for name, value in numbers.items()}

    def scored(self, numbers: Mapping[str, float]) -> float:
        """The score among what `look` gave."""
        return numbers[f"{WATCHED}{self.score}"]
