"""What `brickyard evaluate` judges: the network of a finished run, or one that others have released."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brickyard.infra.verbs.features import beside, finished
from brickyard.train.running.records import read_config
from brickyard.train.students.base import Exported


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Attributes:
    folder: where results are added: the run's, or one for the released file.
    weights: the released file, None for a run.
    """

    folder: Path
    weights: Path | None = None

    def network(self, device: Any) -> Exported:
        """Raises `BrickyardError` where a run has not come so far, or a file holds nothing that is known."""
        if self.weights is None:
            return finished(self.folder, device)
        from brickyard.train.students.released import load_released

        return load_released(self.weights, device)

    def companions(self, device: Any) -> list[Exported]:
        """What a run has exported beside it."""
        return [] if self.weights is not None else beside(self.folder, device)

    @property
    def seed(self) -> int:
        """Of the random network beside it."""
        return 0 if self.weights is not None else int(read_config(self.folder)["train"]["seed"])
