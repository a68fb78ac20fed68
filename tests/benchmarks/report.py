"""What every benchmark needs: a clock, tables, and a record of where and on what a number was taken.

Records are appended to `results/<benchmark>.json`, never overwritten, so that a number in a document can be traced to a
date, a commit and a processor, and a later run can be held against it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    "numpy", "torch", "pyarrow", "numcodecs", "laspy", "lazrs", "webdataset", "mosaicml-streaming", "litdata",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit, with "+changes" where the tree differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD") or "unknown"
    return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def append(benchmark: str, settings: dict[str, Any], rows: Sequence[dict[str, Any]], **more: Any) -> Path:
    """Append one record to results/<benchmark>.json; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{benchmark}.json"
    records = json.loads(path.read_text()) if path.exists() else []
    records.append({**environment(), "settings": settings, "rows": list(rows), **more})
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(records, indent=1) + "\n")
    temporary.replace(path)
    return path


def seconds(work: Callable[[], Any], *, window: float = 0.3, least: int = 5) -> float:
    """Median wall time of a call, over at least `least` calls and `window` seconds, after one that is not counted."""
    work()
    times: list[float] = []
    while len(times) < least or sum(times) < window:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def arguments(text: str | None, **defaults: int) -> argparse.ArgumentParser:
    """A parser with `--<name> <integer>` for every default, and `--dry` (do not append to the results)."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--dry", action="store_true", help="print, but append nothing to the results")
    return parser


def table(title: str, rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Print rows under aligned headings.

    Args:
        columns: key of a row -> format of its values (as in f-strings) and heading, such as {"bytes": "6.2f B/point"}.
            A key that a row lacks, or that is None, is printed as "-".
    """
    headings, cells = [], []
    for spec in columns.values():
        headings.append(spec.partition(" ")[2])
    for row in rows:
        cells.append([_cell(row.get(key), spec.partition(" ")[0]) for key, spec in columns.items()])
    widths = [max(len(line[i]) for line in [headings, *cells]) for i in range(len(headings))]
    print(f"\n{title}")
    for line in [headings, ["-" * width for width in widths], *cells]:
        first, rest = line[0].ljust(widths[0]), [text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([first, *rest]).rstrip(), flush=True)


def markdown(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """The same as a table for documents; `columns` as in `table`."""
    lines = [[spec.partition(" ")[2] for spec in columns.values()], ["---"] * len(columns)]
    lines += [[_cell(row.get(key), spec.partition(" ")[0]) for key, spec in columns.items()] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Any, spec: str) -> str:
    if value is None:
        return "-"
    return format(value, "" if spec == "s" else spec)
