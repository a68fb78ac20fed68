"""Section of docs/distillation.md: which way of learning from images is best in a small world."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.report import markdown

Records = dict[str, list[dict[str, Any]]]
_MEASURES = {
    "linear": "linear probe",
    "rare": "linear probe, rare classes",
    "finetune": "fine-tuned on 1 % of the scans",
}


def learning(found: Records) -> str:
    """Scores over seeds, then what exclusion leaves out."""
    record = found["distillation"][-1]
    columns = {"variant": "s mIoU %", **{key: f"s {words}" for key, words in _MEASURES.items()}}
    rows = [
        {"variant": row["variant"], **{key: f"{row[key]:.1f} ± {row[key + '_std']:.1f}" for key in _MEASURES}}
        for row in record["rows"]
    ]
    seeds, rare = len(record["settings"]["seeds"]), record["settings"]["rare"]
    return "\n\n".join(
        (
            markdown(rows, columns),
            f"Means and standard deviations over {seeds} seeds. *Random* is the student before training; rare are the"
            f" classes with less than 5 % of the labelled points: {', '.join(rare).replace('_', ' ')}"
            f" ({record['date'][:10]}, {record['cpu']}).",
            _orders(record["rows"]),
            markdown(record["exclusion"], {
                "weighting": "s left out as negatives", "kind": "s anchors of classes", "share": ".1f % of anchors",
                "found": ".1f % of their class left out", "pure": ".1f % of what is left out is of their class",
            }),
            "Over 20 batches of training, by the majority of the labels of a superpixel's points, which training does"
            " not see.",
        )
    )  # fmt: skip


def _orders(rows: list[dict[str, Any]]) -> str:
    """The order of each column in words."""
    lines = []
    for key, words in _MEASURES.items():
        order = sorted(rows, key=lambda row: -row[key])
        lines.append(f"* {words}: " + " > ".join(f"{row['variant']} {row[key]:.1f}" for row in order))
    return "Orders found:\n\n" + "\n".join(lines)


SECTIONS = {"distillation": learning}
