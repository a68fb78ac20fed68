"""Where the numbers of a run are shown besides metrics.jsonl: TensorBoard, Weights & Biases, or a class of your own.

    logs: [tensorboard, wandb]          in the recipe's `train` section

A log that is not installed is refused by name before the first step. Logs are for looking: nothing of a run depends on
them, and on resuming each continues from the step that was restored. Weights & Biases is asked for by name, as it sends
numbers to its server; who is logged in there, and under which project, is its own business (WANDB_PROJECT and so on).
"""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from brickyard.shards.errors import RecipeError

LogName = Literal["tensorboard", "wandb"]


class Log(Protocol):
    """What a log does."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show the numbers of a step."""

    def close(self) -> None:
        """The run is over, or stopped."""


class TensorBoard:
    """Events in `tensorboard/` of the run's folder; those after the restored step are purged."""

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        del config
        if step == 0:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._board.close()


class WeightsAndBiases:
    """A run named after the folder, whose id is kept there, so that a resumed one continues it."""

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        import wandb

        kept = folder / "wandb-id.txt"
        if step == 0 or not kept.exists():
            kept.write_text(wandb.util.generate_id())
        self._run = wandb.init(
            dir=str(folder), name=folder.name, id=kept.read_text().strip(), resume="allow", config=dict(config)
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        self._run.finish()


_LOGS: dict[str, tuple[str, Callable[[Path, int, Mapping[str, Any]], Log]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
}
"""name -> (the package it needs, how it is opened with a run's folder, the restored step and the configuration)."""


def check_logs(names: Sequence[str]) -> None:
    """Raise `RecipeError` for a log whose package is not installed."""
    for name in names:
        package = _LOGS[name][0]
        if importlib.util.find_spec(package) is None:
            raise RecipeError(f"train.logs has {name!r}, which needs `pip install {package}`; or take it out")


def open_logs(names: Sequence[str], folder: Path, step: int, config: Mapping[str, Any]) -> list[Log]:
    """The logs of a run that goes on after `step` (0: begins)."""
    return [_LOGS[name][1](folder, step, config) for name in names]
