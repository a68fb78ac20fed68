"""The tables of docs/curation.md: what figures mean, from the code, and what curators find, from the newest record."""

from __future__ import annotations

from typing import Any

from brickyard.curate.describe.describe import FIGURES
from tests.benchmarks.curation import COLUMNS, SCALE
from tests.benchmarks.report import markdown

Records = dict[str, list[dict[str, Any]]]


def figures(_: Records) -> str:
    """Name, unit, meaning and version of every figure."""
    rows = [{"name": f"`{f.name}`", "unit": f.unit, "meaning": f.meaning, "version": f.version} for f in FIGURES]
    return markdown(rows, {"name": "s figure", "unit": "s unit", "meaning": "s what it is", "version": "d version"})


def defects(found: Records) -> str:
    """The newest record that has worlds."""
    record = [record for record in found["curation"] if record["rows"]][-1]
    return f"{_place(record)}:\n\n" + markdown(record["rows"], COLUMNS)


def scale(found: Records) -> str:
    """The newest record."""
    record = found["curation"][-1]
    return f"{_place(record)}:\n\n" + markdown([record["scale"]], SCALE)


def _place(record: dict[str, Any]) -> str:
    return f"{record['date'][:10]}, commit {record['commit'][:7]}, {record['cores']} cores of an {record['cpu']}"


SECTIONS = {"figures": figures, "defects": defects, "scale": scale}
