"""The folder of a run: what it was made of, what it measured, what it left.

    run/config.json        the whole configuration, and fingerprints of the corpus and of the selection
        environment.json   versions and hardware
        metrics.jsonl      one line per logged step; the same numbers are in tensorboard/
        checkpoints/       see `train.checkpoint`
        final/             the student, and summary.json, written last: it says that the student is whole

Starting a run in a folder goes on from its newest checkpoint, if configuration, corpus and selection are the same;
otherwise it is refused, with the difference. What does not decide the numbers (`FREE`) may change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from shards.build import differences
from shards.corpus import Corpus
from shards.errors import RecipeError
from train.checkpoint import checkpoints
from train.distributed import Group
from train.objectives.objective import ObjectiveConfig
from train.student import Student, export_student

FREE = (
    "checkpoint_every", "keep_last", "keep_best", "log_every", "threads", "bad_scenes", "device", "explode_factor",
)  # fmt: skip
_PACKAGES = ("brickyard", "torch", "spconv-cu120", "spconv-cu126", "numpy", "pyarrow", "transformers", "pillow", "ray")


def selection_fingerprint(rows: NDArray[np.int64]) -> str:
    """Digest (XXH3, 128 bits) of the rows and their order."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(rows, "<i8").tobytes())


class RunFolder:
    """Only rank 0 writes.

    Args:
        out: the folder.
        config: the loop's settings, a dataclass with defaults.
        rows: of the index, in their order, that are trained on.
    """

    def __init__(
        self,
        out: Path,
        group: Group,
        *,
        config: Any,
        settings: ObjectiveConfig,
        corpus: Corpus,
        rows: NDArray[np.int64],
    ) -> None:
        self.out, self.group, self.checkpoints = out, group, out / "checkpoints"
        identity = {
            "train": dataclasses.asdict(config),
            "objective": {"name": settings.name, **dataclasses.asdict(settings)},
            "corpus": corpus.fingerprint,
            "selection": selection_fingerprint(rows),
        }
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._defaults = dataclasses.asdict(type(config)())

    def open(self, *, resume: bool) -> Path | None:
        """Make the folder if need be; the checkpoint to go on from, if there is one.

        Raises:
            RecipeError: the folder holds another run, or any run if `resume` is False.
        """
        path, saved = self.out / "config.json", checkpoints(self.checkpoints)
        if saved and not resume:
            raise RecipeError(f"{self.out} already holds a run; resume it, or choose another folder")
        if saved:
            changed = differences(_numerics(self._known(json.loads(path.read_text()))), _numerics(self.identity))
            if changed:
                raise RecipeError(f"{self.out} holds another run; resuming would mix them:\n  " + "\n  ".join(changed))
            return saved[-1]
        if self.group.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.identity, indent=2) + "\n")
            (self.out / "environment.json").write_text(json.dumps(environment(self.group), indent=2) + "\n")
        self.group.barrier()
        return None

    def _known(self, before: dict[str, Any]) -> dict[str, Any]:
        """A config.json of an older version: the settings that it does not have were what they are by default."""
        return {"selection": self.identity["selection"], **before, "train": self._defaults | before["train"]}

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that is over."""
        path = self.out / "final" / "summary.json"
        return json.loads(path.read_text()) if path.exists() else None

    def finish(self, student: Student, summary: dict[str, Any]) -> None:
        """Export the student, then say so."""
        if self.group.rank == 0:
            final = self.out / "final"
            final.mkdir(exist_ok=True)
            export_student(student, final)
            (final / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        self.group.barrier()


def environment(group: Group) -> dict[str, Any]:
    """What a run depended on besides its configuration."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    cuda = group.device.type == "cuda"
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "device": torch.cuda.get_device_name(group.device) if cuda else processor(),
        "cuda": torch.version.cuda if cuda else None,
        "threads": torch.get_num_threads(),
        "world": group.world,
        "packages": versions,
    }


def processor() -> str:
    """Name, family and model of the CPU, as far as the system tells; virtual machines give vague names."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    if "model name" in found:
        return f"{found['model name']}, family {found.get('cpu family')}, model {found.get('model')}"
    return platform.processor() or platform.machine()


def _numerics(identity: dict[str, Any]) -> dict[str, Any]:
    """What decides the numbers of a run; the rest may change when it is resumed."""
    return {**identity, "train": {k: v for k, v in identity["train"].items() if k not in FREE}}
