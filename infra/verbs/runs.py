"""`brickyard runs`: trainings side by side, what protocols measured of them, and the settings in which they differ."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brickyard.evaluate.records import LINEAR_PROBE, probe_of, read_results
from brickyard.evaluate.show.summary import watched_names
from brickyard.evaluate.table import side_by_side
from brickyard.infra.verbs.text import duration, size, table
from brickyard.shards.errors import BrickyardError
from brickyard.train.running.metrics import WATCHED, read_metrics
from brickyard.train.running.records import CONFIG, read_config, read_summary

_SHOWN = 40


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    folders = _folders(args.folders)
    found = [describe(folder) for folder in folders]
    names = [run["run"] for run in found]
    differing = config_differences([read_config(folder) for folder in folders])
    measured = side_by_side([read_results(folder) for folder in folders])
    if not args.json:
        print(runs_table(found))
        if any(row["protocol"] != LINEAR_PROBE for row in measured):  # that one stands in the table above
            print(f"\n{measured_table(names, measured)}")
        if differing:
            print(f"\n{differences_table(names, differing)}")
    return {"runs": found, "results": measured, "differences": differing}, 0


def describe(folder: Path) -> dict[str, Any]:
    """What a run has come to; JSON. What is not known yet is None.

    Keys: run, objective, seed, steps, of_steps, finished, last_loss, best_loss, seconds, data_wait (share of the time),
    peak_bytes, probe (mean IoU, 0..1), watched (what was measured while training went on, the last of each).
    """
    config, lines = read_config(folder), read_metrics(folder)
    summary, probe = read_summary(folder) or {}, probe_of(read_results(folder))
    losses = [line["loss"] for line in lines if math.isfinite(line.get("loss", math.nan))]
    waits = [line["data_wait"] for line in lines if "data_wait" in line]
    peaks = [line["peak_gib"] for line in lines if "peak_gib" in line]
    return {
        "run": str(folder),
        "objective": config["objective"]["name"],
        "seed": config["train"]["seed"],
        "steps": int(lines[-1]["step"]) if lines else 0,
        "of_steps": summary.get("steps") or config["train"].get("steps"),
        "finished": bool(summary),
        "last_loss": losses[-1] if losses else None,
        "best_loss": (summary.get("best") or {}).get("loss"),
        "seconds": summary.get("seconds"),
        "data_wait": summary.get("data_wait", sum(waits) / len(waits) if waits else None),
        "peak_bytes": (summary.get("memory") or {}).get("peak") or (int(max(peaks) * 2**30) if peaks else None),
        "probe": probe["results"]["pretrained"]["miou"] if probe else None,
        "watched": {
            name.removeprefix(WATCHED): next(line[name] for line in reversed(lines) if name in line)
            for name in watched_names(lines)
        },
    }


def config_differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Dotted key -> its value in every config, of the keys whose values are not all equal; None where one is absent."""
    flat = [_flat(config) for config in configs]
    keys = sorted({key for table in flat for key in table})
    rows = {key: [table.get(key) for table in flat] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def runs_table(found: Sequence[dict[str, Any]]) -> str:
    """One line for every run."""
    rows = [
        [
            one["run"],
            one["objective"],
            str(one["steps"]) if one["finished"] else f"{one['steps']}/{one['of_steps'] or '?'}",
            _number(one["last_loss"], ".4f"),
            _number(one["best_loss"], ".4f"),
            duration(one["seconds"]) if one["seconds"] is not None else "-",
            _number(one["data_wait"], ".1%"),
            size(one["peak_bytes"]) if one["peak_bytes"] else "-",
            _number(one["probe"], ".1%"),
        ]
        for one in found
    ]
    head = ["run", "objective", "steps", "loss", "best", "time", "data wait", "peak", "probe mIoU"]
    for name in dict.fromkeys(name for one in found for name in one["watched"]):
        head.append(f"watched {name}")
        for row, one in zip(rows, found, strict=True):
            row.append(_number(one["watched"].get(name), ".3f"))
    return table(head, rows)


def measured_table(names: Sequence[str], measured: Sequence[dict[str, Any]]) -> str:
    """One line for every protocol and column, one column for every run; equal fingerprints, equal questions."""
    corpora = len({row["corpus"] for row in measured}) > 1
    rows = [
        [
            f"{row['protocol']}{' on ' + str(row['corpus'])[:8] if corpora else ''}, {row['title']}",
            *row["cells"],
            row["fingerprint"],
        ]
        for row in measured
    ]
    return table(["protocol", *names, "fingerprint"], rows)


def differences_table(names: Sequence[str], differing: dict[str, list[Any]]) -> str:
    """One line for every setting, one column for every run."""
    rows = [[key, *(_short(value) for value in values)] for key, values in differing.items()]
    return table(["setting", *names], rows)


def _folders(given: Sequence[Path]) -> list[Path]:
    """The runs among these folders, and those directly inside a folder that is none itself."""
    found: list[Path] = []
    for folder in given:
        if (folder / CONFIG).is_file():
            found.append(folder)
            continue
        inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        if not inside:
            raise BrickyardError(f"{folder} is no run, and holds none: a run has a config.json")
        found += inside
    return found


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    parts = [_flat(inner, f"{path}.{key}" if path else key) for key, inner in value.items()]
    return {key: inner for part in parts for key, inner in part.items()}


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
