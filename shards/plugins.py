"""Parts by name, ours and those that third parties bring, found by entry points: sources, students, objectives.

Our packages were once imported as `ingest`, `shards`, `train` ... A plugin that still does so is loaded with a warning:
those names lead to `brickyard.ingest` and so on, unless something else of such a name is there and serves.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

OLD_NAMES = frozenset({"ingest", "curate", "shards", "train", "evaluate", "infra"})


def plugin_names(group: str) -> list[str]:
    """Names of all installed parts of a kind, ours and third parties', such as of "brickyard.sources"."""
    return sorted({entry.name for entry in entry_points(group=group)})


class Registry(Mapping[str, T]):
    """The parts of a kind by name; one is imported when it is asked for, not before.

    Args:
        group: of entry points, such as "brickyard.objectives".
    """

    def __init__(self, group: str) -> None:
        self._group = group

    def __getitem__(self, name: str) -> T:
        found: T = find_plugin(self._group, name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(plugin_names(self._group))

    def __len__(self) -> int:
        return len(plugin_names(self._group))

    def __contains__(self, name: object) -> bool:
        return name in plugin_names(self._group)


def find_plugin(group: str, name: str) -> Any:
    """What the entry point of that name stands for; raises KeyError where there is none."""
    for entry in _entries(group, tuple(sys.path)):
        if entry.name == name:
            return _load(entry)
    raise KeyError(name)


@lru_cache(maxsize=64)
def _entries(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What is installed along this path of modules; reading all of it takes 20 to 30 ms, and a build asks for each
    scene."""
    return tuple(entry_points(group=group))


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError as problem:
        if (problem.name or "").partition(".")[0] not in OLD_NAMES:
            raise
        module = entry.value.partition(":")[0]
        warnings.warn(
            f"{module} imports {problem.name}, which is called brickyard.{problem.name} now; "
            "the old name will go with the next version",
            FutureWarning,
            stacklevel=3,
        )
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())  # it stays: functions of the plugin may import later
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in OLD_NAMES}
    sys.meta_path.insert(0, first := _OldNames())
    try:
        return entry.load()
    finally:
        sys.meta_path.remove(first)
        sys.modules.update(hidden)


class _OldNames(MetaPathFinder, Loader):
    """`ingest.source` is `brickyard.ingest.source`: the same module, under a second name."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in OLD_NAMES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(f"brickyard.{spec.name}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The import system has given the module another spec: its own comes back."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state
