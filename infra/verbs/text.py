"""Numbers and tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brickyard.shards.reasons import grouped


def size(count: int | float | None) -> str:
    """Bytes with a binary prefix."""
    if count is None:
        return "unknown"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def duration(seconds: float | None) -> str:
    """Seconds as a person would say them."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *rows]
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def reasons(title: str, items: Sequence[Mapping[str, str]], unit: str) -> list[str]:
    """A line for each kind of reason of {"key", "reason"} entries, however many entries share it."""
    return [f"{title}: {group.line(unit)}" for group in grouped((item["key"], item["reason"]) for item in items)]


def about(text: str) -> str:
    """An estimate, marked as one."""
    return text if text == "unknown" else f"~{text}"
