"""The tables of the documentation, made from the newest records below `results/`: pages and measurements cannot part.

python -m tests.benchmarks.comparison           rewrite the marked sections of the pages in PAGES
python -m tests.benchmarks.comparison --check   say which of them differ, and fail

A section stands between `<!-- NAME: made by ... -->` and `<!-- end NAME -->`. Text around it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    comparison_curation,
    comparison_distillation,
    comparison_features,
    comparison_ponder,
    comparison_rayzer,
    comparison_sonata,
    comparison_speed,
    planning,
    raw_damage,
    superpixels,
)
from tests.benchmarks.report import RESULTS, markdown

DOCS = Path(__file__).parents[2] / "docs"
Records = dict[str, list[dict[str, Any]]]
"""Benchmark -> its records, oldest first."""

HARM = ("wrong", "lost")
BREAK = ("crash", "slow", "large")


def records(folder: Path = RESULTS) -> Records:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def corruption(found: Records) -> str:
    """One row for each format: the parts of its files together."""
    totals: dict[str, dict[str, int]] = {}
    for row in comparison_features.damage(found):
        total = totals.setdefault(row["format"], dict.fromkeys(("cases", "detected", "harmless", *HARM, *BREAK), 0))
        for name in total:
            total[name] += row[name]
    rows = [{"format": name, **total, "broke": sum(total[b] for b in BREAK)} for name, total in totals.items()]
    return markdown(rows, {
        "format": "s format", "cases": "d cases", "detected": "d detected", "harmless": "d harmless",
        "wrong": "d wrong sample", "lost": "d samples lost", "broke": "d crash, > 5 s or > 1 GiB",
    })  # fmt: skip


def readers(found: Records) -> str:
    """The newest record of each kind of data, one table below the other."""
    newest = {record["settings"]["data"]: record for record in found["readers"]}
    parts = []
    for data, record in sorted(newest.items()):
        command = "python -m tests.benchmarks.readers" + (" --samples FOLDER" if "real" in data else "")
        parts.append(f"{data.capitalize()} (`{command}`, {place(record)}):\n\n" + markdown(record["rows"], {
            "what": "s scene", "ours_ms": ".1f ours, ms", "tool": "s beside", "theirs_ms": ".1f ms",
            "ratio": ".2f times as fast", "bytes_ms": ".2f bare bytes, ms", "of_floor": ".1f times the bytes",
        }))  # fmt: skip
    return "\n\n".join(parts)


def damage(found: Records) -> str:
    """The newest record."""
    record = found["raw_damage"][-1]
    return f"`python -m tests.benchmarks.raw_damage`, {place(record)}:\n\n" + raw_damage.pivot(record["rows"])


def plan(found: Records) -> str:
    """The newest record."""
    record = found["planning"][-1]
    return f"{place(record)}:\n\n" + markdown(record["rows"], planning.COLUMNS)


def partitions(found: Records) -> str:
    """The newest record."""
    record = found["superpixels"][-1]
    return f"`python -m tests.benchmarks.superpixels`, {place(record)}:\n\n" + superpixels.page(record)


def place(record: dict[str, Any]) -> str:
    """Date, commit and machine of a record."""
    return f"{record['date'][:10]}, commit {record['commit'][:7]}, {record['cores']} cores of an {record['cpu']}"


Section = Callable[[Records], str]
PAGES: dict[str, dict[str, Section]] = {
    "comparison.md": {
        "aims": comparison_speed.aims,
        "features": comparison_features.features,
        "corruption": corruption,
        **comparison_speed.SECTIONS,
    },
    "superpixels.md": {"superpixels": partitions},
    "datasets.md": {"damage": damage, "readers": readers},
    "recipes.md": {"planning": plan},
    "curation.md": comparison_curation.SECTIONS,
    "distillation.md": comparison_distillation.SECTIONS,
    "ponder.md": comparison_ponder.SECTIONS,
    "rayzer.md": comparison_rayzer.SECTIONS,
    "sonata.md": comparison_sonata.SECTIONS,
}


def render(text: str, sections: dict[str, Section], found: Records) -> str:
    """The page with all marked sections made anew.

    Raises:
        ValueError: a section has no place in the page.
    """
    for name, section in sections.items():
        pattern = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end {name} -->)", re.DOTALL)
        text, count = pattern.subn(partial(_between, body=section(found)), text)
        if count != 1:
            raise ValueError(f"section {name!r} stands {count} times in the page")
    return text


def _between(match: re.Match[str], *, body: str) -> str:
    return f"{match[1]}\n{body}\n\n{match[2]}"


def differing(found: Records, *, write: bool = False) -> Sequence[str]:
    """Names of the pages that are not what the records give; they are with `write`, afterwards."""
    names = []
    for name, sections in PAGES.items():
        path = DOCS / name
        old = path.read_text()
        new = render(old, sections, found)
        if new != old:
            names.append(name)
            if write:
                path.write_text(new)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page differs")
    options = parser.parse_args()
    names = differing(records(), write=not options.check)
    print("\n".join(f"{'differs' if options.check else 'rewritten'}: docs/{name}" for name in names) or "nothing to do")
    sys.exit(1 if names and options.check else 0)


if __name__ == "__main__":
    main()
