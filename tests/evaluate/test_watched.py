"""A protocol while training goes on: asked of a few scenes, in the log, on the page, by the recipe and under Ray."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from brickyard.evaluate.protocols.linear_probe import ProbeConfig
from brickyard.evaluate.protocols.registry import choose
from brickyard.evaluate.watched import Watched
from brickyard.infra import ray_train
from brickyard.infra.cli import main
from brickyard.infra.ray_train import Part, Training
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.train import training, watched
from brickyard.shards.errors import RecipeError
from brickyard.train.running.metrics import read_metrics
from tests.train.rings import ring_corpus

RECIPE = """
name: rings
train:
  steps: 4
  batch: 2
  optimiser: adamw
  lr: 0.01
  checkpoint_every: 2
  threads: 1
  device: cpu
  logs: []
  objective:
    name: slidr
    student: {network: tiny, inputs: [height], intensity: unit}
    teacher: {name: efficientnet_lite0}
    crop: {height: 32, width: 64, min_pairs: 4}
    cuboid: {min_pairs: 4}
  watch:
    every: 2
    protocol: knn
    settings: {taxonomy: nuscenes16, k: 3, threads: 1}
    train_scenes: 3
    val_scenes: 2
"""


def test_by_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = ring_corpus(tmp_path / "corpus", train=6, val=3)
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    assert main(["train", str(recipe), "--corpus", str(tmp_path / "corpus"), "--out", str(run)]) == 0
    seen = {row["step"]: row["watch_miou"] for row in read_metrics(run) if "watch_miou" in row}
    assert list(seen) == [2, 4] and all(0 < miou < 1 for miou in seen.values())
    best = json.loads((run / "final" / "summary.json").read_text())["best"]
    assert best["score"] == max(seen.values())
    assert main(["runs", str(run)]) == 0
    assert "watched miou" in capsys.readouterr().out
    assert main(["show", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert "While training: miou" in (tmp_path / "page.html").read_text()
    again = load_recipe(run / "recipe.yaml")[0].train
    assert watched(again) == watched(load_recipe(recipe)[0].train)

    config, settings = training(again)  # what a worker of Ray Train does
    out = tmp_path / "ray"
    (out / "ray").mkdir(parents=True)
    parts = (Part(corpus=corpus.store.uri, fingerprint=corpus.fingerprint),)
    job = Training(config=config, settings=settings, parts=parts, out=str(out), watched=watched(again))
    ray_train._worker({"training": job})
    assert {row["step"]: row["watch_miou"] for row in read_metrics(out) if "watch_miou" in row} == seen


def test_the_subset_is_small_and_always_the_same(tmp_path: Path) -> None:
    corpus = ring_corpus(tmp_path, train=6, val=3)
    one = Watched(every=1, network="student", chosen=choose("knn", ProbeConfig()), train_scenes=2, val_scenes=1)
    small = one._small(corpus)
    assert (small.fraction, small.val_scenes) == (pytest.approx(1 / 3), 1)
    said = replace(one, chosen=replace(one.chosen, config=replace(one.chosen.config, fraction=0.5, val_scenes=2)))
    assert (said._small(corpus).fraction, said._small(corpus).val_scenes) == (0.5, 2)
    assert replace(one, train_scenes=50)._small(corpus).fraction is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("protocol: knn", "protocol: knm"), "unknown protocol 'knm'"),
        (("k: 3", "kk: 3"), r"line 21.*'kk'"),
        (("every: 2\n    protocol", "every: 0\n    protocol"), "must be positive"),
    ],
)
def test_a_wrong_section_is_refused_with_its_line(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace(*change))
    with pytest.raises(RecipeError, match=problem):
        watched(load_recipe(path)[0].train)


def test_without_a_number_of_which_more_is_better_nothing_is_the_best(tmp_path: Path) -> None:
    corpus = ring_corpus(tmp_path, train=1, val=1)
    chosen = choose("geometry", ProbeConfig())
    only = SimpleNamespace(columns=tuple(column for column in chosen.protocol.columns if column.less_is_better))
    nothing = Watched(every=1, network="student", chosen=replace(chosen, protocol=only))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="has no number of which more is better"):
        nothing.watch(corpus)
