"""Sections of docs/sonata.md: what Sonata learns, and what a step of it costs."""

from __future__ import annotations

import statistics
from typing import Any

from brickyard.train.views.crops import CropConfig
from tests.benchmarks.report import markdown

HEAD = 6_557_952
"""Parameters of a prototype head of the published size."""
Records = dict[str, list[dict[str, Any]]]


def learning(found: Records) -> str:
    """The curve of every variant, then what else was measured at the end."""
    record = found["sonata_learning"][-1]
    curves: dict[str, dict[str, Any]] = {}
    for row in record["rows"]:
        name = f"{row['variant']} ({row['seeds']} seed{'s' if row['seeds'] > 1 else ''})"
        curves.setdefault(name, {"variant": name})[str(row["step"])] = f"{row['miou']:.1f}" + (
            f" ± {row['deviation']:.1f}" if row["seeds"] > 1 else ""
        )
    steps = list(dict.fromkeys(str(row["step"]) for row in record["rows"]))
    columns = {"variant": "s linear probe, mIoU %"} | {step: f"s step {step}" for step in steps}
    raw = 100 * record["final"]["sonata"]["linear_probe"]["raw"]["miou"]
    training = record["final"]["sonata"]["training"]
    return "\n\n".join(
        (
            markdown(list(curves.values()), columns),
            "Means and standard deviations over seeds; step 0 is the network before training. A linear layer on"
            f" colour, height and normal alone reaches {raw:.1f}. *No masks* shows the student its global views whole;"
            " *with a decoder* is a U-Net, compared and judged by its output at the finest cells.",
            markdown(_ends(record["final"]["sonata"]), _END_COLUMNS),
            f"`geometry` is the shortcut that the paper warns of: how well a linear layer reads height (R²) and normals"
            f" (median angle) from the features. Training took {training['seconds'] / 60:.0f} minutes on one core, of"
            f" which {100 * training['data_wait']:.2f} % waiting for data ({record['date'][:10]}, commit"
            f" {record['commit'][:7]}, {record['cpu']}).",
        )
    )


_END_COLUMNS = {
    "start": "s features", "linear_probe": ".1f linear probe, mIoU %", "knn": ".1f 20 nearest neighbours, mIoU %",
    "height": ".2f height, R²", "normal": ".1f normals, degrees",
}  # fmt: skip
_STARTS = {"random": "before training", "raw": "colour, height, normal", "pretrained": "Sonata"}


def _ends(final: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for start, words in _STARTS.items():
        geometry = final["geometry"].get(start, {})
        rows.append({
            "start": words,
            "linear_probe": 100 * final["linear_probe"][start]["miou"],
            "knn": 100 * final["knn"][start]["miou"] if start in final["knn"] else None,
            "height": geometry.get("height_r2"),
            "normal": geometry.get("normal_angle"),
        })  # fmt: skip
    return rows


def cost(found: Records) -> str:
    """The newest record of each size of network."""
    newest = {(r["settings"]["network"], r["settings"]["where"]): r for r in found["sonata_cost"]}
    parts = []
    for record in newest.values():
        chosen = record["settings"]
        parts.append(
            f"`{chosen['network']}`, {chosen['scenes']} rooms of {chosen['points']:,} points, cells of"
            f" {100 * chosen['size']:.0f} cm, {chosen['where']} ({record['date'][:10]}, {record['cpu']}):\n\n"
            + markdown(record["rows"], _COST_COLUMNS)
        )
    return "\n\n".join(parts)


_COST_COLUMNS = {
    "variant": "s variant", "milliseconds": ".0f ms a step", "fastest": ".0f fastest", "slowest": ".0f slowest",
    "views": ".0f ms of these for views", "peak_gib": ".2f GiB at the peak", "points_per_second": ".0f points/s",
}  # fmt: skip


def count(found: Records) -> str:
    """What follows for a step of `sonata-indoor` from what a point costs."""
    record = found["sonata_count"][-1]
    columns = {
        "network": "s network", "parameters": ",d parameters", "dense": ".2f dense MFLOP a point",
        "sparse": ".2f sparse MFLOP a point", "kept": ".1f kB kept a point",
        "kept_checkpointed": ".1f kB, checkpointed",
    }  # fmt: skip
    base = next(row for row in record["rows"] if row["network"] == "base")
    crop = CropConfig()
    shares = [(low + high) / 2 for low, high in (crop.global_share, crop.local_share)]
    seen = crop.points * (2 * shares[0] + crop.locals * shares[1])
    most = crop.points * (2 * crop.global_share[1] + crop.locals * crop.local_share[1])
    work = (3 * seen + 2 * crop.points * shares[0]) * (base["dense"] + base["sparse"]) * 1e6
    trained = base["parameters"] + 2 * HEAD
    on_average, at_most = (f"{3 * points * base['kept'] / 1e6:.0f} GB" for points in (seen, most))
    twice = f"{3 * most * base['kept_checkpointed'] / 1e6:.1f} GB"
    whole, small = (f"{12 * most * base[key] / 1e6:.0f} GB" for key in ("kept", "kept_checkpointed"))
    sentences = (
        f"A scene of {crop.points:,} cells or more has {seen:,.0f} points in its views on average,",
        f"{most:,.0f} at most.",
        f"So a GPU with three of them keeps {on_average} of activations on average and {at_most} at most in float32",
        f"({twice} with `checkpoint: true`; bfloat16 takes about half),",
        f"and {20 * trained / 1e9:.1f} GB for weights, gradients, optimiser and teacher.",
        f"On eight GPUs the batch of 96 is twelve scenes on each: at most {whole} in float32, which 80 GB do not hold,",
        f"and {small} with `checkpoint: true`, which they do.",
        f"The encoders' work is {work / 1e12:.1f} TFLOP a scene:",
        "forward and backward for the student, forward for the teacher, heads not counted.",
    )
    return markdown(record["rows"], columns) + "\n\n" + " ".join(sentences)


def health(found: Records) -> str:
    """Rank and probe of the long trainings and of the encoder trained on labels, then one change at a time."""
    record = found["sonata_health"][-1]
    long = [
        {
            "setting": name,
            "start": curve[0]["rank"],
            **{key: curve[-1][key] for key in ("rank", "agreement", "height")},
            "probe": _over_seeds(record["probes"][name]),
            "before": _over_seeds(record["probes"]["before training"]),
        }
        for name, curve in record["curves"].items()
    ]
    short = record["rows"][len(record["ranks"]) :]
    steps = record["settings"]["steps"]
    return "\n\n".join(
        (
            markdown(long, _HEALTH_COLUMNS),
            f"One change at a time, {steps} steps, one seed ({record['date'][:10]}, commit {record['commit'][:7]},"
            f" {record['cpu']}):",
            markdown(short, _CHANGE_COLUMNS),
        )
    )


def _over_seeds(miou: list[float]) -> str:
    mean = f"{100 * statistics.fmean(miou):.1f}"
    return f"{mean} ± {100 * statistics.stdev(miou):.1f}" if len(miou) > 1 else mean


_HEALTH_COLUMNS = {
    "setting": "s student", "start": ".0f rank at the start", "rank": ".1f at the end", "agreement": ".2f agreement",
    "height": ".2f height, R²", "before": "s linear probe before, mIoU %", "probe": "s after",
}  # fmt: skip
_CHANGE_COLUMNS = {
    "setting": "s changed", "student": ".1f rank, student", "teacher": ".1f teacher",
    "entropy": ".2f teacher's entropy", "agreement": ".2f agreement", "height": ".2f height, R²",
}  # fmt: skip
SECTIONS = {"sonata_learning": learning, "sonata_health": health, "sonata_cost": cost, "sonata_count": count}
