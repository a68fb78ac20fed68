"""Why does the rank of Sonata's features fall? One setting of the tiny recipe changed at a time, and labels beside it.

At the end of each training teacher and student are shown whole views of rooms of the validation split:

  rank        `feature_rank` of what they say of coarse cells
  agreement   the share of its variance that two views of the same place have in common
  height      R² of the height in the strongest principal component: the shortcut of the paper

Most trainings are as short as shows the fall, which comes early; those of two settings are whole, with three seeds, a
curve and the linear probe of the recipe. Beside them the same encoder is trained on labels, which says what rank a
network has that knows what it should know.

python -m tests.benchmarks.sonata_health [--folder FOLDER] [--steps 60] [--dry]

Some 40 minutes on one CPU core. It takes the corpus of `sonata_learning`, where the folder has it. What a folder holds
already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.report import append, table
from tests.benchmarks.sonata_learning import prepare, write_recipe

if TYPE_CHECKING:
    from brickyard.infra.recipe import Recipe
    from brickyard.shards.corpus import Corpus
    from brickyard.train.loop import TrainConfig
    from brickyard.train.objectives.sonata import Coarse, Sonata, SonataObjective
    from brickyard.train.students.base import Student
    from brickyard.train.views.views import Views

BEFORE, RECIPE, KOLEO, LABELS = "before training", "sonata-tiny", "KoLeo, a little colder", "trained on labels"
COLDER = "train.objective.teacher_temperature=[0.04, 0.04]"
SPREAD, CYCLE = "train.objective.koleo=0.5", "train.momentum_cycle=[0.95, 0.85]"
LONG: dict[str, tuple[str, ...]] = {
    RECIPE: (),
    KOLEO: (SPREAD, "train.objective.teacher_temperature=[0.04, 0.055]"),
    "KoLeo, colder": (SPREAD, COLDER),
}
SHORT: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "teacher's temperature 0.04": (COLDER,),
    "teacher's temperature 0.02": ("train.objective.teacher_temperature=[0.02, 0.02]",),
    "teacher's momentum from 0.95": ("train.objective.momentum=[0.95, 1.0]",),
    "1,024 prototypes of 256 dimensions": ("train.objective.prototypes=1024", "train.objective.dimensions=256"),
    "a quarter of the learning rate": ("train.lr=0.0005",),
    "beta1 from 0.95 to 0.85 and back": (CYCLE,),
    "no masks": ("train.objective.mask_ratio=[0.0, 0.0]",),
    "KoLeo 0.5": (SPREAD,),
}
"""What is changed -> settings."""
SEEDS = (0, 1, 2)
"""Of the long trainings; all else has the first."""
EVERY = 50
"""Steps between the points of a long training's curve."""
AT = (0, 2, 5, 10, 20, 40, 80)
"""Steps of the training on labels at which it is measured; it ends with the last."""
SCENES = 12
COLUMNS = {
    "setting": "s changed", "teacher": ".1f rank, teacher", "student": ".1f student", "entropy": ".2f entropy",
    "agreement": ".2f agreement", "height": ".2f height",
}  # fmt: skip


def loaded(folder: Path, changes: tuple[str, ...]) -> tuple[Recipe, TrainConfig, Sonata]:
    """The tiny recipe with other settings."""
    from brickyard.infra.recipe import load_recipe
    from brickyard.infra.verbs.train import training
    from brickyard.train.objectives.sonata import Sonata

    write_recipe(folder / "health.yaml", {}, EVERY)
    recipe, _ = load_recipe(folder / "health.yaml", ("train.keep_last=100", *changes), raw=False)
    loop, settings = training(recipe.train)
    assert isinstance(settings, Sonata)
    return recipe, loop, settings


def views_of(objective: SonataObjective, corpus: Corpus) -> Views:
    """Of the first rooms of the validation split."""
    import torch

    from brickyard.shards.stream import Stream

    rows = corpus.select(dataset="scannet", split="val")
    stream = Stream(corpus, objective.fields, batch=SCENES, rows=rows, prepare=objective.prepare, seed=0, threads=1)
    objective.begin_step(1, 1)
    return objective.collate(next(iter(stream)), torch.device("cpu")).views


def measured(network: Any, views: Views, settings: Sonata) -> dict[str, float]:
    """Rank, agreement and height of what a network says of the global views."""
    import torch

    from brickyard.train.objectives.matching import Task, match
    from brickyard.train.objectives.sonata import Coarse
    from brickyard.train.objectives.spread import agreement, feature_rank

    whole = views.clouds.first(2 * views.scenes)
    mode = network.training
    network.eval()
    with torch.no_grad():
        said = Coarse.of(network, network(whole, origin=views.origin[: len(whole.xyz)]), settings.upcast)
    network.train(mode)
    pairs = [(scene, scene + views.scenes) for scene in range(views.scenes)]
    (same,) = match([Task(points=said.origins, others=said.origins, pairs=pairs)], settings.radius)
    return {
        "rank": float(feature_rank(said.features)),
        "agreement": float(agreement(said.features[same.rows], said.features[same.others])),
        "height": height(said),
    }


def height(said: Coarse) -> float:
    """R² of the height in the first principal component (their squared correlation)."""
    import torch

    strongest = torch.linalg.svd(said.features - said.features.mean(0), full_matrices=False).U[:, 0]
    return float(torch.corrcoef(torch.stack((strongest, torch.cat(said.origins)[:, 2])))[0, 1] ** 2)


def run_of(folder: Path, name: str, seed: int) -> Path:
    return folder / "health" / f"{name.replace(' ', '-')}-{seed}"


def followed(name: str, changes: tuple[str, ...], folder: Path, corpus: Corpus, seed: int = 0) -> dict[str, Any]:
    """One training: the student at every checkpoint, the teacher at the end; the metric, as means of ten steps."""
    import torch
    from safetensors.torch import load_file

    from brickyard.train.loop import train
    from brickyard.train.running.metrics import METRICS

    _, loop, settings = loaded(folder, (*changes, f"train.seed={seed}"))
    run = run_of(folder, name, seed)
    train(loop, settings, corpus, run)
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    torch.manual_seed(loop.seed)
    objective = settings.build()
    views = views_of(objective, corpus)
    curve = [{"step": 0, **measured(objective.student, views, settings)}]
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        objective.load_state_dict(load_file(checkpoint / "weights.safetensors"))
        step = int(checkpoint.name.removeprefix("step-"))
        curve.append({"step": step, **measured(objective.student, views, settings)})
    teacher = measured(objective.networks["teacher"], views, settings)
    row = {"setting": name, "steps": curve[-1]["step"], "teacher": teacher["rank"], "student": curve[-1]["rank"]}
    row |= {"entropy": _mean(lines[-20:], "teacher_entropy")}
    ends = (1, *range(10, len(lines) + 1, 10))
    ranks = [{"step": end, "rank": _mean(lines[max(0, end - 10) : end], "feature_rank")} for end in ends]
    row |= {key: curve[-1][key] for key in ("agreement", "height")}
    return {"row": row, "curve": curve, "ranks": ranks}


def averaged(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of all numbers; texts are the same in all rows."""
    return {key: value if isinstance(value, str) else _mean(rows, key) for key, value in rows[0].items()}


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def labelled(folder: Path, corpus: Corpus) -> tuple[list[dict[str, float]], Student]:
    """The recipe's encoder, trained on labels with the recipe's learning rate: a point for each step in AT, and it."""
    import torch
    from torch.nn.functional import cross_entropy

    from brickyard.evaluate.features import Encoder
    from brickyard.evaluate.labels import label_field
    from brickyard.shards.scene import UNLABELLED
    from brickyard.shards.stream import Stream
    from brickyard.shards.taxonomy import taxonomy

    _, loop, settings = loaded(folder, ())
    torch.manual_seed(loop.seed)
    objective = settings.build()
    views, student = views_of(objective, corpus), objective.student
    classifier = torch.nn.Linear(student.channels, len(taxonomy("scannet20").classes))
    optimiser = torch.optim.AdamW([*student.parameters(), *classifier.parameters()], lr=loop.lr)
    fields = (*student.fields, label_field("scannet20"))
    prepare = Encoder(student, corpus, "scannet20", threads=1)._prepare
    rows = corpus.select(dataset="scannet", split="train")
    stream = Stream(corpus, fields, batch=loop.batch, rows=rows, prepare=prepare, seed=0, threads=1)
    curve: list[dict[str, float]] = []
    student.train()
    for step, items in enumerate(stream):
        if step in AT:
            curve.append({"step": step, **measured(student, views, settings)})
        if step == AT[-1]:
            break
        said = student.encode([cloud for cloud, *_ in items])
        labels = torch.cat([each for _, each, *_ in items])[said.representative]
        known = labels != UNLABELLED
        loss = cross_entropy(classifier(said.features[known]), labels[known].long())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return curve, student.eval()


def probes(folder: Path, corpus: Corpus, taught: Student) -> dict[str, list[float]]:
    """mIoU of the recipe's linear probe: of the network before training, the long trainings, and `taught`."""
    from brickyard.evaluate.features import random_student
    from brickyard.evaluate.protocols.linear_probe import probe
    from brickyard.infra.verbs.evaluate import EvaluateConfig
    from brickyard.train.students.export import load_student

    config = loaded(folder, ())[0].evaluate.load(EvaluateConfig).linear_probe
    students = {BEFORE: [random_student(taught.config, seed) for seed in SEEDS]}
    students |= {name: [load_student(run_of(folder, name, seed) / "final") for seed in SEEDS] for name in LONG}
    students[LABELS] = [taught]
    return {name: [probe(student, corpus, config).miou for student in group] for name, group in students.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "brickyard-sonata")
    parser.add_argument("--steps", type=int, default=60, help="of the short trainings")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from brickyard.shards.corpus import Corpus

    torch.set_num_threads(1)
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus.open(prepare(folder))
    curve, taught = labelled(folder, corpus)
    curves, ranks, rows = {LABELS: curve}, {}, []
    for name, changes in LONG.items():
        found = [followed(name, changes, folder, corpus, seed) for seed in SEEDS]
        rows.append(averaged([each["row"] for each in found]))
        curves[name] = [averaged(points) for points in zip(*(each["curve"] for each in found), strict=True)]
        ranks[name] = [averaged(points) for points in zip(*(each["ranks"] for each in found), strict=True)]
    for name, changes in SHORT.items():
        rows.append(followed(name, (*changes, f"train.steps={options.steps}"), folder, corpus)["row"])
    scores = probes(folder, corpus, taught)
    table("sonata-tiny", rows, COLUMNS)
    print(scores)
    if not options.dry:
        append(
            "sonata_health", {"steps": options.steps, "seeds": SEEDS}, rows, curves=curves, ranks=ranks, probes=scores
        )


if __name__ == "__main__":
    main()
