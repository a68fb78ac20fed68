"""Weights cast at once under autocast: the numbers are those of autocast's own casts."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from brickyard.train.models import point_transformer
from brickyard.train.models.casting import cast_at_once
from brickyard.train.models.point_transformer import PointTransformer

CPU = torch.device("cpu")


def test_features_and_gradients_are_those_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = PointTransformer("tiny", 6).eval()
    xyz, features = torch.rand(400, 3) * 2, torch.randn(400, 6)

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            joined = network(features, xyz, (250, 150)).upcast(4)
        joined.float().square().mean().backward()
        return joined.detach(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    found, gradients = run()
    monkeypatch.setattr(point_transformer, "cast_at_once", lambda *_: contextlib.nullcontext())
    expected, others = run()
    assert torch.equal(found, expected)
    assert gradients.keys() == others.keys()
    assert len(gradients) > 50
    assert all(torch.equal(gradients[name], others[name]) for name in others)


def test_weights_are_cast_in_the_region_and_themselves_again_after_it() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    before = dict(network.named_parameters())
    with torch.autocast("cpu", torch.bfloat16), contextlib.suppress(RuntimeError), cast_at_once(network, CPU):
        types = {name: value.dtype for name, value in network.named_parameters()}
        assert network[0].weight.requires_grad
        raise RuntimeError
    short, full = torch.bfloat16, torch.float32
    assert types == {
        "0.weight": short, "0.bias": short, "1.weight": full, "1.bias": full, "2.weight": short,
    }  # fmt: skip
    after = dict(network.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_without_autocast_nothing_happens() -> None:
    layer = nn.Sequential(nn.Linear(3, 3))
    weight = layer[0].weight
    with cast_at_once(layer, CPU):
        assert layer[0].weight is weight
