"""Students out and in: `student.safetensors` beside `student.json`, with the digests of both (see `train.files`).

Nothing else of a run is needed to use a student.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from brickyard.shards.atomic import write_whole
from brickyard.shards.documents import read_file, write_document
from brickyard.shards.errors import NONSENSE, BrickyardError
from brickyard.train.files import DIGESTS, check_digests, write_digests
from brickyard.train.students.base import Exported, ExportedConfig, Student
from brickyard.train.students.registry import KINDS

WEIGHTS, SETTINGS = "student.safetensors", "student.json"
_FIRST_KIND = "sparse_unet"  # the first exports had no kind


def export_student(student: Exported, folder: Path) -> None:
    """Write both files into an existing folder, then their digests."""
    (folder / DIGESTS).unlink(missing_ok=True)  # of a student that was here before
    weights = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    write_whole(folder / WEIGHTS, save(weights))
    write_document(folder / SETTINGS, {"kind": student.config.kind, **dataclasses.asdict(student.config)})
    write_digests(folder, (WEIGHTS, SETTINGS))


def load_exported(folder: str | Path, device: torch.device | str = "cpu") -> Exported:
    """What was exported into a folder; raises `BrickyardError` where there is none, it is damaged or does not fit.

    One without digests (older versions wrote none) is taken as it is, with a warning.
    """
    folder = Path(folder)
    hint = f"get the student again, or, in the folder of a run, delete {folder} and `brickyard train` exports it anew"
    table = read_file(folder / SETTINGS, error=_no_student(folder), hint=hint)
    check_digests(folder, (WEIGHTS, SETTINGS), hint=hint)
    try:
        exported = _read_config(table).build(device)
        exported.load_state_dict(load_file(folder / WEIGHTS, device=str(device)))
    except (OSError, RuntimeError, SafetensorError, *NONSENSE) as problem:
        raise BrickyardError(f"{folder} holds no usable student: {problem}: {hint}") from problem
    return exported


def load_companions(folder: str | Path, device: torch.device | str = "cpu") -> dict[str, Exported]:
    """What lies beside a student, each in a folder of its own: name -> network; raises as `load_exported`."""
    places = sorted(path.parent for path in Path(folder).glob(f"*/{SETTINGS}"))
    return {place.name: load_exported(place, device) for place in places}


def load_student(folder: str | Path, device: torch.device | str = "cpu") -> Student:
    """`load_exported` of what encodes clouds; raises `BrickyardError` for anything else, too."""
    exported = load_exported(folder, device)
    if not isinstance(exported, Student):
        raise BrickyardError(f"{folder} holds a {exported.config.kind!r}, which does not encode clouds of points")
    return exported


def _no_student(folder: Path) -> Callable[[str], BrickyardError]:
    return lambda problem: BrickyardError(f"{folder} holds no usable student: {problem}")


def _read_config(table: dict[str, Any]) -> ExportedConfig:
    kind = table.pop("kind", _FIRST_KIND)
    try:
        cls = KINDS[str(kind)]
    except KeyError:
        raise BrickyardError(
            f"unknown kind of student {kind!r}; installed: {', '.join(KINDS)}; was it exported by a newer"
            " version, or with a plugin that is missing here?"
        ) from None
    return cls.from_table(table)
