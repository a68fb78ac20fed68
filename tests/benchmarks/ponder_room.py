"""Whether the whole of PonderV2, from points to pictures, can learn one room, and whether short numbers upset it.

The room is known exactly (`tests.train.posed_rooms`): four metres, six coloured walls and a ball, a cloud and posed
frames of 32 x 24 pixels of depth. Trained on its cloud and frames with the published losses; scores are of the frames
that it was trained on, and of others of the same room. "bfloat16" computes the networks under autocast, as a GPU would.
A loss or gradient that is not finite ends the run.

python -m tests.benchmarks.ponder_room
python -m tests.benchmarks.ponder_room --bf16
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from brickyard.evaluate.posed_views import PosedView, read_posed_view
from brickyard.evaluate.rendered_views import compared, rendered_view
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.clouds import Cloud
from brickyard.train.objectives.moves import MoveConfig
from brickyard.train.objectives.ponder import Ponder
from brickyard.train.objectives.view_rays import RaysConfig
from brickyard.train.rendering.network import RenderingNetwork
from brickyard.train.rendering.render import CONFIGS
from brickyard.train.rendering.renderer import RendererConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.voxels import VoxelConfig
from tests.benchmarks.report import append, table
from tests.train.posed_rooms import corpus_of, posed_room

STILL = MoveConfig(turn=0, tilt_chance=0, scale=(1, 1), flip=0)
COLUMNS = {
    "views": "s of frames", "steps": "d steps", "seconds": ".0f seconds", "depth_cm": ".1f depth error, cm",
    "psnr": ".1f PSNR, dB", "ssim": ".3f SSIM", "normal_degrees": ".1f normals, degrees",
}  # fmt: skip


def settings(points: int) -> Ponder:
    """Tiny networks, no moves, and all points: nothing is asked but to learn the room."""
    voxels = VoxelConfig(kind="cartesian", size=(0.12,) * 3)
    return Ponder(
        student=UNetConfig(network="tiny", inputs=("color", "normal"), voxels=voxels, intensity="unit"),
        renderer=RendererConfig(network="tiny", decoders="tiny", cells=(32, 32, 24), sampling=CONFIGS["tiny"]),
        rays=RaysConfig(views=4, per_view=points),
        moves=STILL,
        dropout=0.0,
    )


def learn(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on one room and score it, before and after."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = settings(options.rays)
    objective = config.build()
    network = objective.companions["rendering"]
    assert isinstance(network, RenderingNetwork)
    with tempfile.TemporaryDirectory() as folder:
        shown = posed_room(0, views=24, count=12_000)
        known, others = (replace(shown, views=shown.views[k::2]) for k in (0, 1))
        corpus = corpus_of(Path(folder) / "known", [known])
        cloud, seen = _views(corpus, network)
        unseen = _views(corpus_of(Path(folder) / "others", [others]), network)[1]
        rows = [scores("known", network, cloud, seen), scores("others", network, cloud, unseen)]
        optimiser = torch.optim.AdamW(objective.parameters(), 0.006, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.006, options.steps, pct_start=0.1)
        begun = time.perf_counter()
        stream = iter(
            Stream(corpus, objective.fields, batch=1, threads=1, prepare=objective.prepare, choose=objective.choose)
        )
        for step in range(options.steps):
            batch = objective.collate(next(stream), torch.device("cpu"))
            with torch.autocast("cpu", dtype=torch.bfloat16) if options.bf16 else nullcontext():
                loss = objective(batch)
            optimiser.zero_grad()
            loss.total.backward()
            norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
            if not torch.isfinite(loss.total) or not torch.isfinite(norm):
                raise SystemExit(f"step {step}: loss {float(loss.total)}, gradient {float(norm)}")
            optimiser.step()
            schedule.step()
        took = time.perf_counter() - begun
    rows += [scores("known", network, cloud, seen), scores("others", network, cloud, unseen)]
    rows = [
        row | {"steps": 0 if n < 2 else options.steps, "seconds": 0 if n < 2 else took} for n, row in enumerate(rows)
    ]
    table(f"one room, {'bfloat16' if options.bf16 else 'float32'}", rows, COLUMNS)
    return rows


def _views(corpus: Corpus, network: RenderingNetwork) -> tuple[Cloud, list[PosedView]]:
    sample: Any = next(iter(Stream(corpus, ["points/*", "views/*"], batch=1, threads=1)))[0]
    return network.student.read(sample), [read_posed_view(sample, number, 24) for number in range(sample.views)]


@torch.no_grad()
def scores(name: str, network: RenderingNetwork, cloud: Cloud, views: list[PosedView]) -> dict[str, Any]:
    """Means over views."""
    network.eval()
    filled = network([cloud])
    rendered = [(rendered_view(network, filled, view, 8192), view) for view in views]
    network.train()
    found = [compared(*pair) for pair in rendered]
    depth = [(shown.depth.numpy() - view.depth)[view.depth > 0] for shown, view in rendered]
    return {
        "views": name,
        "depth_cm": 100 * statistics.fmean(float(abs(error).mean()) for error in depth),
        "psnr": statistics.fmean(one["psnr"] for one in found),
        "ssim": statistics.fmean(one["ssim"] for one in found),
        "normal_degrees": statistics.fmean(one["normal_angle"] for one in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rays", type=int, default=128, help="of each view")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--dry", action="store_true", help="do not record")
    options = parser.parse_args()
    rows = learn(options)
    if not options.dry:
        append("ponder_room", {k: v for k, v in vars(options).items() if k != "dry"}, rows)


if __name__ == "__main__":
    main()
