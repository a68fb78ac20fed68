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
    """Scores over seeds, their order, then what exclusion leaves out."""
    record = found["distillation"][-1]
    rows, rare = record["rows"], record["settings"]["rare"]
    beside = next(row for row in rows if row["variant"] == _BESIDE)
    cells = [
        {
            "variant": row["variant"],
            "seeds": row["seeds"],
            **{key: _spread(row[f"{key}_all"]) for key in _MEASURES},
            "gain": None if row is beside else _spread(_differences(row, beside), signed=True),
        }
        for row in rows
    ]
    columns = {"variant": "s mIoU %", "seeds": "d seeds"} | {key: f"s {words}" for key, words in _MEASURES.items()}
    columns["gain"] = f"s linear probe less {_BESIDE}'s, seed by seed"
    return "\n\n".join(
        (
            markdown(cells, columns),
            "Means ± standard deviations over seeds. *Random* is the student before training. Rare are the classes with"
            f" less than 5 % of the labelled points: {', '.join(rare).replace('_', ' ')}. Which scan is the 1 % depends"
            f" on the seed, and decides most of the spread after fine-tuning ({record['date'][:10]}, {record['cpu']}).",
            "Orders of the means:\n\n"
            + "\n".join(f"* {words}: {_order(rows, key)}" for key, words in _MEASURES.items()),
            markdown(record["exclusion"], _EXCLUSION),
            "Over 20 batches of training, by the majority of the labels of a superpixel's points, which training does"
            f" not see. Superpixels of different classes have a similarity of {record['unlike']:.2f} (median).",
        )
    )


def _differences(row: dict[str, Any], beside: dict[str, Any]) -> list[float]:
    return [mine - theirs for mine, theirs in zip(row["linear_all"], beside["linear_all"], strict=False)]


def _spread(values: list[float], *, signed: bool = False) -> str:
    mean = f"{statistics.fmean(values):{'+' if signed else ''}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _order(rows: list[dict[str, Any]], key: str) -> str:
    return " > ".join(f"{row['variant']} {row[key]:.1f}" for row in sorted(rows, key=lambda row: -row[key]))


SECTIONS = {"distillation": learning}
