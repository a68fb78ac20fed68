"""The picture of the comparison: how fast a core delivers points, against how many bytes a point takes on the disk.

Colour and shape tell ours from peers, the text beside a mark its error. Up and to the left is better. Written as SVG by
hand, in the colours of the other picture of the documentation; the same record gives the same bytes.

python -m tests.benchmarks.loader_picture     draw docs/loader.svg from the newest record
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests.benchmarks.report import RESULTS

OUT = Path(__file__).parents[2] / "docs" / "loader.svg"
WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 74, 668, 84, 452
MOST_BYTES = 32
TICKS = (5, 10, 20, 50, 100, 200, 500)
GAP = 19
"""Least distance of two labels, in pixels."""
STYLE = """\
  <style>
    .grid { stroke: #e9e1d6 } .axis { fill: #5b534c; font-size: 12px } .title { fill: #2b2622; font-weight: 600 }
    .label { paint-order: stroke; stroke: #fffdfa; stroke-width: 4px; font-size: 12.5px }
    .ours { fill: #b5512f } .peer { fill: #45617d } .lead { stroke: #cdbfae; fill: none }
    .ceiling { stroke: #8a7f74; stroke-dasharray: 2 4; stroke-width: 1.5 } .note { fill: #8a7f74; font-size: 12px }
  </style>"""


def draw(rows: list[dict[str, Any]], out: Path = OUT) -> None:
    """One mark a loader; the ceiling is a line."""
    marks = [row for row in rows if row["bytes_per_point"] is not None]
    speeds = [row["million_points_per_cpu_second"] for row in rows]
    low, high = math.log(0.7 * min(speeds)), math.log(1.25 * max(speeds))

    def x(size: float) -> float:
        return LEFT + (RIGHT - LEFT) * size / MOST_BYTES

    def y(speed: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (math.log(speed) - low) / (high - low)

    ceiling = next(row["million_points_per_cpu_second"] for row in rows if row["bytes_per_point"] is None)
    parts = _frame(x, y, [tick for tick in TICKS if low < math.log(tick) < high])
    parts.append(f'<path class="ceiling" d="M{LEFT} {y(ceiling):.1f}H{RIGHT}"/>')
    parts.append(f'<text class="note" x="{LEFT + 8}" y="{y(ceiling) + 17:.1f}">copying ready arrays in memory</text>')
    for ours in (True, False):
        group = [row for row in marks if row["loader"].startswith("brickyard") is ours]
        parts += _group(group, x, y, "ours" if ours else "peer")
    out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="15">\n{STYLE}\n  <rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fffdfa"/>\n  '
        + "\n  ".join(parts)
        + "\n</svg>\n"
    )


def _frame(x: Any, y: Any, ticks: list[int]) -> list[str]:
    parts = [
        '<text class="title" x="24" y="36">Million points a second and core, against bytes a point on the disk</text>',
        '<text class="note" x="24" y="57">xyz, colour, normal and label of every point, shuffled, ready to use; '
        "logarithmic. Up and to the left is better.</text>",
    ]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{RIGHT}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 10}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    for size in range(0, MOST_BYTES + 1, 8):
        parts.append(f'<path class="grid" d="M{x(size):.1f} {TOP}V{BOTTOM}"/>')
        parts.append(f'<text class="axis" x="{x(size):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{size}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{BOTTOM + 42}" text-anchor="middle">bytes a point</text>')
    return parts


def _group(rows: list[dict[str, Any]], x: Any, y: Any, kind: str) -> list[str]:
    """Marks, and to their right the labels, pushed apart and tied to their marks by a line."""
    rows = sorted(rows, key=lambda row: -float(row["million_points_per_cpu_second"]))
    heights = _apart([y(row["million_points_per_cpu_second"]) for row in rows])
    column = max(x(row["bytes_per_point"]) for row in rows) + 34
    marks, labels = [], []
    for row, height in zip(rows, heights, strict=True):
        across, up = x(row["bytes_per_point"]), y(row["million_points_per_cpu_second"])
        labels.append(
            f'<path class="lead" d="M{across + 8:.1f} {up:.1f}L{column - 14:.1f} {height:.1f}h9"/>'
            f'<text class="{kind} label" x="{column:.1f}" y="{height + 4:.1f}">{escape(_label(row))}</text>'
        )
        shape = f'<circle class="{kind}" cx="{across:.1f}" cy="{up:.1f}" r="6"/>'
        square = f'<rect class="{kind}" x="{across - 5:.1f}" y="{up - 5:.1f}" width="10" height="10" rx="1.5"/>'
        marks.append(shape if kind == "ours" else square)
    return labels + marks


def _label(row: dict[str, Any]) -> str:
    name = row["loader"].replace(", xyz as codes", ", codes").replace("brickyard", "Brickyard")
    name = name.replace(" + DataLoader", "").replace("MosaicML Streaming", "mosaicml-streaming")
    error = row["max_xyz_error_mm"]
    return f"{name} · {f'± {error:.1f} mm' if error else 'exact'}"


def _apart(heights: list[float]) -> list[float]:
    """The nearest heights (from top to bottom) of which no two are closer than the gap: blocks that push each other."""
    blocks: list[tuple[float, int]] = []  # middle, number of labels
    for height in heights:
        blocks.append((height, 1))
        while len(blocks) > 1:
            (above, a), (below, b) = blocks[-2:]
            if below - above >= GAP * (a + b) / 2:
                break
            blocks[-2:] = [((above * a + below * b) / (a + b), a + b)]
    return [middle + GAP * (k - (count - 1) / 2) for middle, count in blocks for k in range(count)]


if __name__ == "__main__":
    draw(json.loads((RESULTS / "loader.json").read_text())[-1]["rows"])
