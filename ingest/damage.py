"""Which damage to its raw files a source notices: every kind of file missing, cut, zeroed in part, and exchanged.

    def test_damage_is_noticed(tmp_path):
        write_a_few_scenes(tmp_path)
        assert_damage_is_noticed(SOURCE, str(tmp_path))

The damaged dataset is planned and read like any other. What may come of it: the scene is quarantined or missing, what
was lost is counted (in `Scene.dropped` or a `Notice`), or every value is as if nothing had happened. A scene with other
values and not a word is what must not be.

It damages links in a temporary folder, never the folder itself, and costs (places + 3) plans and readings for each kind
of file.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from brickyard.ingest.contract import watch_store
from brickyard.ingest.elsewhere import mirror
from brickyard.ingest.sameness import first_difference
from brickyard.ingest.source import Missing, Notice, SceneRef, Source
from brickyard.shards.errors import BrickyardError, RawDataError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

BLOCK = 4096
"""Bytes that a lost page of a file system or a failed write leaves as zeros."""

NAMELESS = "nothing in the format names the scene or what it was recorded with: only published digests could tell"
"""The usual reason why an exchange is undetectable."""

TERMS = "LICENSE"
"""Says under which terms the data are used; damage to it changes no value of a scene."""

Outcome: TypeAlias = Literal["equal", "quarantined", "missing", "absent", "counted", "undetectable", "UNNOTICED"]
OUTCOMES: tuple[Outcome, ...] = ("equal", "quarantined", "missing", "absent", "counted", "undetectable", "UNNOTICED")
"""From the best to the worst. "absent": without this file the dataset has less, no list of its own promises more, and
what is not there is None (or empty) in the scene, never a value. "undetectable": passed unnoticed, and the caller says
why nothing in the bytes could tell."""


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """What came of one damage to one kind of file.

    Attributes:
        role: of the file in `SceneRef.files`, or its name where it is a table of the plan, numbers as #.
        path: the file that was damaged, relative to the root.
        damage: "missing", "cut", "zeroed" or "exchanged".
        outcome: the worst of all places.
        note: what was said, or which value changed.
    """

    role: str
    path: str
    damage: str
    outcome: Outcome
    note: str


def assert_damage_is_noticed(
    source: Source,
    folder: str,
    options: object | None = None,
    *,
    places: int = 10,
    undetectable: Mapping[tuple[str, str], str] | None = None,
) -> list[Damaged]:
    """Damage one file of each kind in each way.

    Args:
        folder: path of the dataset's root; several scenes of each kind, so that files have neighbours.
        options: of type `source.options`; its defaults if None.
        places: how many blocks are zeroed in each file, one at a time.
        undetectable: (role, damage) -> why nothing in the bytes could tell.

    Returns:
        One entry for each kind of file and damage, in the order of the plan's files.

    Raises:
        AssertionError: all that passed unnoticed, and all `undetectable` that was noticed or is no file.
    """
    excused = dict(undetectable or {})
    found, wrong = [], []
    for entry in damage_matrix(source, folder, options, places=places):
        why = excused.pop((entry.role, entry.damage), None)
        if entry.outcome == "UNNOTICED" and why is not None:
            entry = replace(entry, outcome="undetectable", note=why)
        elif why is not None:
            wrong.append(f"{entry.role} {entry.damage} is called undetectable and is {entry.outcome}: {entry.note}")
        elif entry.outcome == "UNNOTICED":
            wrong.append(f"{entry.role} ({entry.path}) {entry.damage}: {entry.note}")
        found.append(entry)
    wrong += [f"{role} {damage} is called undetectable and was not tried" for role, damage in excused]
    if wrong:
        raise AssertionError(f"{source.dataset}: damage passes unnoticed:\n" + "\n".join(wrong))
    return found


def damage_matrix(source: Source, folder: str, options: object | None = None, *, places: int = 10) -> list[Damaged]:
    """What comes of each damage to one file of each kind; see `assert_damage_is_noticed`."""
    options = source.options() if options is None else options
    with tempfile.TemporaryDirectory(prefix="brickyard-damage-") as place:
        world = _World(source, options, Path(place).resolve() / Path(Store(folder).path("")).name)
        mirror(folder, world.root)
        world.remember()
        return [entry for role, path in world.kinds() for entry in _damages(world, role, path, places)]


def _damages(world: _World, role: str, path: str, places: int) -> Iterator[Damaged]:
    link = world.root / path
    original = link.readlink()
    data = original.read_bytes()
    neighbour = world.neighbour(path, data)
    half = len(data) // 2
    attempts: list[tuple[str, bytes | None]] = [("missing", None), ("cut", data[:half])]
    if half > BLOCK:
        attempts.append(("cut", data[: half // BLOCK * BLOCK]))  # where downloads and copies stop
    starts = {round(i * max(0, len(data) - BLOCK) / max(1, places - 1)) // BLOCK * BLOCK for i in range(places)}
    for start in sorted(starts):
        end = min(start + BLOCK, len(data))
        attempts.append(("zeroed", data[:start] + bytes(end - start) + data[end:]))
    if neighbour is not None:
        attempts.append(("exchanged", neighbour.readlink().read_bytes()))
    results: dict[str, list[tuple[Outcome, str]]] = {}
    for damage, changed in attempts:
        if changed == data:
            continue
        link.unlink()
        if changed is not None:
            link.write_bytes(changed)
        if damage == "exchanged" and neighbour is not None:
            theirs = neighbour.readlink()
            neighbour.unlink()
            neighbour.write_bytes(data)
        try:
            results.setdefault(damage, []).append(world.judge(path, damage))
        finally:
            link.unlink(missing_ok=True)
            link.symlink_to(original)
            if damage == "exchanged" and neighbour is not None:
                neighbour.unlink()
                neighbour.symlink_to(theirs)
    for damage, each in results.items():
        outcome, note = max(each, key=lambda pair: OUTCOMES.index(pair[0]))
        counts = Counter(outcome for outcome, _ in each)
        summary = ", ".join(f"{count} {name}" for name, count in counts.items())
        note = f"{note} ({summary})" if len(counts) > 1 else note
        yield Damaged(role=role, path=path, damage=damage, outcome=outcome, note=note)


class _World:
    """The undamaged dataset in a folder of links, and how a damaged one compares with it."""

    def __init__(self, source: Source, options: Any, root: Path) -> None:
        self.source, self.options, self.root = source, options, root
        self.refs: dict[str, SceneRef] = {}
        self._told: set[tuple[str, str]] = set()
        self._tables: list[str] = []
        self._scenes: dict[str, Scene] = {}

    def remember(self) -> None:
        """Plan and read what is whole."""
        with watch_store(str(self.root)) as watch:
            items = list(self.source.plan(Store(self.root), self.options))
        self.refs = {item.key: item for item in items if isinstance(item, SceneRef)}
        self._told = {(item.key, item.reason) for item in items if isinstance(item, Missing)}
        payloads = {path for ref in self.refs.values() for path in ref.files.values()}
        self._tables = [path for path in watch.bytes if path not in payloads and path != TERMS]
        for key in self.refs:
            self._scenes[key] = self._read(self.refs[key])

    def _read(self, ref: SceneRef) -> Scene:
        return self.source.read(ref).validate()

    def kinds(self) -> list[tuple[str, str]]:
        """(role, path) of the first file of each kind, tables last."""
        found: dict[tuple[str, str], str] = {}
        for key, ref in self.refs.items():
            roles = {path: role for role, path in ref.files.items()}
            read = [file.path for file in self._scenes[key].identity.sources]
            for path in dict.fromkeys([*roles, *(path for path in read if path != TERMS)]):
                found.setdefault((_kind(roles.get(path, Path(path).name)), Path(path).suffix), path)
        paths = set(found.values())
        for path in self._tables:
            if path not in paths:
                found.setdefault((_kind(Path(path).name), Path(path).suffix), path)
        return [(role, path) for (role, _), path in found.items()]

    def neighbour(self, path: str, data: bytes) -> Path | None:
        """Another file of the same kind: the same role of another scene, or the next one in the folder."""
        roles = {role for ref in self.refs.values() for role, file in ref.files.items() if file == path}
        others = [ref.files[role] for ref in self.refs.values() for role in roles if role in ref.files]
        beside = sorted((self.root / path).parent.iterdir())
        others += [other.relative_to(self.root).as_posix() for other in beside if other.suffix == Path(path).suffix]
        for other in others:
            link = self.root / other
            if other != path and link.is_symlink() and link.is_file() and link.read_bytes() != data:
                return link
        return None

    def judge(self, path: str, damage: str) -> tuple[Outcome, str]:
        """The outcome of planning and reading now that `path` is damaged."""
        try:
            items = list(self.source.plan(Store(self.root), self.options))
        except BrickyardError as problem:
            return "quarantined", f"the source: {problem}"
        except Exception as problem:
            return "UNNOTICED", f"planning raises {type(problem).__name__} ({problem})"
        refs = {item.key: item for item in items if isinstance(item, SceneRef)}
        told = [item for item in items if isinstance(item, Missing) and (item.key, item.reason) not in self._told]
        lost = {item.key for item in items if isinstance(item, Missing) and not isinstance(item, Notice)}
        results: list[tuple[Outcome, str]] = []
        for item in told[:1]:
            results.append(("counted" if isinstance(item, Notice) else "missing", item.reason))
        vanished = [key for key in self.refs if key not in refs and key not in lost]
        if vanished and not told:
            alone = damage == "missing" and all(self._depends_only_on(key, path) for key in vanished)
            results.append(("absent", "no list names it") if alone else ("UNNOTICED", f"{vanished[0]} vanishes"))
        results += [self._compare(key, refs[key], told, damage) for key in self._concerned(path, refs) if key in refs]
        return max(results, key=lambda pair: OUTCOMES.index(pair[0]), default=("equal", ""))

    def _depends_only_on(self, key: str, path: str) -> bool:
        """Whether a scene has no other file that no other scene has."""
        shared = {file for other, ref in self.refs.items() if other != key for file in ref.files.values()}
        return set(self.refs[key].files.values()) - shared <= {path}

    def _concerned(self, path: str, refs: Mapping[str, SceneRef]) -> list[str]:
        """The scenes to read: the first that has this file, and the first ones that are planned in another way now."""
        users = [
            key for key, ref in self.refs.items()
            if path in ref.files.values() or any(file.path == path for file in self._scenes[key].identity.sources)
        ]  # fmt: skip
        changed = [key for key, ref in self.refs.items() if key in refs and refs[key] != ref]
        return list(dict.fromkeys([*users[:2], *changed[:2]]))

    def _compare(self, key: str, ref: SceneRef, told: list[Missing], damage: str) -> tuple[Outcome, str]:
        whole = self._scenes[key]
        try:
            scene = self._read(ref)
        except RawDataError as problem:
            return "quarantined", str(problem)
        except Exception as problem:
            return "UNNOTICED", f"reading raises {type(problem).__name__} ({problem})"
        counted = [what for what, count in scene.dropped.items() if count > whole.dropped.get(what, 0)]
        if counted:
            return "counted", counted[0]
        identity = replace(scene.identity, sources=whole.identity.sources)
        scene = replace(scene, identity=identity, dropped=whole.dropped)
        difference = first_difference(whole, scene)
        if difference is None:
            return "equal", ""
        if damage == "missing" and _only_less(whole, scene):
            return "absent", f"{difference} is not there"
        return ("counted", told[0].reason) if told else ("UNNOTICED", f"{key}: {difference} differs, nothing is said")


def _only_less(whole: Any, now: Any) -> bool:
    """Whether the second differs from the first by nothing but what is None, empty or "none" in it."""
    if now is None or (isinstance(now, str) and now == "none") or (isinstance(now, tuple | Mapping) and not now):
        return True
    if is_dataclass(whole) and type(whole) is type(now):
        return all(_only_less(getattr(whole, entry.name), getattr(now, entry.name)) for entry in fields(whole))
    if isinstance(whole, Mapping):
        return all(key in whole and _only_less(whole[key], value) for key, value in now.items())
    if isinstance(whole, tuple) and len(whole) == len(now):
        return all(map(_only_less, whole, now))
    return first_difference(whole, now) is None


def _kind(role: str) -> str:
    return re.sub(r"[0-9a-f]{16,}|\d+", "#", role)
