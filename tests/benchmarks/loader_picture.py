"""The picture of the comparison: how fast a core delivers points, against how many bytes a point takes on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[2] / "docs" / "loader.svg"


def draw(rows: list[dict[str, Any]], out: Path = OUT) -> None:
    """One mark a loader, with the error of xyz where the format is not exact; the ceiling is a line."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "brickyard"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for row in rows:
        speed, ours = row["million_points_per_cpu_second"], row["loader"].startswith("brickyard")
        if row["bytes_per_point"] is None:
            axes.axhline(speed, color="grey", linestyle=":", linewidth=1)
            axes.annotate("copy in memory", (0.5, speed), color="grey", fontsize=8, va="bottom")
            continue
        axes.plot(row["bytes_per_point"], speed, "o" if ours else "s", color="#b5442b" if ours else "#3f5f7f")
        error = f", xyz within {row['max_xyz_error_mm']:.2f} mm" if row["max_xyz_error_mm"] else ", exact"
        axes.annotate(
            row["loader"] + error, (row["bytes_per_point"], speed), xytext=(6, 0), textcoords="offset points",
            fontsize=7, va="center", ha="left" if row["bytes_per_point"] < 20 else "right",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(0, 32)
    axes.set_xlabel("bytes a point on the disk: xyz, colour, normal, label")
    axes.set_ylabel("million points a second and core")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)
