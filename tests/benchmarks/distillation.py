"""Which way of learning from images is best, here? All objectives, one world, three seeds.

Everything is made from `train/recipes/stslidr-tiny.yaml`: its drives are simulated, its corpus built, every
variant trained with every seed from the same initial student, and each judged on the drives of the validation split:

  linear     a linear layer on frozen features of the training scans, mean IoU
  rare       the same layer, mean over the classes that have less than 5 % of the labelled training points
  1 %        fine-tuning on one in a hundred scans (which ones, the seed decides), mean IoU

The first row is the student before training. Two rows ask about what nobody published: cameras dropped, and sweeps
apart, which trains on a corpus with three sweeps of the same drives and is judged on the keyframes' own.

A second table asks what exclusion does to the batches of training: of the pairs of superpixels that show the same class
(by the labels of their points, which training never sees), how many are left out as negatives, and of what is left out,
how much is of the same class.

python -m tests.benchmarks.distillation [--folder FOLDER] [--world 0] [--seeds 0 1 2] [--only NAME ...] [--dry]

Half an hour on one free CPU core. What a folder holds already is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.report import append, environment, table

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "train" / "recipes"
SWEEPS = "sweeps apart"
VARIANTS: dict[str, dict[str, Any]] = {
    "random": {},
    "PPKT": {"name": "ppkt", "max_pairs": 2048},
    "SLidR": {"name": "slidr"},
    "ST-SLidR, similarity": {"weighting": "similarity", "balance": "none"},
    "ST-SLidR, kNN": {"weighting": "neighbours", "balance": "none"},
    "ST-SLidR, kNN, votes": {"weighting": "neighbours", "balance": "votes"},
    "adaptive": {"weighting": "adaptive", "balance": "none"},
    "ScaLR": {"name": "scalr"},
    "ScaLR, centred": {"name": "scalr", "centre": True},
    "adaptive, effective": {"weighting": "adaptive", "balance": "effective"},
    "adaptive, clusters": {"weighting": "adaptive", "balance": "clusters"},
    "SLidR, cameras dropped": {"name": "slidr", "camera_drop": 0.5},
    f"SLidR, {SWEEPS}": {"name": "slidr", "sweeps": "apart"},
}
"""Row -> what is changed in the recipe's objective."""
SCALR = {"crop": {"height": 112, "width": 208, "area": [1.0, 1.0], "aspect": [16 / 9, 16 / 9], "flip": 0.0},
         "cuboid": {"extent": 0.0}}  # fmt: skip
RARE = 0.05
COLUMNS = {
    "variant": "s variant", "linear": ".1f linear mIoU %", "linear_std": ".1f std", "rare": ".1f rare mIoU %",
    "rare_std": ".1f std", "finetune": ".1f 1 % mIoU %", "finetune_std": ".1f std", "seeds": "d seeds",
}  # fmt: skip
EXCLUSION = {
    "weighting": "s exclusion", "kind": "s classes", "share": ".1f % of anchors", "found": ".1f % of alike left out",
    "pure": ".1f % of left out alike",
}  # fmt: skip


def prepare(folder: Path, world: int) -> dict[str, Path]:
    """Simulate and build; returns the corpus of keyframes, and the one with sweeps."""
    if not (folder / "raw" / "nuscenes").exists():
        sizes = RECIPES / "stslidr-tiny-world.yaml"
        raw = ("--out", folder / "raw", "--datasets", "nuscenes", "--config", sizes, "--seed", str(world))
        brickyard("simulate", *raw)
    corpora = {"corpus": 1, SWEEPS: 3}
    for name, sweeps in corpora.items():
        if not (folder / name / "manifest.json").exists():
            recipe = yaml.safe_load((RECIPES / "stslidr-tiny.yaml").read_text())
            recipe["sources"][0] |= {"root": "raw/nuscenes", "options": {"sweeps": sweeps}}
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
            brickyard("build", folder / f"{name}.yaml", "--out", folder / name, "--in-process")
    return {name: folder / name for name in corpora}


def learn(folder: Path, corpora: Mapping[str, Path], variant: str, seed: int) -> None:
    """Train and judge one variant with one seed; writes scores.json."""
    import torch

    from brickyard.evaluate.features import random_student
    from brickyard.infra.recipe import load_recipe
    from brickyard.infra.verbs.train import training
    from brickyard.shards.corpus import Corpus
    from brickyard.train.loop import train
    from brickyard.train.students.export import load_student

    run = folder / f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
    if (run / "scores.json").exists():
        return
    torch.set_num_threads(1)
    corpus = Corpus.open(corpora["corpus"])
    config, objective = training(load_recipe(recipe_of(folder, variant, seed), raw=False)[0].train)
    if variant == "random":
        student = random_student(objective.student, seed)  # type: ignore[attr-defined]
    else:
        train(config, objective, Corpus.open(corpora[SWEEPS]) if SWEEPS in variant else corpus, run)
        student = load_student(run / "final")
    run.mkdir(exist_ok=True)
    scores = judge(student, corpus, seed) | {"commit": environment()["commit"]}
    (run / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")


def recipe_of(folder: Path, variant: str, seed: int) -> Path:
    """The tiny recipe with another objective and seed."""
    recipe = yaml.safe_load((RECIPES / "stslidr-tiny.yaml").read_text())
    objective = recipe["train"]["objective"] | VARIANTS[variant]
    if objective["name"] == "scalr":
        objective |= SCALR
        del objective["pixel_stride"]
    recipe["train"] |= {"objective": objective, "seed": seed}
    path = folder / "variant.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def judge(student: Any, corpus: Any, seed: int) -> dict[str, Any]:
    """IoU of every class by the linear probe and by fine-tuning."""
    from brickyard.evaluate.protocols.linear_probe import probe
    from brickyard.evaluate.supervised import SupervisedConfig, supervised
    from brickyard.infra.recipe import load_recipe
    from brickyard.infra.verbs.evaluate import EvaluateConfig

    probed = load_recipe(RECIPES / "stslidr-tiny.yaml", raw=False)[0].evaluate.load(EvaluateConfig).linear_probe
    tuned = SupervisedConfig(
        kind="finetune", taxonomy=probed.taxonomy, dataset=probed.dataset, fraction=0.01, draw_seed=seed, seed=seed,
        grid=None, steps=40, batch=1, lr=0.005, encoder_rate=0.2, augment=None, test_variants="none", most_turns=1,
        threads=1,
    )  # fmt: skip
    linear, finetune = probe(student, corpus, probed), supervised(student, corpus, tuned)
    return {"linear": linear.iou, "linear_miou": linear.miou, "finetune": finetune.iou, "finetune_miou": finetune.miou}


def shares(corpus: Any, taxonomy: str = "nuscenes16") -> dict[str, float]:
    """Class -> its share of the labelled points of the training scans."""
    import numpy as np

    from brickyard.shards.scene import UNLABELLED
    from brickyard.shards.taxonomy import taxonomy as named

    names = named(taxonomy).classes
    counts = np.zeros(len(names), np.int64)
    for row in corpus.select(split="train").tolist():
        labels = corpus.scene(corpus.keys[row]).points.semantic[taxonomy]
        counts += np.bincount(labels[labels != UNLABELLED], minlength=len(names))
    return {name: float(count / counts.sum()) for name, count in zip(names, counts, strict=True) if count}


def collect(folder: Path, seeds: Sequence[int], variants: Sequence[str], rare: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each variant: means and deviations over seeds, in percent."""
    rows = []
    for variant in variants:
        name = variant.replace(", ", "-").replace(" ", "-")
        files = [folder / f"{name}-{seed}" / "scores.json" for seed in seeds]
        found = [json.loads(file.read_text()) for file in files if file.exists()]
        if not found:
            continue
        row: dict[str, Any] = {"variant": variant, "seeds": len(found), "commits": sorted({o["commit"] for o in found})}
        scores = {
            "linear": [100 * one["linear_miou"] for one in found],
            "rare": [100 * statistics.fmean(one["linear"][c] for c in rare) for one in found],
            "finetune": [100 * one["finetune_miou"] for one in found],
        }
        for column, values in scores.items():
            row[column] = statistics.fmean(values)
            row[f"{column}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
            row[f"{column}_all"] = values
        rows.append(row)
    return rows


def excluded(
    folder: Path, corpora: Mapping[str, Path], frequent: Mapping[str, float]
) -> tuple[list[dict[str, Any]], float]:
    """What exclusion does to batches of training, for rare and other classes; and the median similarity of superpixels
    of different classes."""
    import torch

    from brickyard.evaluate.labels import label_field
    from brickyard.infra.recipe import load_recipe
    from brickyard.infra.verbs.train import training
    from brickyard.shards.corpus import Corpus
    from brickyard.shards.stream import Stream
    from brickyard.shards.taxonomy import taxonomy
    from brickyard.train.augment import CuboidConfig
    from brickyard.train.objectives import contrastive
    from brickyard.train.objectives.alike import find_alike, find_thresholds
    from brickyard.train.objectives.image_to_lidar import describe

    torch.set_num_threads(1)
    corpus, names = Corpus.open(corpora["corpus"]), taxonomy("nuscenes16").classes
    _, settings = training(load_recipe(recipe_of(folder, "adaptive", 0), raw=False)[0].train)
    whole = CuboidConfig(extent=0.0)  # so that labels stay aligned with points
    objective: Any = dataclasses.replace(settings, cuboid=whole).build()  # type: ignore[call-arg]
    stream = Stream(
        corpus, (*objective.fields, label_field("nuscenes16")), batch=4, rows=corpus.select(split="train"),
        threads=1, prepare=lambda sample, rng: labelled(objective, sample, rng),
    )  # fmt: skip
    batches = iter(stream)
    totals: dict[tuple[str, str], Any] = {}
    anchors, unlike = 0, []
    for _ in range(20):
        items = next(batches)
        batch = objective.collate([item for item, _ in items], torch.device("cpu"))
        classes = superpixel_classes(batch, torch.cat([labels for _, labels in items]), len(names))
        seen = objective.teacher(batch.images.float() / 255)
        stride = objective.config.pixel_stride
        labels = batch.labels[:, stride // 2 :: stride, stride // 2 :: stride]
        area = torch.bincount(labels[labels >= 0], minlength=batch.superpixels)
        described = describe(seen, labels, (labels >= 0).nonzero(as_tuple=True), area)
        known = (classes >= 0) & contrastive.described(described)
        similar, kind = contrastive.similarity(described[known]), classes[known]
        own = torch.eye(len(kind), dtype=torch.bool)
        same = (kind[:, None] == kind) & ~own
        rare = torch.tensor([frequent.get(name, 0.0) < RARE for name in names])[kind]
        anchors += len(kind)
        unlike.append(float(similar[kind[:, None] != kind].median()))
        for name, out in {
            "most similar 1 %": contrastive.neighbour_weights(similar) == 0,
            "adaptive": find_alike(similar, find_thresholds(similar, 1.5), torch.arange(len(kind))) & ~own,
        }.items():
            for group, rows in {"rare": rare, "others": ~rare}.items():
                sums = torch.tensor([rows.sum(), same[rows].sum(), out[rows].sum(), (same & out)[rows].sum()])
                totals[name, group] = totals.get((name, group), 0) + sums
    batches.close()  # type: ignore[attr-defined]
    done = [
        {
            "weighting": name, "kind": group, "share": 100 * float(t[0]) / anchors,
            "found": 100 * float(t[3]) / max(float(t[1]), 1), "pure": 100 * float(t[3]) / max(float(t[2]), 1),
        }
        for (name, group), t in totals.items()
    ]  # fmt: skip
    return done, statistics.median(unlike)


def labelled(objective: Any, sample: Any, rng: Any) -> tuple[Any, Any]:
    """A prepared scene and the classes of its points."""
    from brickyard.evaluate.labels import read_labels

    return objective.prepare(sample, rng), read_labels(sample, "nuscenes16")


def superpixel_classes(batch: Any, labels: Any, classes: int) -> Any:
    """int64 (M,): the class of most of a superpixel's points, -1 where most are unlabelled."""
    import torch

    of_pair = labels[batch.pair_point] + 1
    of_pair = torch.where((of_pair < 1) | (of_pair > classes), 0, of_pair)
    counts = torch.bincount(
        batch.pair_superpixel * (classes + 1) + of_pair, minlength=batch.superpixels * (classes + 1)
    )
    return counts.view(batch.superpixels, classes + 1).argmax(1) - 1


def brickyard(verb: str, *arguments: str | Path) -> None:
    words = [sys.executable, "-m", "brickyard.infra.cli", verb, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"brickyard {verb} failed:\n{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "brickyard-distillation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--world", type=int, default=0, help="seed of the drives; another one needs another folder")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="rows to make")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    from brickyard.shards.corpus import Corpus

    corpora = prepare(folder, options.world)
    frequent = shares(Corpus.open(corpora["corpus"]))
    rare = [name for name, share in frequent.items() if share < RARE]
    begun = time.monotonic()
    for seed in options.seeds:
        for variant in options.only:
            learn(folder, corpora, variant, seed)
            print(f"{variant}, seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    rows = collect(folder, options.seeds, options.only, rare)
    exclusion, unlike = excluded(folder, corpora, frequent)
    table(f"stslidr-tiny on simulated drives; rare are {', '.join(rare)}", rows, COLUMNS)
    table("what exclusion leaves out of the negatives", exclusion, EXCLUSION)
    if not options.dry:
        settings = {"world": options.world, "seeds": options.seeds, "rare": rare, "shares": frequent}
        append("distillation", settings, rows, exclusion=exclusion, unlike=unlike)


if __name__ == "__main__":
    main()
