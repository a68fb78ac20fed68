"""A section of docs/rayzer.md: what films teach with and without poses."""

from __future__ import annotations

import statistics
from typing import Any

from tests.benchmarks import rayzer_count, rayzer_tokens
from tests.benchmarks.report import markdown

Records = dict[str, list[dict[str, Any]]]


def learning(found: Records) -> str:
    """The newest record; one value for each seed, and their mean."""
    record = found["rayzer_learning"][-1]
    rows = [
        {
            "variant": row["variant"],
            "mean": row["psnr"],
            "all": ", ".join(f"{value:.2f}" for value in row.get("psnr_all", [])) or None,
            "gap": statistics.fmean(row["psnr_all"]) - record["rows"][0]["psnr"] if "psnr_all" in row else None,
            "better": row.get("better"),
        }
        for row in record["rows"]
    ]
    where = f"{record['settings']['steps']} steps; {record['date'][:10]}, {record['cpu']}"
    return f"{where}:\n\n" + markdown(rows, _COLUMNS)


_COLUMNS = {
    "variant": "s trained with", "mean": ".2f PSNR dB", "all": "s each seed", "gap": ".2f beside RayZer, dB",
    "better": ".0f views better than the mean of both neighbours, %",
}  # fmt: skip


def cost(found: Records) -> str:
    """The newest record."""
    return markdown(found["rayzer_count"][-1]["rows"], rayzer_count.COLUMNS)


def tokens(found: Records) -> str:
    """The newest record."""
    return markdown(found["rayzer_tokens"][-1]["rows"], rayzer_tokens.COLUMNS)


SECTIONS = {"rayzer_learning": learning, "rayzer_count": cost, "rayzer_tokens": tokens}
