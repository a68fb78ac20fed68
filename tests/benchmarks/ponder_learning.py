"""What does rendering teach a network of points? Terms of the loss one after another, rooms and drives, three seeds.

Rooms are those of `train/recipes/ponder-tiny.yaml`; drives are those of `stslidr-tiny-world.yaml`, on which the tiny
network is trained with the losses, range and masks of `ponder-outdoor.yaml`. Every variant of a seed begins with the
same student, and all are judged alike, on scenes of the validation split:

  linear     a linear layer on frozen features, mean IoU
  5 %        fine-tuning on a twentieth of the scenes (which ones, the seed decides), mean IoU
  PSNR, ...  views of rooms that were never seen, at every checkpoint

python -m tests.benchmarks.ponder_learning [--folder FOLDER] [--seeds 0 1 2] [--worlds rooms drives] [--dry]

An hour on one free CPU core. What a folder holds already is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.benchmarks.report import append, environment, table

if TYPE_CHECKING:
    from brickyard.infra.recipe import Recipe
    from brickyard.shards.corpus import Corpus
    from brickyard.train.loop import TrainConfig
    from brickyard.train.objectives.ponder import Ponder

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "train" / "recipes"
NO_TEACHER = {"semantics": "none"}
TEACHER = {"semantics": "features", "teacher": {"name": "efficientnet_lite0"}, "teacher_size": [96, 128]}
VARIANTS: dict[str, dict[str, Any]] = {
    "before training": {},
    "depth": {"losses": {"color": 0.0}, **NO_TEACHER},
    "depth, colour": {"losses": {"color": 10.0}, **NO_TEACHER},
    "depth, colour, features": {"losses": {"color": 10.0}, **TEACHER},
}
"""Row -> what is changed in the recipe's objective."""
WORLDS: dict[str, dict[str, Any]] = {
    "rooms": {
        "recipe": "ponder-tiny.yaml", "sizes": "ponder-tiny-rooms.yaml", "dataset": "scannet", "labels": "scannet20",
        "objective": {}, "train": {"steps": 150, "checkpoint_every": 50},
    },
    "drives": {
        "recipe": "ponder-outdoor.yaml", "sizes": "stslidr-tiny-world.yaml", "dataset": "nuscenes",
        "labels": "nuscenes16",
        "objective": {
            "student": {"kind": "sparse_unet", "network": "tiny", "inputs": ["xyz", "intensity"], "intensity": "unit",
                        "voxels": {"kind": "cartesian", "size": [0.2, 0.2, 0.2]}},
            "renderer": {"network": "tiny", "decoders": "tiny", "cells": [90, 90, 5],
                         "range": [[-36, -36, -5], [36, 36, 3]], "sampling": {"even": 32, "extra": 16}},
            "rays": {"source": "pairs", "views": 3, "per_view": 128, "nearest": 3.0},
        },
        "train": {"steps": 60, "checkpoint_every": 60, "batch": 2, "lr": 0.005, "epochs": None, "threads": 1},
    },
}  # fmt: skip
COLUMNS = {
    "world": "s world", "variant": "s trained with", "linear": ".1f linear mIoU %", "linear_std": ".1f std",
    "finetune": ".1f 5 % mIoU %", "finetune_std": ".1f std", "psnr": ".1f PSNR dB", "abs_rel": ".3f depth error",
    "seeds": "d seeds",
}  # fmt: skip
VIEWS = 6
"""Rooms of which a view is rendered at every checkpoint."""


def prepare(folder: Path, world: str) -> Path:
    """Simulate and build; returns the corpus."""
    settings, corpus = WORLDS[world], folder / world
    dataset = settings["dataset"]
    if not (folder / "raw" / dataset).exists():
        brickyard("simulate", "--out", folder / "raw", "--datasets", dataset, "--config", RECIPES / settings["sizes"])
    if not (corpus / "manifest.json").exists():
        recipe = yaml.safe_load((RECIPES / settings["recipe"]).read_text())
        source = recipe["sources"][0] | {"root": f"raw/{dataset}"}
        if world == "drives":
            source["options"] = {"sweeps": 1}
        recipe["sources"] = [source]
        (folder / f"{world}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        brickyard("build", folder / f"{world}.yaml", "--out", corpus, "--in-process")
    return corpus


def recipe_of(folder: Path, world: str, variant: str, seed: int) -> tuple[Recipe, TrainConfig, Ponder]:
    """The world's recipe with the variant's objective."""
    from brickyard.infra.recipe import load_recipe
    from brickyard.infra.verbs.train import training
    from brickyard.train.objectives.ponder import Ponder

    settings = WORLDS[world]
    recipe = yaml.safe_load((RECIPES / settings["recipe"]).read_text())
    objective = recipe["train"]["objective"] | settings["objective"]
    for name, value in VARIANTS[variant].items():
        objective[name] = objective.get(name, {}) | value if name == "losses" else value
    train = recipe["train"] | settings["train"] | {"objective": objective, "seed": seed, "keep_last": 100}
    recipe["train"] = {name: value for name, value in train.items() if value is not None}
    path = folder / f"{world}-variant.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    loaded, _ = load_recipe(path, raw=False)
    config, chosen = training(loaded.train)
    assert isinstance(chosen, Ponder)
    return loaded, config, chosen


def learn(folder: Path, world: str, variant: str, seed: int) -> None:
    """Train and judge one variant with one seed; writes scores.json."""
    import torch

    from brickyard.evaluate.features import random_student
    from brickyard.shards.corpus import Corpus
    from brickyard.train.loop import train
    from brickyard.train.students.export import load_student

    run = run_of(folder, world, variant, seed)
    if (run / "scores.json").exists():
        return
    corpus = Corpus.open(folder / world)
    _, config, objective = recipe_of(folder, world, "depth" if variant == "before training" else variant, seed)
    if variant == "before training":
        student, curve = random_student(objective.student, seed), []
    else:
        train(config, objective, corpus, run)
        student = load_student(run / "final")
        torch.manual_seed(seed)
        curve = rendered(run, objective, corpus) if world == "rooms" else []
    run.mkdir(exist_ok=True)
    scores = judge(student, corpus, world, seed) | {"curve": curve, "commit": environment()["commit"]}
    (run / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")


def run_of(folder: Path, world: str, variant: str, seed: int) -> Path:
    return folder / f"{world}-{variant.replace(', ', '-').replace(' ', '-')}-{seed}"


def judge(student: Any, corpus: Corpus, world: str, seed: int) -> dict[str, float]:
    """mIoU by the linear probe and by fine-tuning."""
    from brickyard.evaluate.protocols.linear_probe import ProbeConfig, probe
    from brickyard.evaluate.segment import SupervisedConfig
    from brickyard.evaluate.supervised import supervised

    settings = WORLDS[world]
    named = {"taxonomy": settings["labels"], "dataset": settings["dataset"]}
    probed = ProbeConfig(**named, steps=600, scenes=24, voxels_per_scene=3000)
    tuned = SupervisedConfig(
        kind="finetune", **named, fraction=0.05, draw_seed=seed, seed=seed, grid=None, steps=20, batch=1, lr=0.005,
        encoder_rate=0.2, augment=None, test_variants="none", most_turns=1, threads=1,
    )  # fmt: skip
    return {"linear": probe(student, corpus, probed).miou, "finetune": supervised(student, corpus, tuned).miou}


def rendered(run: Path, settings: Ponder, corpus: Corpus) -> list[dict[str, float]]:
    """What views of the validation rooms look like, checkpoint by checkpoint."""
    import torch
    from safetensors.torch import load_file

    from brickyard.evaluate.posed_views import posed_clouds
    from brickyard.evaluate.rendered_views import best_warp, compared, rendered_view, warped_compared
    from brickyard.train.rendering.network import RenderingNetwork

    objective = settings.build()
    network = objective.companions["rendering"]
    assert isinstance(network, RenderingNetwork)
    rows = corpus.select(split="val")[:VIEWS]
    scenes = list(posed_clouds(corpus, network, rows, views=1, side=60, threads=1))
    warps = [warped_compared(best_warp(scene.views, 0), scene.views[0]) for scene in scenes]
    curve = []
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        objective.load_state_dict(load_file(checkpoint / "weights.safetensors"))
        network.eval()
        with torch.no_grad():
            found = [compared(rendered_view(network, network([s.given]), s.views[0], 8192), s.views[0]) for s in scenes]
        means = {name: statistics.fmean(one[name] for one in found) for name in ("abs_rel", "psnr", "ssim")}
        means |= {name: statistics.fmean(one[name] for one in warps) for name in ("abs_rel_warped", "psnr_warped")}
        curve.append({"step": int(checkpoint.name.removeprefix("step-")), **means})
    return curve


def collect(folder: Path, worlds: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each world and variant: means and deviations over seeds; mIoU in percent."""
    rows = []
    for world in worlds:
        for variant in VARIANTS:
            files = [run_of(folder, world, variant, seed) / "scores.json" for seed in seeds]
            found = [json.loads(file.read_text()) for file in files if file.exists()]
            if not found:
                continue
            row: dict[str, Any] = {"world": world, "variant": variant, "seeds": len(found)}
            row["commits"] = sorted({one["commit"] for one in found})
            for name in ("linear", "finetune"):
                values = [100 * one[name] for one in found]
                row |= {name: statistics.fmean(values), f"{name}_all": values}
                row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
            row["curve"] = [
                {key: _mean([point[key] for point in points]) for key in points[0]}
                for points in zip(*(one["curve"] for one in found), strict=True)
            ]
            last = row["curve"][-1] if row["curve"] else {}
            rows.append(row | {name: last.get(name) for name in ("psnr", "abs_rel")})
    return rows


def _mean(values: Sequence[float]) -> float | None:
    """None where there is nothing to average, such as the PSNR of what renders no colours."""
    mean = statistics.fmean(values)
    return mean if math.isfinite(mean) else None


def brickyard(verb: str, *arguments: str | Path) -> None:
    words = [sys.executable, "-m", "brickyard.infra.cli", verb, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"brickyard {verb} failed:\n{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "brickyard-ponder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    for world in options.worlds:
        prepare(folder, world)
    begun = time.monotonic()
    for seed in options.seeds:
        for world in options.worlds:
            for variant in VARIANTS:
                learn(folder, world, variant, seed)
                print(f"{world}, {variant}, seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    rows = collect(folder, options.worlds, options.seeds)
    table("ponder-tiny", rows, COLUMNS)
    if not options.dry:
        append("ponder_learning", {"seeds": options.seeds}, rows)


if __name__ == "__main__":
    main()
