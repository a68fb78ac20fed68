"""What do films without poses teach? RayZer and LVSM side by side, three seeds, on films of rooms that nobody has seen.

All networks are the tiny ones of `train/recipes/rayzer-tiny.yaml` and `lvsm-tiny.yaml`, trained equally long on equally
many views, and judged alike on the same clips of the validation split, with exact poses:

  labels      LVSM with exact poses, with poses that are off by 0.5, 2 and 5 degrees, their extent by 10 %, and those
              of every tenth clip by everything (`train.objectives.pose_errors`); RayZer without any
  order       RayZer without Pluecker rays, with cameras that are free tokens, and with the scene made before the poses
  data        films of rooms alone, films of random solids alone, both

python -m tests.benchmarks.rayzer_learning [--folder FOLDER] [--seeds 0 1 2] [--steps 1500] [--dry]

What a folder holds already is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.ponder_learning import RECIPES, brickyard
from tests.benchmarks.report import append, environment, table


def off(degrees: float) -> dict[str, Any]:
    return {"recipe": "lvsm-tiny.yaml", "objective": {"pose_errors": {"degrees": degrees, "scale": 0.1, "gross": 0.1}}}


VARIANTS: dict[str, dict[str, Any]] = {
    "RayZer, no poses": {},
    "LVSM, exact poses": {"recipe": "lvsm-tiny.yaml"},
    "LVSM, 0.5 degrees off": off(0.5),
    "LVSM, 2 degrees off": off(2.0),
    "LVSM, 5 degrees off": off(5.0),
    "RayZer, numbers for rays": {"network": {"geometry": "pose"}},
    "RayZer, free tokens": {"network": {"geometry": "free"}},
    "RayZer, scene before poses": {"network": {"first": "scene"}},
    "RayZer, random solids": {"corpora": ["shapes"]},
    "RayZer, rooms and solids": {"corpora": ["films", "shapes"]},
}
"""Row -> what differs from `rayzer-tiny.yaml` on the films."""
COLUMNS = {
    "variant": "s trained with", "psnr": ".2f PSNR dB", "psnr_std": ".2f std", "ssim": ".3f SSIM",
    "better": ".0f better than the mean %", "rotation": ".0f rotation within 15 deg %", "seeds": "d seeds",
}  # fmt: skip
BASELINES = ("psnr_nearest", "psnr_mean", "psnr_blurred")
SMALL = {"video_walks": 3, "video_frames": 20, "video_size": [64, 48], "shapes_scenes": 3, "shapes_frames": 20,
         "shapes_size": [32, 32]}  # fmt: skip


def prepare(folder: Path, corpora: set[str], *, small: bool) -> None:
    """Simulate and build "films" or "shapes"; the films' validation split has rooms of its own."""
    worlds = [("video", "raw", "rayzer-tiny-world.yaml", 0), ("video", "raw/unseen", "rayzer-unseen-world.yaml", 1),
              ("shapes", "raw", "rayzer-shapes-world.yaml", 0)]  # fmt: skip
    for dataset, out, sizes, seed in worlds:
        if ("shapes" if dataset == "shapes" else "films") in corpora and not (folder / out / dataset).exists():
            config = yaml.safe_load((RECIPES / sizes).read_text())
            if small:
                config = {name: value for name, value in SMALL.items() if name in config}
            (folder / sizes).write_text(yaml.safe_dump(config))
            words = ("--datasets", dataset, "--config", folder / sizes, "--seed", str(seed))
            brickyard("simulate", "--out", folder / out, *words)
    for name, recipe in (("films", "rayzer-tiny.yaml"), ("shapes", "rayzer-shapes.yaml")):
        if name in corpora and not (folder / name / "manifest.json").exists():
            settings = [f"--set=sources.0.root={folder}/raw/{'video' if name == 'films' else 'shapes'}"]
            settings += [f"--set=sources.1.root={folder}/raw/unseen"] if name == "films" else []
            brickyard("build", RECIPES / recipe, "--out", folder / name, "--in-process", *settings)


def learn(folder: Path, variant: str, seed: int, steps: int) -> None:
    """Train and judge one variant with one seed; writes scores.json."""
    run, what = run_of(folder, variant, seed), VARIANTS[variant]
    if (run / "scores.json").exists():
        return
    recipe = RECIPES / what.get("recipe", "rayzer-tiny.yaml")
    settings = [f"train.steps={steps}", f"train.checkpoint_every={steps}", f"train.warmup={min(100, steps // 4)}"]
    settings.append(f"train.objective.clips.ramp={steps // 2}")
    for name, value in what.get("objective", {}).items():
        settings.append(f"train.objective.{name}={json.dumps(value)}")
    for name, value in what.get("network", {}).items():
        settings.append(f"train.objective.network.{name}={value}")
    corpora = [word for name in what.get("corpora", ["films"]) for word in ("--corpus", folder / name)]
    sets = [f"--set={setting}" for setting in settings]
    begun = time.monotonic()
    brickyard("train", recipe, *corpora, "--out", run, "--seed", str(seed), *sets)
    scores = judge(run, folder) | {"seconds": time.monotonic() - begun, "commit": environment()["commit"]}
    (run / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")


def judge(run: Path, folder: Path) -> dict[str, float | None]:
    """New views and, of networks that predict them, cameras, of clips that were never seen."""
    from brickyard.evaluate.protocols.novel_views import PROTOCOL as VIEWS
    from brickyard.evaluate.protocols.novel_views import NovelViewsConfig
    from brickyard.evaluate.protocols.poses import PROTOCOL as POSES
    from brickyard.evaluate.protocols.poses import PosesConfig
    from brickyard.evaluate.subject import Subject
    from brickyard.shards.corpus import Corpus
    from brickyard.train.models.view_network import ViewNetwork
    from brickyard.train.students.export import load_exported

    network, corpus = load_exported(run / "final"), Corpus.open(folder / "films")
    assert isinstance(network, ViewNetwork)
    window = 16 if corpus.index.column("n_views").to_pylist()[0] < 25 else 20
    which: dict[str, Any] = {"inputs": 2, "targets": 3, "window": window}
    config = NovelViewsConfig(**which, posed=True, pictures=0, flight=0)
    found = VIEWS.run(Subject(network, corpus), config).metrics
    result: dict[str, float | None] = {name: found[name] for name in ("psnr", "ssim", "better_than_mean", *BASELINES)}
    if not network.posed and network.tells_poses:
        poses = POSES.run(Subject(network, corpus), PosesConfig(**which)).metrics
        result |= {name: value for name, value in poses.items() if name.startswith(("rotation", "translation", "ate"))}
    return result


def run_of(folder: Path, variant: str, seed: int) -> Path:
    return folder / f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"


def collect(folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each variant, means and deviations over seeds; then the baselines, which have no seed."""
    rows: list[dict[str, Any]] = []
    baselines: dict[str, float] = {}
    for variant in VARIANTS:
        files = [run_of(folder, variant, seed) / "scores.json" for seed in seeds]
        found = [json.loads(file.read_text()) for file in files if file.exists()]
        if not found:
            continue
        baselines = {name: found[0][name] for name in BASELINES}
        values = [one["psnr"] for one in found]
        rotations = [one["rotation_15"] for one in found if one.get("rotation_15") is not None]
        rows.append({
            "variant": variant, "seeds": len(found), "psnr": statistics.fmean(values), "psnr_all": values,
            "psnr_std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "ssim": statistics.fmean(one["ssim"] for one in found),
            "better": 100 * statistics.fmean(one["better_than_mean"] for one in found),
            "rotation": 100 * statistics.fmean(rotations) if rotations else None,
            "seconds": statistics.fmean(one["seconds"] for one in found),
            "commits": sorted({one["commit"] for one in found}),
        })  # fmt: skip
    names = {
        "psnr_nearest": "nearest input view",
        "psnr_mean": "mean of both neighbours",
        "psnr_blurred": "it, blurred",
    }
    return rows + [{"variant": names[name], "psnr": value} for name, value in baselines.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "brickyard-rayzer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--small", action="store_true", help="tiny worlds, to see that it runs")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    corpora = {name for variant in options.variants for name in VARIANTS[variant].get("corpora", ["films"])}
    prepare(folder, {"films", *corpora}, small=options.small)
    begun = time.monotonic()
    for seed in options.seeds:
        for variant in options.variants:
            learn(folder, variant, seed, options.steps)
            print(f"{variant}, seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    rows = collect(folder, options.seeds)
    table("rayzer-tiny", rows, COLUMNS)
    if not options.dry:
        append("rayzer_learning", {"seeds": options.seeds, "steps": options.steps}, rows)


if __name__ == "__main__":
    main()
