"""docs/page.jpg: pictures of the demo's corpus page side by side, for the README.

make demo
python -m tests.benchmarks.page_picture demo/corpus.html
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

from PIL import Image

OUT = Path(__file__).parents[2] / "docs" / "page.jpg"
SCENES = ("scannet/scene9002_00", "nuscenes/scene-0061")
PICTURES = 6
"""Of a scene: from above, oblique, by class; then an image, its superpixels, its points."""
WIDTH, GAP = 320, 6


def pictures(page: str, scene: str) -> list[Image.Image]:
    """The first pictures of a scene, all as wide."""
    section = page[page.index(f">{scene}") :]
    found = re.finditer(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", section)
    images = [Image.open(io.BytesIO(base64.b64decode(next(found)[1]))) for _ in range(PICTURES)]
    return [image.convert("RGB").resize((WIDTH, round(WIDTH * image.height / image.width))) for image in images]


def draw(page: Path, out: Path) -> None:
    rows = []
    for scene in SCENES:
        found = pictures(page.read_text(), scene)
        rows += [found[:3], found[3:]]
    heights = [max(image.height for image in row) for row in rows]
    sheet = Image.new("RGB", (3 * WIDTH + 2 * GAP, sum(heights) + GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            sheet.paste(image, (column * (WIDTH + GAP), top))
        top += height + GAP
    sheet.save(out, quality=88)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), OUT)
