"""Objectives that draw views read these and no others, and learn what they learned when they read all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.cache import CacheConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from brickyard.train.augment import CropConfig, CuboidConfig
from brickyard.train.objectives import PPKT, Sonata, STSLidR
from brickyard.train.objectives.objective import Objective, ObjectiveConfig
from brickyard.train.objectives.sonata_images import ImageTerm
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from tests.shards.counting import counted, heavy
from tests.worlds import toy_scene

CROP = CropConfig(height=32, width=32, min_pairs=1)
PAIRED: dict[str, Any] = {
    "student": UNetConfig(network="tiny"), "crop": CROP, "cuboid": CuboidConfig(min_pairs=1), "views": 2,
}  # fmt: skip
SONATA = Sonata(
    student=PointStudentConfig(network="tiny", size=0.5), prototypes=16, hidden=24, dimensions=8,
    images=ImageTerm(views=2, crop=CROP),
)  # fmt: skip
OBJECTIVES = {"stslidr": STSLidR(**PAIRED), "ppkt": PPKT(**PAIRED), "sonata": SONATA}
SEED, SCENES, BLIND = 11, 6, (1, 4)


def blinded(scene: Scene) -> Scene:
    """A scene of six views: one without any pair, one whose pairs are not there at all."""
    first, second = BLIND
    views = list(scene.views)
    pairs = views[first].pairs
    assert pairs is not None
    none = {"point": pairs.point[:0], "pixel": pairs.pixel[:0], "depth": pairs.depth[:0], "visible": pairs.visible[:0]}
    views[first] = replace(views[first], pairs=replace(pairs, **none))
    views[second] = replace(views[second], pairs=None)
    return replace(scene, views=tuple(views))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    store, fingerprint = Store(tmp_path_factory.mktemp("reading") / "corpus"), {"reading": SCENES}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    scenes = [heavy(blinded(toy_scene(i, views=0 if i == 5 else 6))) if i != 5 else toy_scene(5, views=0)
              for i in range(SCENES)]  # fmt: skip
    commit_task(store, 0, build, [encode_scene(scene) for scene in scenes], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(store)


@pytest.fixture(scope="module")
def built() -> dict[str, Objective]:
    torch.manual_seed(0)
    return {name: config.build() for name, config in OBJECTIVES.items()}


def items(corpus: Corpus, objective: Objective, *, chosen: bool) -> list[Any]:
    stream = Stream(
        corpus, objective.fields, batch=SCENES, seed=SEED, epochs=3, prepare=objective.prepare,
        choose=objective.choose if chosen else None,
    )  # fmt: skip
    return [one for batch in stream for one in batch]


def parts(item: Any) -> dict[str, Any]:
    """Everything in an item, flat."""
    found: dict[str, Any] = {}
    for name, value in vars(item).items():
        if hasattr(value, "__dict__") and not isinstance(value, torch.Tensor):
            found |= {f"{name}.{inner}": entry for inner, entry in parts(value).items()}
        elif isinstance(value, dict):
            found |= {f"{name}.{inner}": entry for inner, entry in value.items()}
        else:
            found[name] = value
    return found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_read_changes_no_item(corpus: Corpus, built: dict[str, Objective], name: str) -> None:
    objective, images = built[name], 0
    pairs = zip(*(items(corpus, objective, chosen=chosen) for chosen in (True, False)), strict=True)
    for less, whole in pairs:
        ours, theirs = parts(less), parts(whole)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            same = torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key]
            assert same, key
        images += sum(len(value) for key, value in ours.items() if key.rpartition(".")[2] == "images")
    assert images == 2 * 3 * (SCENES - 1) or (name == "sonata" and images > 2 * 2 * (SCENES - 1))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_views_are_those_that_were_always_drawn(corpus: Corpus, built: dict[str, Objective], name: str) -> None:
    """Written down here as the draws that runs of earlier versions made, so that those go on the same."""
    objective = built[name]
    stream = Stream(corpus, objective.fields, batch=1, epochs=2, seed=SEED, choose=objective.choose)
    for (sample,) in stream:
        rng = np.random.default_rng((SEED, sample.position))
        if name == "sonata":
            rng.integers(2**62)
            usable = [v for v in range(sample.views) if v != BLIND[1]]  # no pairs at all, but not none of them
            wanted = rng.permutation(usable)[:2].tolist()
        else:
            usable = [v for v in range(sample.views) if v not in BLIND]
            wanted = [usable[i] for i in rng.permutation(len(usable))][:2]
        read = {int(field.split("/")[1]) for field in sample.fields if field.endswith("/image")}
        assert read == set(wanted) and len(read) == (2 if sample.views else 0)
        assert {field for field in sample.fields if field.startswith("points/")} == set(objective.student.fields)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_images_of_six_are_read(corpus: Corpus, built: dict[str, Objective], name: str, tmp_path: Path) -> None:
    found = []
    for chosen in (True, False):
        cached = Corpus.open(corpus.store.uri, cache=CacheConfig(folder=str(tmp_path / str(chosen))))
        with counted() as count:
            stream = Stream(
                cached, built[name].fields, batch=1, epochs=1, choose=built[name].choose if chosen else None
            )
            assert sum(map(len, stream)) == SCENES
        found.append(count)
    less, whole = found
    assert less.bytes / whole.bytes < 0.45  # 2 / 6 of the images, and points
    assert less.calls == 2 * SCENES and whole.calls == SCENES


def test_where_headers_do_not_tell_all_is_read() -> None:
    for config in (STSLidR(**PAIRED | {"visible_only": True}), STSLidR(**PAIRED | {"views": None}), plain(SONATA)):
        assert config.build().choose is None


def plain(config: Sonata) -> ObjectiveConfig:
    return replace(config, images=None)
