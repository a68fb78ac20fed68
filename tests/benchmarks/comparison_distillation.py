"""Section of docs/distillation.md: which way of learning from images is best in a small world."""

from __future__ import annotations

import statistics
from typing import Any

from tests.benchmarks.report import markdown

Records = dict[str, list[dict[str, Any]]]
_BESIDE = "SLidR"
_MEASURES = {"linear": "linear probe", "rare": "the same, rare classes", "finetune": "fine-tuned on 1 %"}
_EXCLUSION = {
    "weighting": "s left out as negatives", "kind": "s anchors of classes", "share": ".1f % of anchors",
    "found": ".1f % of their class left out", "pure": ".1f % of what is left out is of their class",
}  # fmt: skip


def learning(found: Records) -> str:
    """The newest record of each world: scores over seeds, their order, what exclusion leaves out."""
    newest = {record["settings"].get("world", 0): record for record in found["distillation"]}
    return "\n\n".join(_world(number, record) for number, record in sorted(newest.items()))


def _world(number: int, record: dict[str, Any]) -> str:
    rows, rare = record["rows"], record["settings"]["rare"]
    beside = next(row for row in rows if row["variant"] == _BESIDE)
    cells = [
        {
            "variant": row["variant"],
            **{key: _spread(row[f"{key}_all"]) for key in _MEASURES},
            "gain": None if row is beside else _spread(_differences(row, beside), signed=True),
        }
        for row in rows
    ]
    columns = {"variant": "s mIoU %"} | {key: f"s {words}" for key, words in _MEASURES.items()}
    columns["gain"] = f"s linear probe less {_BESIDE}'s, seed by seed"
    seeds, commits = record["settings"]["seeds"], sorted({name for row in rows for name in row["commits"]})
    return "\n\n".join(
        (
            f"World {number}, seeds {', '.join(map(str, seeds))}; trained {_where(commits)}"
            f" ({record['date'][:10]}, {record['cpu']}):",
            markdown(cells, columns),
            f"Rare are {', '.join(rare).replace('_', ' ')}.",
            "Orders of the means:\n\n"
            + "\n".join(f"* {words}: {_order(rows, key)}" for key, words in _MEASURES.items()),
            markdown(record["exclusion"], _EXCLUSION),
            f"Superpixels of different classes have a similarity of {record['unlike']:.2f} (median).",
        )
    )


def _where(commits: list[str]) -> str:
    return "in a copy without history" if commits == ["unknown"] else f"at commit {', '.join(commits)}"


def _differences(row: dict[str, Any], beside: dict[str, Any]) -> list[float]:
    return [mine - theirs for mine, theirs in zip(row["linear_all"], beside["linear_all"], strict=False)]


def _spread(values: list[float], *, signed: bool = False) -> str:
    mean = f"{statistics.fmean(values):{'+' if signed else ''}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _order(rows: list[dict[str, Any]], key: str) -> str:
    return " > ".join(f"{row['variant']} {row[key]:.1f}" for row in sorted(rows, key=lambda row: -row[key]))


SECTIONS = {"distillation": learning}
