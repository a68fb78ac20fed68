"""A real room: does what was learned from some of its frames show another one better than a frame warped into it?

The scan `scene0000_00` of ScanNet, as far as a folder holds it: its cloud, and the posed frames of its `.sens` file.
Each frame in turn is held out, tiny networks are trained on the others, and it is rendered. Beside it stands what
needs no network: of the other frames, the one that covers most of the view, warped by its depth. What that does not
cover counts as black; so both are compared on the pixels that it covers as well.

python -m tests.benchmarks.ponder_real SCANNET [--steps 150] [--dry]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from brickyard.evaluate.images import psnr
from brickyard.evaluate.posed_views import read_posed_view
from brickyard.evaluate.rendered_views import best_warp, compared, rendered_view, warped_compared
from brickyard.shards.corpus import Corpus
from brickyard.shards.scene import Scene
from brickyard.shards.stream import Stream
from brickyard.train.objectives.ponder import Ponder
from brickyard.train.objectives.view_rays import RaysConfig, usable_views
from brickyard.train.rendering.network import SceneRenderer
from brickyard.train.rendering.renderer import RendererConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.voxels import VoxelConfig
from tests.benchmarks.distillation import brickyard
from tests.benchmarks.ponder_room import STILL
from tests.benchmarks.report import append, table
from tests.train.posed_rooms import corpus_of

SCENE = "scannet/scene0000_00"
SIDE = 120
COLUMNS = {
    "view": "s held out", "psnr": ".1f PSNR, dB", "psnr_warped": ".1f a frame warped: PSNR", "ssim": ".3f SSIM",
    "ssim_warped": ".3f warped: SSIM", "abs_rel": ".3f depth error", "abs_rel_warped": ".3f warped: depth error",
    "covered": ".0f % that it covers", "psnr_there": ".1f PSNR there, dB",
    "psnr_warped_there": ".1f warped: PSNR there", "seconds": ".0f s of training",
}  # fmt: skip


def settings() -> Ponder:
    """Tiny networks, cells of some 10 cm, all points, no moves."""
    return Ponder(
        student=UNetConfig(
            network="tiny", inputs=("color", "normal"), voxels=VoxelConfig(kind="cartesian", size=(0.05,) * 3),
            intensity="unit",
        ),
        renderer=RendererConfig(network="tiny", decoders="tiny", cells=(64, 64, 28)),
        rays=RaysConfig(views=3, per_view=192, least_depth=0.05),
        moves=STILL,
        dropout=0.0,
    )  # fmt: skip


def real_scene(folder: Path, scannet: Path) -> Scene:
    """The scan, built."""
    recipe = {
        "name": "real",
        "sources": [{"dataset": "scannet", "root": str(scannet.resolve()), "options": {"frames_every": 1}}],
        "curate": {"superpixels": None, "correspondences": None},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    brickyard("build", folder / "recipe.yaml", "--out", folder / "corpus", "--in-process")
    return Corpus.open(folder / "corpus").scene(SCENE)


def held_out(folder: Path, scene: Scene, number: int, config: Ponder, training: tuple[int, float]) -> dict[str, Any]:
    """Train without a view, for so many steps at this rate, then render it."""
    steps, rate = training
    others = tuple(view for n, view in enumerate(scene.views) if n != number)
    begun = time.perf_counter()
    network = learned(corpus_of(folder / f"known-{number}", [replace(scene, views=others)]), config, steps, rate)
    row = {"view": scene.views[number].name, "seconds": time.perf_counter() - begun, "steps": steps}
    whole = corpus_of(folder / f"whole-{number}", [replace(scene, views=(scene.views[number], *others))])
    return row | beside_warped(whole, network)


def learned(known: Corpus, config: Ponder, steps: int, rate: float) -> SceneRenderer:
    """What renders, after so many steps on a corpus of one scene."""
    torch.manual_seed(0)
    objective = config.build()
    network = objective.companions["rendering"]
    assert isinstance(network, SceneRenderer)
    optimiser = torch.optim.AdamW(objective.parameters(), rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.2)
    stream = iter(
        Stream(known, objective.fields, batch=1, threads=1, prepare=objective.prepare, choose=objective.choose)
    )
    for _ in range(steps):
        loss = objective(objective.collate(next(stream), torch.device("cpu")))
        optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network


def beside_warped(whole: Corpus, network: SceneRenderer) -> dict[str, Any]:
    """The first view of a corpus of one scene, rendered from what else there is, and from another view by its depth."""
    (sample,) = next(iter(Stream(whole, ["*"], batch=1, threads=1, shuffle=False)))
    views = tuple(read_posed_view(sample, n, SIDE) for n in usable_views(sample.header, "depth"))
    warped = best_warp(views, 0)
    network.eval()
    with torch.no_grad():
        shown = rendered_view(network, network([network.read(sample, (0,))]), views[0], 8192)
    row = {"covered": 0.0 if warped is None else 100 * float(warped.covered.mean())}
    if warped is not None and shown.color is not None and warped.covered.any():
        real, both = torch.from_numpy(views[0].color), torch.from_numpy(views[0].shown & warped.covered)
        row |= {"psnr_there": float(psnr(shown.color, real, both))}
        row |= {"psnr_warped_there": float(psnr(torch.from_numpy(warped.color), real, both))}
    return row | compared(shown, views[0]) | warped_compared(warped, views[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scannet", type=Path, help="a folder in ScanNet's layout with scene0000_00")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        scene = real_scene(Path(name), options.scannet)
        rows = [held_out(Path(name), scene, n, settings(), (options.steps, 0.006)) for n in range(len(scene.views))]
    table(f"{SCENE}, {len(scene.views)} frames", rows, COLUMNS)
    if not options.dry:
        append("ponder_real", {"steps": options.steps, "views": len(scene.views)}, rows)


if __name__ == "__main__":
    main()
