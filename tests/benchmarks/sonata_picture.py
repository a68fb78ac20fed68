"""docs/sonata-health.svg: rank, agreement and height over the steps of sonata-tiny, from the newest `sonata_health`.

Written as SVG by hand, in the colours of the documentation's other pictures; the same record gives the same bytes.

python -m tests.benchmarks.sonata_picture
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests.benchmarks.report import RESULTS
from tests.benchmarks.sonata_health import KOLEO, LABELS, RECIPE

OUT = Path(__file__).parents[2] / "docs" / "sonata-health.svg"
WIDTH, HEIGHT, TOP, BOTTOM, PANEL, STEPS = 960, 340, 94, 288, 240, 400
PANELS = (
    ("rank", "rank of the features", 60),
    ("agreement", "agreement of two views", 0.8),
    ("height", "height in the strongest component, R²", 0.8),
)
"""Measure, words, and the upper end of the axis."""
LINES = (
    (RECIPE, "as it is", "ours"),
    (KOLEO, "KoLeo 0.5, teacher at 0.04 to 0.055", "peer"),
    (LABELS, "the encoder trained on labels", "other"),
)
STYLE = """\
  <style>
    .grid { stroke: #e9e1d6 } .axis { fill: #5b534c; font-size: 12px } .title { fill: #2b2622; font-weight: 600 }
    .ours { stroke: #b5512f } .peer { stroke: #45617d } .other { stroke: #8a7f74; stroke-dasharray: 4 3 }
    .line { fill: none; stroke-width: 2 } .key { fill: #2b2622; font-size: 13px }
  </style>"""
Curve = Sequence[dict[str, float]]


def draw(record: dict[str, Any], out: Path = OUT) -> None:
    """A panel for each measure; curves of the student, means over seeds."""
    parts = ['<text class="title" x="24" y="32">What becomes of the features of sonata-tiny</text>']
    for x, (_, words, kind) in zip((24, 134, 430), LINES, strict=True):
        parts.append(f'<path class="line {kind}" d="M{x} 53h26"/><text class="key" x="{x + 34}" y="57">{words}</text>')
    for place, (measure, words, top) in enumerate(PANELS):
        parts += _panel(62 + 306 * place, words, top)
        for name, _, kind in LINES:
            parts.append(_line(62 + 306 * place, measure, top, record["curves"][name], kind))
    body = "\n  ".join(parts)
    out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="15">\n{STYLE}\n  <rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fffdfa"/>\n'
        f"  {body}\n</svg>\n"
    )


def _panel(left: float, words: str, top: float) -> list[str]:
    parts = [f'<text class="axis" x="{left}" y="{TOP - 12}">{escape(words)}</text>']
    for tick in range(5):
        y = BOTTOM - (BOTTOM - TOP) * tick / 4
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{PANEL}"/>')
        parts.append(f'<text class="axis" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{top * tick / 4:g}</text>')
    for step in range(0, STEPS + 1, 100):
        x = left + PANEL * step / STEPS
        parts.append(f'<text class="axis" x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{step}</text>')
    parts.append(f'<text class="axis" x="{left + PANEL / 2}" y="{BOTTOM + 40}" text-anchor="middle">step</text>')
    return parts


def _line(left: float, measure: str, top: float, curve: Curve, kind: str) -> str:
    points = (
        f"{left + PANEL * point['step'] / STEPS:.1f} {BOTTOM - (BOTTOM - TOP) * point[measure] / top:.1f}"
        for point in curve
    )
    return f'<path class="line {kind}" d="M{"L".join(points)}"/>'


if __name__ == "__main__":
    draw(json.loads((RESULTS / "sonata_health.json").read_text())[-1])
