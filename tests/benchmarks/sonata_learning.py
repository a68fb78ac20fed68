"""Does Sonata learn? The whole table: three seeds, the curve over steps, what stands beside them.

Everything is made from `train/recipes/sonata-tiny.yaml`: its world is simulated, its corpus built, every variant
trained with every seed, and each checkpoint judged by the linear probe of the recipe on rooms never seen in training.
Beside them stand the network before training, a linear layer on colour, height and normal, and nearest neighbours. The
variants take away what the paper says matters:

  no masks        the student sees global views whole
  with a decoder  a U-Net: the loss is about a decoder's output at the finest cells, which is also what is judged

python -m tests.benchmarks.sonata_learning [--folder FOLDER] [--seeds 0 1 2] [--jobs 2]

Less than an hour on two CPU cores. What a folder holds already is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.report import append, table

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "train" / "recipes"
DECODER = {"channels": [32, 32, 48, 64], "heads": [2, 2, 3, 4], "depths": [1, 1, 1, 1], "drop_path": 0.1}
VARIANTS: dict[str, dict[str, Any]] = {
    "sonata": {},
    "no masks": {"mask_ratio": [0.0, 0.0]},
    "with a decoder": {"student": {"decoder": DECODER}},
}
SEEDS = {"no masks": 2, "with a decoder": 1}
"""Of the ablations; the second one's effect is many times the spread of seeds, and it takes three times as long."""
POINTS = 2
"""On the curve, the beginning not counted."""
COLUMNS = {
    "variant": "s variant", "step": "d step", "miou": ".1f linear mIoU %", "deviation": ".1f std", "seeds": "d seeds",
}  # fmt: skip


def prepare(folder: Path) -> Path:
    """Simulate and build; returns the corpus."""
    corpus = folder / "corpus"
    if not (corpus / "manifest.json").exists():
        world = RECIPES / "sonata-tiny-rooms.yaml"
        brickyard("simulate", "--out", folder / "raw", "--datasets", "scannet", "--config", world)
        write_recipe(folder / "build.yaml", {}, 1)
        brickyard("build", folder / "build.yaml", "--out", corpus, "--in-process")
    return corpus


def write_recipe(path: Path, changed: dict[str, Any], every: int) -> None:
    """The tiny recipe with another objective, checkpoints that stay, and sources in the folder of the file."""
    recipe = yaml.safe_load((RECIPES / "sonata-tiny.yaml").read_text())
    recipe["sources"][0]["root"] = "raw/scannet"
    objective = recipe["train"]["objective"]
    for name, value in changed.items():
        objective[name] = objective[name] | value if isinstance(value, dict) else value
    recipe["train"] |= {"checkpoint_every": every, "keep_last": 2 * POINTS, "keep_best": False}
    recipe["evaluate"]["pictures"] = 0
    if changed:  # what stands beside Sonata stands beside its variants
        recipe["evaluate"] |= {"protocols": ["linear_probe"], "baselines": [], "settings": {}}
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))


def learn(folder: Path, corpus: Path, variant: str, seed: int, steps: int) -> None:
    """Train and judge one variant with one seed, in processes of their own."""
    name = f"{variant.replace(' ', '-')}-{seed}"
    run, recipe = folder / name, folder / f"{name}.yaml"
    if (run / "curve.json").exists():
        return
    write_recipe(recipe, VARIANTS[variant], steps // POINTS)
    brickyard("train", recipe, "--corpus", corpus, "--out", run, "--seed", str(seed))
    brickyard("evaluate", recipe, "--corpus", corpus, "--run", run)
    call(sys.executable, "-m", "tests.benchmarks.sonata_learning", "--curve", recipe, "--corpus", corpus, "--run", run)


def curve(recipe: Path, corpus: Path, run: Path) -> None:
    """Judge the student of every checkpoint, and the one before training; writes curve.json."""
    from safetensors.torch import load_file

    from brickyard.evaluate.features import random_student
    from brickyard.evaluate.protocols.linear_probe import probe
    from brickyard.infra.recipe import load_recipe
    from brickyard.infra.verbs.evaluate import EvaluateConfig
    from brickyard.shards.corpus import Corpus
    from brickyard.train.students.export import load_student

    config = load_recipe(recipe)[0].evaluate.load(EvaluateConfig).linear_probe
    seed = json.loads((run / "config.json").read_text())["train"]["seed"]
    opened, student = Corpus.open(corpus), load_student(run / "final")
    points = [{"step": 0, "miou": probe(random_student(student.config, seed), opened, config).miou}]
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        weights = load_file(checkpoint / "weights.safetensors")
        prefix = "trained.encoder."
        student.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
        step = int(checkpoint.name.removeprefix("step-"))
        points.append({"step": step, "miou": probe(student, opened, config).miou})
    (run / "curve.json").write_text(json.dumps(points, indent=1) + "\n")


def collect(folder: Path, wanted: Mapping[str, Sequence[int]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows of the curve, what else was measured) of all runs."""
    from brickyard.evaluate.records import read_results

    rows: list[dict[str, Any]] = []
    final: dict[str, Any] = {}
    for variant, seeds in wanted.items():
        runs = [folder / f"{variant.replace(' ', '-')}-{seed}" for seed in seeds]
        curves = [json.loads((run / "curve.json").read_text()) for run in runs]
        for points in zip(*curves, strict=True):
            scores = [100 * point["miou"] for point in points]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            rows.append({
                "variant": variant, "step": points[0]["step"], "miou": statistics.fmean(scores), "deviation": spread,
                "seeds": len(scores),
            })  # fmt: skip
        results = [read_results(run) for run in runs]
        final[variant] = {
            protocol["protocol"]: {
                start: {
                    metric: statistics.fmean(each[number]["results"][start][metric] for each in results)
                    for metric, value in scores.items()
                    if isinstance(value, int | float)
                }
                for start, scores in protocol["results"].items()
            }
            for number, protocol in enumerate(results[0])
        }
        summaries = [json.loads((run / "final" / "summary.json").read_text()) for run in runs]
        final[variant]["training"] = {
            "seconds": statistics.fmean(summary["seconds"] for summary in summaries),
            "data_wait": statistics.fmean(summary["data_wait"] for summary in summaries),
            "peak_bytes": max(summary["memory"]["peak"] for summary in summaries),
        }
    return rows, final


def brickyard(verb: str, *arguments: str | Path) -> None:
    call(sys.executable, "-m", "brickyard.infra.cli", verb, *arguments)


def call(*words: str | Path) -> None:
    done = subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words[2:5]))} failed:\n{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "brickyard-sonata")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dry", action="store_true", help="print only")
    for hidden in ("--curve", "--corpus", "--run"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.curve:
        curve(options.curve, options.corpus, options.run)
        return
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # runs side by side, a core each
    corpus = prepare(folder)
    steps = yaml.safe_load((RECIPES / "sonata-tiny.yaml").read_text())["train"]["steps"]
    wanted = {variant: options.seeds[: SEEDS.get(variant)] for variant in VARIANTS}
    begun = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [
            pool.submit(learn, folder, corpus, variant, seed, steps)
            for variant, seeds in wanted.items()
            for seed in seeds
        ]
        for number, job in enumerate(jobs, 1):
            job.result()
            print(f"{number}/{len(jobs)} runs, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    rows, final = collect(folder, wanted)
    table("sonata-tiny on simulated rooms", rows, COLUMNS)
    if not options.dry:
        append("sonata_learning", {"steps": steps, "seeds": wanted}, rows, final=final)


if __name__ == "__main__":
    main()
