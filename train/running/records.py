"""What a run's folder says of the run, read: its configuration and its summary, each whole and of the right shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brickyard.shards.documents import Maybe, read_file
from brickyard.shards.errors import BrickyardError

CONFIG = "config.json"
SUMMARY = "final/summary.json"

_CONFIG = {
    "train": {"seed": int, "steps": Maybe((int, None))},
    "objective": {"name": str},
    "corpus": str,
}
_SUMMARY = {
    "steps": int,
    "seconds": Maybe((float, None)),
    "data_wait": Maybe((float, None)),
    "best": Maybe(({"loss": float}, None)),
    "memory": Maybe({"peak": Maybe((int, None))}),
}


def read_config(run: Path) -> dict[str, Any]:
    """A run's config.json; raises `BrickyardError` where it is missing or damaged."""
    hint = "without it nobody knows what the run was made of; restore it, or train in another folder"
    return read_file(run / CONFIG, _CONFIG, error=BrickyardError, hint=hint)


def read_summary(run: Path) -> dict[str, Any] | None:
    """The summary of a run that is over, None of one that is not; raises `BrickyardError` where it is damaged."""
    path = run / SUMMARY
    if not path.exists():
        return None
    return read_file(path, _SUMMARY, error=BrickyardError, hint="`brickyard train` makes it again")
