"""How unlike images look: the published formula, both files of weights, and the embedded network."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor
from torch.nn import functional

from brickyard.shards.errors import RecipeError
from brickyard.train.models import vgg
from brickyard.train.objectives.perceptual import PerceptualConfig, load_perceptual

PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
WIDTHS = ((2, 3), (4, 4), (3, 5, 4, 4), (4, 6, 3, 3), (5, 4))


@pytest.fixture(autouse=True)
def _thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VGG-19 with a few channels."""
    monkeypatch.setattr(vgg, "WIDTHS", WIDTHS)


@pytest.fixture
def weights() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    widths = [3, *(width for stage in WIDTHS for width in stage), 4, 4]
    return [
        (0.4 * torch.randn(out, into, 3, 3, generator=generator), torch.randn(out, generator=generator))
        for into, out in pairwise(widths)
    ]


def save_torchvision(path: Path, weights: list[tuple[Tensor, Tensor]]) -> Path:
    table = {f"features.{n}.weight": w for n, (w, _) in zip(PLACES, weights, strict=True)}
    table |= {f"features.{n}.bias": b for n, (_, b) in zip(PLACES, weights, strict=True)}
    torch.save(table | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def save_matconvnet(path: Path, weights: list[tuple[Tensor, Tensor]]) -> Path:
    """As `imagenet-vgg-verydeep-19.mat` is: a cell array of structures, filters (height, width, in, out)."""
    layers: list[dict[str, Any]] = []
    for number, (weight, bias) in enumerate(weights):
        pair = np.empty((1, 2), object)
        pair[0, 0], pair[0, 1] = weight.permute(2, 3, 1, 0).numpy(), bias.numpy()[None]
        layers += [
            {"name": f"conv{number}", "type": "conv", "weights": pair},
            {"name": f"relu{number}", "type": "relu"},
        ]
    cells = np.empty((1, len(layers)), object)
    cells[0, :] = layers
    savemat(path, {"layers": cells, "meta": {"inputs": 1}})
    return path


def published(weights: list[tuple[Tensor, Tensor]], a: Tensor, b: Tensor, *, matlab: bool) -> float:
    """The formula, written anew in float64: of torchvision's network as it is fed by its users, times 57.63."""
    mean, deviation = torch.tensor([123.68, 116.779, 103.939]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    scale = 1.0 if matlab else float(255 * deviation.mean())
    pixels = [255 * image.double() - mean[:, None, None] for image in (a, b)]
    total = (pixels[0] - pixels[1]).abs().mean()
    x, y = pixels if matlab else [one / (255 * deviation[:, None, None]) for one in pixels]
    number, factors = 0, (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
    for stage, factor in zip(WIDTHS, factors, strict=True):
        for layer in range(len(stage)):
            w, bias = (value.double() for value in weights[number])
            x, y = (functional.conv2d(one, w, bias, padding=1).clamp(min=0) for one in (x, y))
            number += 1
            if layer == 1:
                total = total + factor * scale * (x - y).abs().mean()
        x, y = (functional.avg_pool2d(one, 2) for one in (x, y))
    return float(total / 255)


@pytest.mark.parametrize("matlab", [True, False])
def test_vgg_is_the_published_formula(
    tmp_path: Path, weights: list[tuple[Tensor, Tensor]], capfd: pytest.CaptureFixture[str], matlab: bool
) -> None:
    path = save_matconvnet(tmp_path / "vgg.mat", weights) if matlab else save_torchvision(tmp_path / "vgg.pth", weights)
    measure = load_perceptual(PerceptualConfig(network=str(path)))
    assert measure is not None and measure.name == "perceptual_vgg19" + ("" if matlab else "_torchvision")
    said = capfd.readouterr().err
    assert ("MatConvNet" if matlab else "torchvision") in said and len(said.split("xxh3-128 ")[1].strip()) == 32
    images = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = measure(images[0], images[1])
    assert float(found.detach()) == pytest.approx(published(weights, *images.detach(), matlab=matlab), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, images)
    assert gradient[0].any() and not gradient[1].any()
    assert not any(parameter.requires_grad for parameter in measure.parameters())


def test_the_embedded_network_tells_blur_from_noise() -> None:
    measure = load_perceptual(PerceptualConfig())
    assert measure is not None and measure.name == "perceptual_efficientnet_lite0"
    generator = torch.Generator().manual_seed(0)
    image = functional.interpolate(torch.rand(1, 3, 16, 16, generator=generator), (64, 64), mode="bicubic").clamp(0, 1)
    blurred = functional.interpolate(functional.avg_pool2d(image, 4), (64, 64), mode="bilinear")
    near = (image + 0.02 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    values = [float(measure(one, image)) for one in (image, near, blurred)]
    assert values[0] == 0 < values[1] < values[2] < 4
    image.requires_grad_()
    measure(image, near).backward()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(measure(near, blurred)) == pytest.approx(float(measure(near, blurred)), rel=1e-6)
        assert measure(near, blurred).dtype == torch.float32
    assert load_perceptual(PerceptualConfig(network="none")) is None


def test_other_files_are_refused(tmp_path: Path, weights: list[tuple[Tensor, Tensor]]) -> None:
    (tmp_path / "text.mat").write_text("no matrix")
    save_matconvnet(tmp_path / "short.mat", weights[:5])
    save_torchvision(tmp_path / "wide.pth", [(w.repeat(2, 1, 1, 1), b) for w, b in weights])
    save_torchvision(tmp_path / "nan.pth", [(w, b * torch.nan) for w, b in weights])
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    for name, says in (
        ("text.mat", "is not MatConvNet's"),
        ("short.mat", "5 convolutions, expected 14"),
        ("wide.pth", r"convolution 1 of .* has \(4, 3, 3, 3\) weights, \(2,\) biases; expected are \(2, 3, 3, 3\)"),
        ("nan.pth", "not finite"),
        ("resnet.pth", r"no features.0.weight and .bias: expected is torchvision's vgg19"),
        ("absent.mat", "neither 'efficientnet_lite0' nor 'none' nor a file"),
    ):
        with pytest.raises(RecipeError, match=says):
            load_perceptual(PerceptualConfig(network=str(tmp_path / name)))
