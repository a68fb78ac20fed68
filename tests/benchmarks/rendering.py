"""What rendering costs, ours beside the same written straightforwardly, and that a room can be learned with it.

Cost: rays per second and working memory of a forward and backward pass through field and volume, losses included, of
the same rays with the same weights. Each variant runs in processes of its own, in turns, so that each has a peak of its
own and a busy machine bothers all alike; the median of the turns counts. Memory is what the process took at most beyond
what it held before its first step (volume, weights, libraries). "whole" is ours without pieces.

Learning: a free volume, the tiny network on it and the tiny field, trained with the published losses on views of a room
known exactly; scores are of views held out.

python -m tests.benchmarks.rendering cost --rays 1280
python -m tests.benchmarks.rendering cost --rays 1280 --features 512
python -m tests.benchmarks.rendering cost --rays 4096 --variants ours whole
python -m tests.benchmarks.rendering learn --steps 500 --rays 256
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.evaluate.images import depth_errors, normal_angle, psnr, ssim
from brickyard.train.rendering import losses
from brickyard.train.rendering.field import CONFIGS as FIELDS
from brickyard.train.rendering.field import Field
from brickyard.train.rendering.losses import RenderingLossConfig, Seen, rendering_losses, weighted
from brickyard.train.rendering.rays import Rays
from brickyard.train.rendering.render import CONFIGS as SAMPLING
from brickyard.train.rendering.render import RenderConfig, Rendered, render
from brickyard.train.rendering.unet3d import build_volume_network
from brickyard.train.rendering.volume import Grid
from brickyard.train.running.memory import peak_bytes
from tests.benchmarks.report import append, table
from tests.train.rendering.plain import render_plainly
from tests.train.rendering.solids import cast, rays_of, views

VARIANTS = ("ours", "whole", "straightforward")
COST = {
    "variant": "s variant", "milliseconds": ".0f ms", "rays_per_second": ".0f rays/s", "working_mib": ".0f MiB",
    "bytes_per_ray": ".0f B/ray", "times": ".2f x rays/s", "memory_share": ".2f of the memory",
}  # fmt: skip
LEARNT = {
    "steps": "d steps", "seconds": ".1f s", "depth_cm": ".2f cm depth", "psnr": ".1f dB", "ssim": ".3f SSIM",
    "normal_degrees": ".1f deg",
}  # fmt: skip
ROOM_METRES = 5.0
"""A box unit of the learned room: its walls are 5 m apart, so an error of 0.006 is one of 3 cm."""


def rendered_plainly(field: Field, volume: Tensor, grid: Grid, rays: Rays, config: RenderConfig) -> Rendered:
    found = render_plainly(field, volume, grid, rays, config=config, seeds=torch.arange(len(rays.origins)))
    every = torch.arange(len(rays.origins))
    names = ("depth", "normal", "distance", "weight", "sdf", "gradient")
    return Rendered(
        **{name: found[name] for name in names}, opacity=found["weight"].sum(1), hits=every,
        color=found.get("color"), features=found.get("features"),
    )  # fmt: skip


def measure(variant: str, options: argparse.Namespace) -> dict[str, float]:
    """One process: seconds of a step (median) and bytes beyond what was held before."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    preset = options.preset
    config = replace(SAMPLING[preset], chunk=0 if variant == "whole" else options.chunk)
    chosen = replace(FIELDS[preset], features=options.features)
    channels = 16 if preset == "tiny" else 32
    outdoor = preset == "published-outdoor"
    grid = Grid(low=(0.0,) * 3, high=(1.0,) * 3, shape=(180, 180, 5)) if outdoor else Grid(
        low=(-0.55,) * 3, high=(0.55,) * 3, shape=(32, 32, 16) if preset == "tiny" else (128, 128, 32)
    )  # fmt: skip
    field = Field(chosen, channels)
    volume = torch.randn(1, channels, *grid.shape).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    origins = torch.rand(options.rays, 3) * 0.3 + (0.35 if outdoor else -0.15)
    rays = rays_of(origins, nn.functional.normalize(torch.randn(options.rays, 3), dim=1))
    seen = Seen(depth=torch.rand(options.rays) * 0.4 + 0.05, color=torch.rand(options.rays, 3))
    before, took = peak_bytes(torch.device("cpu")), []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        if variant == "straightforward":
            out = rendered_plainly(field, volume, grid, rays, config)
        else:
            out = render(field, volume, grid, rays, config=config, seeds=torch.arange(options.rays))
        weights = losses.RenderingLossConfig()
        loss = weighted(rendering_losses(out, seen, weights), weights)
        if out.features is not None:
            loss = loss + out.features.square().mean()
        loss.backward()
        del out, loss
        volume.grad = None
        field.zero_grad()
        took.append(time.perf_counter() - start)
    return {"seconds": statistics.median(took[1:] or took), "bytes": peak_bytes(torch.device("cpu")) - before}


def cost(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All variants in turns, as rows."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.variants}
    settings = [
        f"--{name}={getattr(options, name)}" for name in ("preset", "rays", "chunk", "features", "steps", "threads")
    ]
    for _ in range(options.turns):
        for name in options.variants:
            command = [sys.executable, "-m", "tests.benchmarks.rendering", "cost", "--only", name, *settings]
            environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows: list[dict[str, Any]] = []
    for name, turns in found.items():
        took, size = (statistics.median(turn[key] for turn in turns) for key in ("seconds", "bytes"))
        rows.append({
            "variant": name, "milliseconds": 1e3 * took, "rays_per_second": options.rays / took,
            "working_mib": size / 2**20, "bytes_per_ray": size / options.rays,
        })  # fmt: skip
    for row in rows:
        row["times"] = row["rays_per_second"] / rows[-1]["rays_per_second"]
        row["memory_share"] = row["working_mib"] / rows[-1]["working_mib"]
    table(f"{options.preset}, {options.rays} rays, forward and backward", rows, COST)
    return rows


class Room(nn.Module):
    """What is learned: a free volume before the tiny network on volumes, and the tiny field."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        shape = (cells, round(0.8 * cells), round(0.6 * cells))
        self.grid = Grid(low=(-0.55, -0.45, -0.55), high=(0.55, 0.45, 0.05), shape=shape)
        self.free = nn.Parameter(0.5 * torch.randn(1, 16, *shape))
        self.network = build_volume_network("tiny", 16)
        self.field = Field("tiny", self.network.channels)

    def forward(self, origins: Tensor, directions: Tensor, seeds: Tensor | None = None) -> Rendered:
        rays = rays_of(origins, directions)
        return render(self.field, self.network(self.free), self.grid, rays, config=SAMPLING["tiny"], seeds=seeds)


def learn(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on views of the room with the published losses; score views held out, before and after."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    room, weights = Room(options.cells), RenderingLossConfig()
    origins, directions = views(16, options.size)
    truth = cast(origins, directions)
    optimiser = torch.optim.Adam([{"params": [room.free], "lr": 0.01}, {"params": [*room.parameters()][1:]}], lr=0.005)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [0.01, 0.005], options.steps, pct_start=0.1)
    rows = [{"steps": 0, "seconds": 0.0, **scores(room, options.size)}]
    start, generator = time.perf_counter(), torch.Generator().manual_seed(0)
    for step in range(options.steps):
        some = torch.randint(len(origins), (options.rays,), generator=generator)
        out = room(origins[some], directions[some], some + step * len(origins))
        terms = rendering_losses(out, Seen(depth=truth.distance[some], color=truth.color[some]), weights)
        optimiser.zero_grad(set_to_none=True)
        weighted(terms, weights).backward()
        optimiser.step()
        schedule.step()
    seconds = time.perf_counter() - start
    rows.append({"steps": options.steps, "seconds": seconds, **scores(room, options.size)})
    table(f"a room learned from 16 views of {options.size} x {options.size}", rows, LEARNT)
    return rows


@torch.no_grad()
def scores(room: Room, size: int) -> dict[str, float]:
    """Of 3 views between those of the training."""
    origins, directions = views(3, size, seed=1)
    truth, out = cast(origins, directions), room(origins, directions)
    assert out.color is not None
    colors, real = out.color.view(3, size, size, 3), truth.color.view(3, size, size, 3)
    error = depth_errors(out.depth * ROOM_METRES, truth.distance * ROOM_METRES)
    pairs = list(zip(colors, real, strict=True))
    return {
        "depth_cm": 100 * error["mae"],
        "depth_rmse_cm": 100 * error["rmse"],
        "delta_1": error["delta_1"],
        "psnr": float(psnr(colors, real)),
        "ssim": statistics.fmean(float(ssim(a, b)) for a, b in pairs),
        "normal_degrees": float(normal_angle(out.normal, truth.normal)),
        "inv_s": float(room.field.inv_s()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "learn"))
    parser.add_argument("--preset", default="published-indoor", choices=sorted(SAMPLING))
    parser.add_argument("--rays", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=RenderConfig().chunk)
    parser.add_argument("--features", type=int, default=0, help="outputs of a feature decoder")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=64, help="pixels along an edge of the room's views")
    parser.add_argument("--cells", type=int, default=24, help="of the room's volume along its longest side")
    parser.add_argument("--variants", nargs="+", default=[*VARIANTS], choices=VARIANTS)
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="do not record")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    rows = cost(options) if options.what == "cost" else learn(options)
    if not options.dry:
        append("rendering", {k: v for k, v in vars(options).items() if k not in ("dry", "only")}, rows)


if __name__ == "__main__":
    main()
