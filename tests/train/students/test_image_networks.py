"""Networks of images that can be trained: ConvNeXt beside the residual ones, against transformers' own backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.loop import TrainConfig, train
from brickyard.train.students.export import load_companions, load_student
from brickyard.train.students.image_networks import CONVNEXTS, NAMES, ConvNeXt, image_network
from brickyard.train.students.images import ImageStudent
from tests.train.objectives.test_ponder_views import IMAGES, SMALL, batch_of
from tests.train.posed_rooms import corpus_of, posed_room

SMALLEST = replace(IMAGES, network="convnext_atto")


def saved(folder: Path, kind: str = "ConvNextForImageClassification", **changes: Any) -> Any:
    """A checkpoint of atto's sizes, with weights that are not those of a beginning."""
    import transformers

    sizes, depths = CONVNEXTS["convnext_atto"]
    torch.manual_seed(1)
    settings = {"hidden_sizes": list(sizes), "depths": list(depths), "num_labels": 3} | changes
    model = getattr(transformers, kind)(transformers.ConvNextConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(("name", "published"), [("convnext_tiny", 28_589_128), ("convnext_small", 50_223_688)])
def test_parameters_are_those_of_the_publication(name: str, published: int) -> None:
    """torchvision's counts, which include the last norm and a classifier of 1,000 classes."""
    with torch.device("meta"):
        network = ConvNeXt(name, None)
    parts = (network.embeddings, network.encoder)
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert count + 2 * 768 + 769 * 1000 == published


def test_maps_of_a_checkpoint_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import ConvNextBackbone

    saved(tmp_path)
    names = [f"stage{number}" for number in range(1, 5)]
    theirs = ConvNextBackbone.from_pretrained(tmp_path, out_features=names).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found = image_network("convnext_atto", tmp_path).eval().levels(images)
        expected = theirs(images).feature_maps
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == (2, CONVNEXTS["convnext_atto"][0][number], 16 >> number, 24 >> number)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_maps_at_four_resolutions(name: str) -> None:
    with torch.device("meta"):
        network = image_network(name, None)
        shapes = [tuple(x.shape[1:]) for x in network.levels(torch.empty(1, 3, 64, 96))]
    assert shapes == [(width, 16 >> n, 24 >> n) for n, width in enumerate(network.widths)]


def test_other_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    deeper, resnet, pickled, damaged = (tmp_path / n for n in ("deeper", "resnet", "pickled", "damaged"))
    saved(deeper, depths=[2, 2, 7, 2])
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])).save_pretrained(resnet)
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "convnext"}')
    (pickled / "pytorch_model.bin").write_bytes(b"pickle")
    model = saved(damaged)
    with torch.no_grad():
        model.convnext.encoder.stages[0].layers[0].pwconv1.bias[0] = float("nan")
    model.save_pretrained(damaged)
    for folder, words in (
        (deeper, "not in this network"),
        (resnet, "'resnet' in config.json is no ConvNeXt"),
        (pickled, "no .safetensors file"),
        (damaged, "1 weight is not finite"),
        (tmp_path / "nowhere.pth", "begins from a folder"),
    ):
        with pytest.raises(BrickyardError, match=words):
            image_network("convnext_atto", folder)
    with pytest.raises(RecipeError, match=r"weights .*deeper"):
        image_network("convnext_atto", deeper / "config.json")


def test_it_learns_from_a_checkpoint_and_is_exported(tmp_path: Path) -> None:
    """The export needs no checkpoint: its weights replace those that it began with."""
    saved(tmp_path / "weights")
    torch.manual_seed(0)
    config = replace(SMALL, images=replace(SMALLEST, weights=tmp_path / "weights"))
    objective = config.build()
    objective(batch_of(tmp_path / "one", objective)).total.backward()
    idle = [n for n, p in objective.student.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert idle == []
    corpus = corpus_of(tmp_path / "corpus", [posed_room(n, views=4) for n in range(2)])
    train(TrainConfig(steps=2, batch=2, lr=1e-3, threads=1, split="train"), config, corpus, tmp_path / "run")
    student = load_student(tmp_path / "run" / "final")
    assert isinstance(student, ImageStudent) and student.config == SMALLEST
    images = torch.randint(0, 255, (1, 3, 32, 64), dtype=torch.uint8)
    beside: Any = load_companions(tmp_path / "run" / "final")["rendering"]
    assert torch.equal(student.eval().maps(images), beside.eval().images.maps(images))
