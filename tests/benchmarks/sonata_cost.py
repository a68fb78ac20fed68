"""What a step of Sonata costs: time and peak memory, ours beside the same thing built straightforwardly, same batch.

"straightforward" is what one writes from the description with torch alone: attention as softmax of a matrix product,
rows taken to patches and back by plain indexing, global and local views encoded one after the other. Everything else is
the same code. On a CPU the peak is that of the process so far, so the leanest variant comes first. The rooms are boxes
full of boxes, of `points` points each.

python -m tests.benchmarks.sonata_cost --network tiny --scenes 4 --points 8000 --size 0.1
python -m tests.benchmarks.sonata_cost --network small --scenes 3 --points 200000 --size 0.02 --bf16 --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from brickyard.train.clouds import Cloud
from brickyard.train.models import point_blocks
from brickyard.train.models.walks import Walk
from brickyard.train.objectives.objective import Loss
from brickyard.train.objectives.sonata import Coarse, Sonata, SonataBatch, SonataObjective, SonataScene
from brickyard.train.optimiser import OptimiserConfig, build_optimiser
from brickyard.train.running.memory import peak_bytes
from brickyard.train.students.point import PointStudentConfig
from tests.benchmarks.report import append, table

COLUMNS = {
    "variant": "s variant", "milliseconds": ".0f ms/step", "fastest": ".0f min", "slowest": ".0f max",
    "views": ".0f ms of these for views", "peak_gib": ".2f GiB peak", "points": "d points of views",
    "points_per_second": ".0f points/s",
}  # fmt: skip


def room(seed: int, points: int) -> SonataScene:
    """A room of 5 x 4 x 2.6 m with a dozen boxes in it: points on all faces, evenly, with colours and normals."""
    rng = np.random.default_rng(seed)
    boxes = [((0.0, 0.0, 0.0), (5.0, 4.0, 2.6))]
    boxes += [(tuple(rng.uniform((0, 0, 0), (4, 3, 0.5))), tuple(rng.uniform(0.3, 1.2, 3))) for _ in range(12)]
    low = np.array([box[0] for box in boxes])
    size = np.array([box[1] for box in boxes])
    area = np.stack([size[:, (axis + 1) % 3] * size[:, (axis + 2) % 3] for axis in range(3)], 1)
    face = rng.choice(area.size * 2, points, p=np.repeat(area.ravel(), 2) / area.sum() / 2)
    box, axis, side = face // 6, face // 2 % 3, face % 2
    place = rng.random((points, 3))
    place[np.arange(points), axis] = side
    normal = np.zeros((points, 3), np.float32)
    normal[np.arange(points), axis] = side * 2 - 1
    color = rng.random((len(boxes), 3))[box] + rng.normal(0, 0.05, (points, 3))
    xyz = (low[box] + place * size[box]).astype(np.float32)
    values = {"color": torch.from_numpy(color.clip(0, 1).astype(np.float32)), "normal": torch.from_numpy(normal)}
    cloud = Cloud(key=f"room-{seed}", domain="indoor", xyz=torch.from_numpy(xyz), values=values)
    return SonataScene(cloud=cloud, seed=seed)


def _plain_attend(self: Any, slots: Tensor, patches: Tensor, real: Tensor | None) -> Tensor:
    channels = slots.shape[1] // 3
    if patches.numel() == 0:
        return slots[:, :channels]
    q, k, v = slots.view(*patches.shape, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / (channels // self.heads) ** 0.5
    if real is not None:
        scores = scores.masked_fill(~real[:, None, None, :], -torch.inf)
    result: Tensor = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, channels)
    return result


def _plain_to_patches(x: Tensor, walk: Walk) -> Tensor:
    return x[torch.cat((walk.full.flatten(), walk.short.flatten()))]


def _plain_from_patches(x: Tensor, walk: Walk) -> Tensor:
    return x[walk.slot]


def _apart(self: SonataObjective, batch: SonataBatch) -> Loss:
    """`SonataObjective.forward`, encoding the masked global views, then the local ones."""
    views, whole, upcast = batch.views, 2 * batch.views.scenes, self.config.upcast
    points = sum(views.clouds.counts[:whole])
    with torch.no_grad():
        teacher = self.teacher.encoder
        taught = Coarse.of(teacher, teacher(views.clouds.first(whole), origin=views.origin[:points]), upcast)
    local = replace(
        views.shown,
        xyz=views.shown.xyz[points:],
        values={name: value[points:] for name, value in views.shown.values.items()},
        valid={name: value[whole:] for name, value in views.shown.valid.items()},
        scene=views.shown.scene[points:] - whole,
        counts=views.shown.counts[whole:],
    )
    first = Coarse.of(
        self.student,
        self.trained.encoder(
            views.shown.first(whole), xyz=views.xyz[:points], masked=views.masked[:points], origin=views.origin[:points]
        ),
        upcast,
    )
    second = Coarse.of(self.student, self.trained.encoder(local, origin=views.origin[points:]), upcast)
    said = Coarse(features=torch.cat((first.features, second.features)), origins=first.origins + second.origins)
    return self._compare(said, taught, views.scenes)


@contextmanager
def straightforward() -> Iterator[None]:
    """All of it built from the description alone."""
    with (
        mock.patch.object(point_blocks.Attention, "_attend", _plain_attend),
        mock.patch.object(point_blocks, "_to_patches", _plain_to_patches),
        mock.patch.object(point_blocks, "_from_patches", _plain_from_patches),
        mock.patch.object(SonataObjective, "forward", _apart),
    ):
        yield


def measure(config: Sonata, items: list[SonataScene], steps: int, device: torch.device, bf16: bool) -> dict[str, Any]:
    """Times of whole steps (views, both networks, backward pass, optimiser, teacher) and peak memory."""
    torch.manual_seed(0)
    objective = config.build(device).train()
    optimiser = build_optimiser(OptimiserConfig(optimiser="adamw", lr=1e-4), objective)
    took, viewing, points = [], [], 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for step in range(steps + 2):
        objective.begin_step(step, steps + 2)
        _wait(device)
        start = time.perf_counter()
        batch = objective.collate(items, device)
        _wait(device)
        viewed = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = objective(batch)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        optimiser.step()
        objective.end_step(step, steps + 2)
        _wait(device)
        if step >= 2:  # kernels are chosen and memory is taken in the first ones
            took.append(1e3 * (time.perf_counter() - start))
            viewing.append(1e3 * (viewed - start))
        points = len(batch.views.clouds.xyz)
    middle = statistics.median(took)
    return {
        "milliseconds": middle, "fastest": min(took), "slowest": max(took), "views": statistics.median(viewing),
        "peak_gib": peak_bytes(device) / 2**30, "points": points, "points_per_second": 1e3 * points / middle,
        "loss": float(loss.total.detach()),
    }  # fmt: skip


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all variants, print them, append the record unless it is a dry run."""
    device = torch.device(options.device)
    items = [room(seed, options.points) for seed in range(options.scenes)]
    config = Sonata(student=PointStudentConfig(network=options.network, size=options.size))
    if options.network == "tiny":
        config = replace(config, prototypes=256, hidden=256, dimensions=64)
    kept = replace(config, student=replace(config.student, checkpoint=True))
    rows = []
    for name in options.variants:
        chosen = kept if name == "checkpointed" else config
        try:
            if name == "straightforward":
                with straightforward():
                    row = measure(chosen, items, options.steps, device, options.bf16)
            else:
                row = measure(chosen, items, options.steps, device, options.bf16)
        except torch.cuda.OutOfMemoryError:
            print(f"{name}: out of memory")
            continue
        rows.append({"variant": name, **row})
        print(f"{name}: {rows[-1]['milliseconds']:.0f} ms a step", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    table(f"sonata, {options.network}, {options.scenes} scenes", rows, COLUMNS)
    if not options.dry:
        where = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        )
        settings = {k: v for k, v in vars(options).items() if k not in ("dry", "variants")} | {"where": where}
        append("sonata_cost", settings, rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="tiny")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--points", type=int, default=8000)
    parser.add_argument("--size", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--variants", nargs="+", default=["checkpointed", "ours", "straightforward"])
    parser.add_argument("--dry", action="store_true", help="do not record")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
