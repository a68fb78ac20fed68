"""One table of all protocols: every scene is encoded once, baselines stand beside, JSON is plain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from brickyard.evaluate.features import Encoder, random_student
from brickyard.evaluate.protocols.knn import KnnConfig
from brickyard.evaluate.protocols.linear_probe import ProbeConfig, probe
from brickyard.evaluate.protocols.registry import PROTOCOLS, Chosen
from brickyard.evaluate.protocols.shortcut import ShortcutConfig
from brickyard.evaluate.results import Evaluation
from brickyard.evaluate.segment import SupervisedConfig
from brickyard.evaluate.splits import SceneConfig
from brickyard.evaluate.table import result_table
from brickyard.evaluate.weights import weights_digest
from brickyard.shards.corpus import Corpus
from brickyard.train.clouds import Cloud
from brickyard.train.students.base import Rows
from brickyard.train.students.point import PointStudent, PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from tests.evaluate.rooms import room_corpus
from tests.train.rings import ring_corpus

DATA: dict[str, Any] = {"taxonomy": "scannet20", "dataset": "scannet", "threads": 1}
TINY = PointStudentConfig(network="tiny", size=0.1, upcast=2)


def chosen(name: str, config: SceneConfig, protocol: str = "") -> Chosen:
    return Chosen(name=name, protocol=PROTOCOLS[protocol or name], config=config)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return room_corpus(tmp_path_factory.mktemp("rooms"), train=3, val=2, points=250)


def test_every_scene_is_encoded_once_for_all_protocols(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    whole = PointStudent.encode

    def counted(self: PointStudent, clouds: Sequence[Cloud], turn: int = 0) -> Rows:
        calls.extend(cloud.key for cloud in clouds)
        return whole(self, clouds, turn)

    monkeypatch.setattr(PointStudent, "encode", counted)
    students = {"pretrained": random_student(TINY, 1), "random": random_student(TINY, 0)}
    evaluation = Evaluation(corpus, students, keep_gib=1.0)
    entries = [
        evaluation.run(chosen("linear_probe", ProbeConfig(steps=60, batch=256, **DATA))),
        evaluation.run(chosen("knn", KnnConfig(**DATA))),
        evaluation.run(chosen("geometry", ShortcutConfig(**DATA))),
        evaluation.run(
            chosen("linear_probe@20pts", ProbeConfig(steps=60, batch=256, points_per_scene=20, **DATA), "linear_probe")
        ),
    ]
    assert sorted(calls) == sorted(corpus.keys * 2)  # two networks, each scene once
    json.dumps(entries, allow_nan=False)
    linear, knn, geometry, few = entries
    for entry in entries:
        assert list(entry["results"]) == ["random", "raw", "pretrained"]
        assert (entry["train_scenes"], entry["val_scenes"], entry["published"].get("miou")) == (3, 2, None)
    assert linear["results"]["raw"]["miou"] > 0.9 and knn["results"]["raw"]["miou"] > 0.8
    assert geometry["results"]["raw"]["height_r2"] > 0.99 > geometry["results"]["random"]["height_r2"]
    assert few["fingerprint"] != linear["fingerprint"] and few["training_data"].startswith("20 labelled points")
    assert linear["student_voxel"] == pytest.approx(0.1)

    head, rows = result_table(entries)
    assert head == ["protocol", "random", "raw inputs", "pretrained", "published by others", "fingerprint"]
    assert [row[0] for row in rows] == [
        "linear_probe, mIoU %", "knn, mIoU %", "geometry, height R²", "geometry, normal R²",
        "geometry, normal angle ° ↓", "linear_probe@20pts, mIoU %",
    ]  # fmt: skip
    assert rows[0][3] == f"{100 * linear['results']['pretrained']['miou']:.1f}" and rows[0][4] == "-"
    entries[0]["published"] = {"miou": 0.725, "source": "published (Sonata)"}
    assert result_table(entries)[1][0][4] == "72.5, published (Sonata)"


def test_a_network_that_is_trained_has_no_raw_baseline(corpus: Corpus) -> None:
    config = SupervisedConfig(kind="linear", grid=None, steps=2, batch=2, augment=None, test_variants="none", **DATA)
    evaluation = Evaluation(corpus, {"pretrained": random_student(TINY, 1)})
    entry = evaluation.run(chosen("scannet-linear-x", config, "segmentation"))
    assert list(entry["results"]) == ["pretrained"]
    assert entry["results"]["pretrained"]["accuracy"] is not None


def test_the_linear_probe_is_the_one_that_stands_alone(tmp_path: Path) -> None:
    """A U-Net's batch norms are measured the same way, so the numbers are equal bit for bit."""
    corpus = ring_corpus(tmp_path, train=3, val=1)
    config = ProbeConfig(steps=40, batch=512, threads=1)
    student = random_student(UNetConfig(network="tiny"), 2)
    alone = probe(student, corpus, config)
    entry = Evaluation(corpus, {"pretrained": student}, keep_gib=1.0).run(chosen("linear_probe", config))
    assert entry["results"]["pretrained"]["miou"] == alone.miou
    assert entry["results"]["raw"]["miou"] < 1  # height and intensity


def test_the_digest_of_weights_knows_every_bit() -> None:
    network = random_student(TINY, 0)
    assert weights_digest(network) == weights_digest(random_student(TINY, 0)) != weights_digest(random_student(TINY, 1))
    before = weights_digest(network)
    with torch.no_grad():
        next(network.parameters()).view(-1)[3] += 1e-3
    assert weights_digest(network) != before
    assert len(weights_digest(network.bfloat16())) == 32


def test_memory_for_scenes_is_bounded(corpus: Corpus) -> None:
    rows = corpus.select(split="train")
    student = random_student(TINY, 0).eval()
    size = next(Encoder(student, corpus, "scannet20", threads=1).scenes(rows)).bytes
    encoder = Encoder(student, corpus, "scannet20", threads=1, keep_gib=2.2 * size / 2**30)
    first = [scene.rows.features for scene in encoder.scenes(rows)]
    assert 1 <= len(encoder._kept) <= 2 < len(rows)
    again = [scene.rows.features for scene in encoder.scenes(rows[::-1])][::-1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
