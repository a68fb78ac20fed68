"""Reasons for people: what befell a thousand scenes for one reason is one line, not a thousand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN = 3
"""Keys that a line names before it says '...'."""

_NUMBER = re.compile(r"[0-9a-f]{16,}|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Group:
    """Scenes (or files) with one kind of reason.

    Attributes:
        keys: all of them, in the order given.
        reason: of the first one, as it is.
        same: whether all the others have the very same text.
    """

    keys: tuple[str, ...]
    reason: str
    same: bool

    def line(self, unit: str = "scenes") -> str:
        """The group in one line: `749 scenes (a/b, a/c, a/d, ...): reason`."""
        if len(self.keys) == 1:
            return f"{self.keys[0]}: {self.reason}"
        more = ", ..." if len(self.keys) > SHOWN else ""
        link = "" if self.same else "such as "
        return f"{len(self.keys):,} {unit} ({', '.join(self.keys[:SHOWN])}{more}): {link}{self.reason}"


def kind(key: str, reason: str) -> str:
    """The reason without what tells one scene from the next: its own names as *, numbers and hashes as #."""
    names = {part for part in (key.partition("/")[2], *key.split("/")[1:]) if len(part) > 2 and not part.isdigit()}
    for name in sorted(names, key=len, reverse=True):
        reason = reason.replace(name, "*")
    return _NUMBER.sub("#", reason)


def grouped(items: Iterable[tuple[str, str]]) -> list[Group]:
    """(key, reason) of each scene -> one group for each dataset and kind of reason, in order of appearance."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key, reason in items:
        found.setdefault((key.partition("/")[0], kind(key, reason)), []).append((key, reason))
    return [
        Group(tuple(key for key, _ in group), group[0][1], len({reason for _, reason in group}) == 1)
        for group in found.values()
    ]


def sentence(items: Iterable[tuple[str, str]], unit: str = "scenes", most: int = 3) -> str:
    """The first kinds of reasons of (key, reason) pairs, for the text of an error."""
    groups = grouped(items)
    more = f"; and {len(groups) - most} more reasons" if len(groups) > most else ""
    return "; ".join(group.line(unit) for group in groups[:most]) + more
