"""LPIPS against a plain writing of the authors' class, and files that are not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from brickyard.evaluate.lpips import LPIPS, STAGES, WIDTHS
from brickyard.shards.errors import RecipeError


class Theirs(nn.Module):
    """Modules and names as in the package `lpips` 0.1.4 (net="vgg", version 0.1), with random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        into = 3
        for width, count in zip(WIDTHS, (2, 2, 3, 3, 3), strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(into, width, 3, padding=1), nn.ReLU()]
                into = width
            layers.append(nn.MaxPool2d(2))
        self.net = nn.Module()
        for stage, (first, last) in enumerate([(0, 4), (4, 9), (9, 16), (16, 23), (23, 30)], start=1):
            part = nn.Sequential()
            for place in range(first, last):
                part.add_module(str(place), layers[place])
            self.net.add_module(f"slice{stage}", part)
        for stage, width in enumerate(WIDTHS):
            head = nn.Module()
            head.add_module("model", nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False)))
            self.add_module(f"lin{stage}", head)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        shift = torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450])[None, :, None, None]
        a, b = ((2 * images - 1 - shift) / scale for images in (one, other))
        total = torch.zeros(len(one))
        for stage in range(5):
            a, b = (self.get_submodule(f"net.slice{stage + 1}")(x) for x in (a, b))
            unit = [x / (torch.sqrt(torch.sum(x**2, dim=1, keepdim=True)) + 1e-10) for x in (a, b)]
            weighted = self.get_submodule(f"lin{stage}.model")((unit[0] - unit[1]) ** 2)
            total = total + weighted.mean([2, 3])[:, 0]
        return total


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    return Theirs().eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, theirs: Theirs) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "lpips-vgg.pth"
    torch.save(theirs.state_dict(), path)
    return path


def test_it_is_theirs(file: Path, theirs: Theirs) -> None:
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.rand(2, 3, 20, 33, generator=generator) for _ in range(2))
    with torch.no_grad():
        ours, expected = LPIPS(file)(one, other), theirs(one, other)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)
    assert float(expected.abs().min()) > 1e-4
    assert LPIPS(file)(one, one).tolist() == [0, 0]
    assert sum(map(len, STAGES)) == 13


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    table = torch.load(file, weights_only=True)
    for change, problem in (
        ({"lin3.model.1.weight": torch.zeros(1, 256, 1, 1)}, r"no lin3\.model\.1\.weight of shape \(1, 512, 1, 1\)"),
        ({"net.slice1.0.bias": torch.full((64,), torch.nan)}, r"no net\.slice1\.0\.bias .* finite"),
    ):
        torch.save({**table, **change}, tmp_path / "other.pth")
        with pytest.raises(RecipeError, match=problem):
            LPIPS(tmp_path / "other.pth")
    with pytest.raises(RecipeError, match=r"LPIPS: .*nowhere"):
        LPIPS(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="16 pixels"):
        LPIPS(file)(torch.zeros(1, 3, 15, 40), torch.zeros(1, 3, 15, 40))
