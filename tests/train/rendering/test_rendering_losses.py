"""Terms of the loss: by hand, with unknown depths, with rays that miss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brickyard.train.rendering.losses import (
    CONFIGS,
    RenderingLossConfig,
    Seen,
    rendering_losses,
    weighted,
)
from brickyard.train.rendering.render import Rendered


def _rendered() -> Rendered:
    """Three rays, of which the second misses; three samples at 0.1, 0.5, 0.58."""
    return Rendered(
        depth=torch.tensor([0.5, 0.0, 0.7]).requires_grad_(),
        normal=torch.zeros(3, 3),
        opacity=torch.ones(3),
        color=torch.tensor([[0.5, 0.5, 0.5], [0, 0, 0], [1, 0, 0]]).requires_grad_(),
        features=None,
        hits=torch.tensor([0, 2]),
        distance=torch.tensor([[0.1, 0.5, 0.58]] * 2),
        weight=torch.ones(2, 3),
        sdf=torch.tensor([[0.02, 0.01, -0.01]] * 2).requires_grad_(),
        gradient=torch.tensor([[[0.0, 0, 1], [0, 2, 0], [0, 0, 0]]] * 2).requires_grad_(),
    )


def _seen(*depth: float) -> Seen:
    return Seen(depth=torch.tensor(depth), color=torch.tensor([[0.5, 0.2, 0.5], [1, 1, 1], [0, 0, 0]]))


def test_terms_by_hand() -> None:
    terms = rendering_losses(_rendered(), _seen(0.54, 0.4, 0.6), RenderingLossConfig())
    # The second ray misses; left to go is 0.44, 0.04, -0.04 on the first and 0.5, 0.1, 0.02 on the third.
    expected = {
        "depth": (0.04 + 0.1) / 2,
        "color": (0.3 + 1.0) / 9,
        "surface": (abs(0.01 - 0.04) + abs(-0.01 + 0.04) + abs(-0.01 - 0.02)) / 3,
        "free": (0.03 + 0.03 + 0.04) / 3,
        "eikonal": (0 + 1 + 1) / 3,
    }
    assert {name: pytest.approx(float(value.detach()), abs=1e-6) for name, value in terms.items()} == expected
    total = expected["depth"] + 10 * expected["color"] + 10 * expected["surface"] + expected["free"]
    value = weighted(terms, RenderingLossConfig())
    assert float(value.detach()) == pytest.approx(total + 0.01 * expected["eikonal"], rel=1e-5)


@pytest.mark.parametrize("unknown", [0.0, -1.0, torch.nan, torch.inf])
def test_unknown_depths_do_not_count(unknown: float) -> None:
    some = rendering_losses(_rendered(), _seen(0.55, 0.4, unknown), RenderingLossConfig())
    assert float(some["depth"].detach()) == pytest.approx(0.05, abs=1e-6)
    rendered = _rendered()
    none = rendering_losses(rendered, _seen(unknown, unknown, unknown), RenderingLossConfig())
    assert float(none["depth"]) == float(none["surface"]) == float(none["free"]) == 0
    weighted(none, RenderingLossConfig()).backward()
    for leaf in (rendered.depth, rendered.sdf, rendered.gradient, rendered.color):
        assert isinstance(leaf, Tensor) and leaf.grad is not None and bool(torch.isfinite(leaf.grad).all())


def test_only_terms_with_a_weight_are_computed() -> None:
    terms = rendering_losses(_rendered(), Seen(depth=torch.tensor([0.5, 0.5, 0.5])), CONFIGS["published-outdoor"])
    assert set(terms) == {"depth"} and float(weighted(terms, CONFIGS["published-outdoor"]).detach()) > 0
    with pytest.raises(ValueError, match="colour"):
        rendering_losses(_rendered(), Seen(depth=torch.ones(3)), RenderingLossConfig())
    with pytest.raises(ValueError, match="negative"):
        RenderingLossConfig(depth=-1)


def test_published_weights() -> None:
    assert RenderingLossConfig() == RenderingLossConfig(
        depth=1.0, color=10.0, surface=10.0, free=1.0, eikonal=0.01, truncation=0.05
    )
    assert CONFIGS["published-outdoor"].depth == CONFIGS["published-outdoor-color"].color == 10
