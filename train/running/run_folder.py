"""The folder of a run: what it was made of, what it measured, what it left.

    run/config.json        the whole configuration, and fingerprints of the corpora and of the selections
        environment.json   versions and hardware
        metrics.jsonl      one line per logged step; the same numbers are in tensorboard/
        checkpoints/       see `train.running.checkpoint`
        final/             the student, and summary.json, written last: it says that the student is whole; what an
                           objective exports beside it lies in folders of their own there

Every file is written whole or not at all, but for metrics.jsonl, which grows by lines. Starting a run in a folder goes
on from its newest checkpoint, if configuration, corpus and selection are the same; otherwise it is refused, with the
difference. What does not decide the numbers (`FREE`) may change; other settings of the loop may, where the caller gives
the change a name (a longer run, another learning rate), which is kept in config.json with the step it begins at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from brickyard.shards.build import differences
from brickyard.shards.documents import write_document
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.visits import Portion, shares
from brickyard.train.objectives.objective import ObjectiveConfig
from brickyard.train.running.checkpoint import checkpoints, remove_leftovers
from brickyard.train.running.distributed import Group
from brickyard.train.running.records import CONFIG, SUMMARY, read_config, read_summary
from brickyard.train.students.base import Exported
from brickyard.train.students.export import export_student

FREE = (
    "checkpoint_every", "keep_last", "keep_best", "log_every", "logs", "threads", "bad_scenes",
    "unfit_scenes", "device", "explode_factor",
)  # fmt: skip
FIXED = ("seed", "optimiser", "budget", "dataset", "split")
"""Settings of the loop that no continuation changes: the optimiser's state and the order of scenes belong to them."""
CONTINUATIONS = "continuations"
DATA = ("corpus", "selection", "shares")
"""What config.json and the summary say of the data; the fingerprints of several corpora stand between slashes."""
_PACKAGES = ("brickyard", "torch", "spconv-cu120", "spconv-cu126", "numpy", "pyarrow", "transformers", "pillow", "ray")


def selection_fingerprint(rows: NDArray[np.int64]) -> str:
    """Digest (XXH3, 128 bits) of the rows and their order."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(rows, "<i8").tobytes())


def _data(portions: Sequence[Portion]) -> dict[str, Any]:
    """What is trained on, in which order and, of a mixture, how much of each, as JSON."""
    rows = [np.arange(len(portion.corpus)) if portion.rows is None else portion.rows for portion in portions]
    found: dict[str, Any] = {
        "corpus": "/".join(portion.corpus.fingerprint for portion in portions),
        "selection": "/".join(map(selection_fingerprint, rows)),
    }
    if len(portions) > 1:
        found["shares"] = shares(np.array([portion.weight for portion in portions], np.float64)).tolist()
    return found


class RunFolder:
    """Only rank 0 writes.

    Args:
        out: the folder.
        config: the loop's settings, a dataclass with defaults.
        portions: what is trained on; rows in their order.
    """

    def __init__(
        self,
        out: Path,
        group: Group,
        *,
        config: Any,
        settings: ObjectiveConfig,
        portions: Sequence[Portion],
    ) -> None:
        self.out, self.group, self.checkpoints = out, group, out / "checkpoints"
        self._made_of = {"train": config, "objective": settings}
        self.identity: dict[str, Any] = {**_plain(self._made_of), **_data(portions)}

    def open(self, *, resume: bool, continue_with: str | None = None) -> Path | None:
        """Make the folder if need be; the checkpoint to go on from, if there is one.

        Args:
            continue_with: the name of a continuation, in which settings of the loop differ.

        Raises:
            RecipeError: the folder holds another run, or any run if `resume` is False.
        """
        saved = checkpoints(self.checkpoints)
        if saved and not resume:
            raise RecipeError(f"{self.out} already holds a run; resume it, or choose another folder")
        if saved:
            before = {"selection": self.identity["selection"], **_aged(read_config(self.out), self._made_of)}
            past = before.pop(CONTINUATIONS, [])
            changed = differences(_numerics(before), _numerics(self.identity))
            if changed and continue_with is None:
                raise RecipeError(f"{self.out} holds another run; resuming would mix them:\n  " + "\n  ".join(changed))
            if changed:
                self._refuse_fixed(changed)
                step = int(saved[-1].name.removeprefix("step-"))
                past = [*past, {"name": continue_with, "step": step, "changed": changed}]
                if self.group.rank == 0:
                    write_document(self.out / CONFIG, {**self.identity, CONTINUATIONS: past})
        elif self.group.rank == 0:
            write_document(self.out / CONFIG, self.identity)
            write_document(self.out / "environment.json", environment(self.group))
        if self.group.rank == 0:
            remove_leftovers(self.checkpoints)
        self.group.barrier()
        return saved[-1] if saved else None

    def _refuse_fixed(self, changed: Sequence[str]) -> None:
        fixed = tuple(f"train.{name}" for name in FIXED)
        if bad := [line for line in changed if not line.startswith("train.") or line.startswith(fixed)]:
            raise RecipeError(
                f"{self.out}: a continuation may change settings of the loop, but not the objective, the data or"
                f" {', '.join(FIXED)}:\n  " + "\n  ".join(bad)
            )

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that is over. One that is damaged is none: it is made again, and so is the student."""
        try:
            return read_summary(self.out)
        except BrickyardError as problem:
            if self.group.rank == 0:
                print(problem, file=sys.stderr, flush=True)
            return None

    def finish(
        self, student: Exported, summary: dict[str, Any], companions: Mapping[str, Exported] | None = None
    ) -> None:
        """Export the student, and each of its companions into a folder of its own, then say so."""
        if self.group.rank == 0:
            path = self.out / SUMMARY
            path.unlink(missing_ok=True)
            export_student(student, path.parent)
            for name, companion in (companions or {}).items():
                export_student(companion, path.parent / name)
            write_document(path, summary)
        self.group.barrier()


def recipe_differences(run: Path, config: Any, settings: ObjectiveConfig) -> list[str]:
    """Why a recipe cannot have made a run, one line for each setting that differs; empty if it can.

    What does not decide the numbers (`FREE`) may differ, and the seed, which is often given beside the recipe.
    """
    made_of = {"train": config, "objective": settings}
    saved, wanted = (_numerics(table) for table in (_aged(read_config(run), made_of), _plain(made_of)))
    for table in (saved, wanted):
        table["train"].pop("seed")
    return differences({part: saved[part] for part in wanted}, wanted)


def _plain(made_of: dict[str, Any]) -> dict[str, Any]:
    """Configs as they stand in config.json."""
    settings = made_of["objective"]
    table = {
        "train": dataclasses.asdict(made_of["train"]),
        "objective": {"name": settings.name, **dataclasses.asdict(settings)},
    }
    plain: dict[str, Any] = json.loads(json.dumps(table, default=str))  # paths are text there
    return plain


def _aged(saved: dict[str, Any], current: Any) -> dict[str, Any]:
    """A config.json of an older version: settings that it does not have were what they are by default, or what a
    field's metadata says they were "before" there was a choice.

    Args:
        current: configs (dataclasses, or mappings with them) that name the settings there are now.
    """
    if isinstance(current, dict):
        return saved | {k: _aged(saved[k], v) for k, v in current.items() if isinstance(saved.get(k), dict)}
    if not dataclasses.is_dataclass(current):
        return saved
    result = dict(saved)
    for field in dataclasses.fields(current):
        value = getattr(current, field.name)
        if field.name not in saved:
            result |= _default(field)
        elif dataclasses.is_dataclass(value) and isinstance(saved[field.name], dict):
            result[field.name] = _aged(saved[field.name], value)
    return result


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """{name: default} of a setting, as it stands in config.json; nothing for one that has none."""
    default: Any
    if "before" in field.metadata:
        default = field.metadata["before"]
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        default = field.default
    else:
        return {}
    made_of = dataclasses.is_dataclass(default) and not isinstance(default, type)
    plain = dataclasses.asdict(default) if made_of else default
    table: dict[str, Any] = json.loads(json.dumps({field.name: plain}, default=str))
    return table


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
