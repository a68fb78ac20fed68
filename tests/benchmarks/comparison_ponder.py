"""Sections of docs/ponder.md: what rendering teaches, whether one room is learned, and whether a real one is."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

from tests.benchmarks import ponder_real
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


def learning(found: Records) -> str:
    """Scores of every world, then the rendered views of rooms, checkpoint by checkpoint."""
    record = found["ponder_learning"][-1]
    scores = [
        {
            "world": row["world"],
            "variant": row["variant"],
            "seeds": row["seeds"],
            **{name: _spread(row[f"{name}_all"]) for name in ("linear", "finetune")},
        }
        for row in record["rows"]
    ]
    curves = [{"variant": row["variant"], **point} for row in record["rows"] for point in row["curve"]]
    commits = sorted({commit[:7] for row in record["rows"] for commit in row["commits"]})
    trained = "in a copy without history" if commits == ["unknown"] else f"at commit {', '.join(commits)}"
    where = f"{record['date'][:10]}, trained {trained}, {record['cpu']}"
    return "\n\n".join((markdown(scores, _SCORES), f"Views of rooms ({where}):", markdown(curves, _CURVES)))


_SCORES = {
    "world": "s world", "variant": "s trained to render", "linear": "s linear probe, mIoU %",
    "finetune": "s fine-tuned on 5 %, mIoU %", "seeds": "d seeds",
}  # fmt: skip
_CURVES = {
    "variant": "s trained to render", "step": ".0f steps", "psnr": ".1f PSNR, dB", "ssim": ".3f SSIM",
    "abs_rel": ".3f depth error", "psnr_warped": ".1f a frame warped: PSNR, dB",
    "abs_rel_warped": ".3f a frame warped: depth error",
}  # fmt: skip


def _spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def real(found: Records, name: str = "ponder_real") -> str:
    """The newest record."""
    record = found[name][-1]
    where = f"{record['settings']['steps']} steps; {record['date'][:10]}, {record['cpu']}"
    return f"{where}:\n\n" + markdown(record["rows"], ponder_real.COLUMNS)


SECTIONS = {
    "ponder_learning": learning,
    "ponder_room": room,
    "ponder_real": real,
    "ponder_clip": partial(real, name="ponder_clip"),
}
