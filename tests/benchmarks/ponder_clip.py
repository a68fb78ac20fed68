"""A real clip without points: is a frame that was held out rendered better than another frame warped into it?

Frames of 7-Scenes, as far as a folder holds them: colour, depth and pose, nothing else. Each frame in turn is held out;
a tiny network of images looks at one of the others and renders another, again and again, and at last looks at all of
them and renders the one that was held out. Beside it stands what needs no network, see `tests.benchmarks.ponder_real`.

python -m tests.benchmarks.ponder_clip SEVEN_SCENES [--steps 200] [--dry]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch

from brickyard.ingest.source import SceneRef
from brickyard.ingest.video import SOURCE
from brickyard.ingest.video.plan import VideoOptions
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.train.objectives.ponder_views import PonderViews
from brickyard.train.objectives.view_rays import RaysConfig
from brickyard.train.rendering.renderer import RendererConfig
from brickyard.train.students.images import ImageStudentConfig
from tests.benchmarks.ponder_real import COLUMNS, held_out
from tests.benchmarks.ponder_room import STILL
from tests.benchmarks.report import append, table

RATE = 0.002
"""Of the optimiser; with that of `ponder_real`, three times as high, nothing is learned from pictures alone."""


def settings() -> PonderViews:
    """Tiny networks, no moves: one frame is looked at, another is rendered."""
    return PonderViews(
        images=ImageStudentConfig(network="tiny", channels=16, size=(96, 128), views=2),
        renderer=RendererConfig(network="tiny", decoders="tiny", cells=(40, 40, 40)),
        rays=RaysConfig(views=1, per_view=256, least_depth=0.05),
        moves=STILL,
        dropout=0.0,
    )


def real_clip(folder: Path) -> Scene:
    """The frames, as the source `video` reads them."""
    (ref,) = (one for one in SOURCE.plan(Store(folder.resolve()), VideoOptions()) if isinstance(one, SceneRef))
    return SOURCE.read(ref)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seven_scenes", type=Path, help="a folder with frame-000000.color.png, .depth.png, .pose.txt")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    scene = real_clip(options.seven_scenes)
    with tempfile.TemporaryDirectory() as name:
        rows = [held_out(Path(name), scene, n, settings(), (options.steps, RATE)) for n in range(len(scene.views))]
    table(f"{scene.identity.scene_id}, {len(scene.views)} frames", rows, COLUMNS)
    if not options.dry:
        append("ponder_clip", {"steps": options.steps, "views": len(scene.views)}, rows)


if __name__ == "__main__":
    main()
