"""Pictures for docs/rayzer.md, of those that evaluating a run of `rayzer-tiny` left in its folder.

brickyard evaluate train/recipes/rayzer-tiny.yaml --corpus corpus --run run
python -m tests.benchmarks.rayzer_picture run
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

from brickyard.evaluate.pictured import PICTURES
from tests.benchmarks.ponder_picture import draw, lay

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = ("Nearest input view", "Mean of the two neighbours", "Real", "Rendered", "Error of rendering")


def main(run: Path) -> None:
    draw(run, DOCS / "rayzer-views.png", "novel_views", SHOWN, views=4)
    folder = run / PICTURES
    paths = [scene["pictures"][0]["file"] for scene in json.loads((folder / "poses.json").read_text())["scenes"]]
    lay([[Image.open(folder / name) for name in paths[:4]]], DOCS / "rayzer-paths.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
