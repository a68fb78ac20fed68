"""Sections of docs/ponder.md: whether one room is learned."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.ponder_room import COLUMNS
from tests.benchmarks.report import markdown

Records = dict[str, list[dict[str, Any]]]


def room(found: Records) -> str:
    """The newest record in float32 and, where there is one, in bfloat16."""
    newest = {bool(record["settings"]["bf16"]): record for record in found["ponder_room"]}
    parts = []
    for short, record in sorted(newest.items()):
        what = "networks in bfloat16" if short else "float32"
        where = f"{record['date'][:10]}, commit {record['commit'][:7]}, {record['cpu']}"
        parts.append(f"{what.capitalize()} ({where}):\n\n" + markdown(record["rows"], COLUMNS))
    return "\n\n".join(parts)


SECTIONS = {"ponder_room": room}
