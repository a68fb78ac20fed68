"""docs/ponder-views.png: pictures that the protocol `rendering` left in a run's folder, a view in each row.

brickyard evaluate train/recipes/ponder-tiny.yaml --corpus corpus --run run
python -m tests.benchmarks.ponder_picture run
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from brickyard.evaluate.pictured import PICTURES

OUT = Path(__file__).parents[2] / "docs" / "ponder-views.png"
SHOWN = ("Real", "Rendered", "Error of colour", "Real depth", "Rendered depth", "Real normals", "Rendered normals")
GAP = 4


def draw(run: Path, out: Path, protocol: str = "rendering", shown: Sequence[str] = SHOWN, views: int = 3) -> None:
    """The pictures with these captions, of the first views that a protocol has drawn."""
    scenes = json.loads((run / PICTURES / f"{protocol}.json").read_text())["scenes"][:views]
    rows = []
    for scene in scenes:
        files = {entry["caption"]: entry["file"] for entry in scene["pictures"]}
        rows.append([Image.open(run / PICTURES / files[caption]) for caption in shown])
    lay(rows, out)


def lay(rows: Sequence[Sequence[Image.Image]], out: Path) -> None:
    """Pictures of one size in rows."""
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * (width + GAP), y * (height + GAP)))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), OUT)
