"""Online clustering: a head that compares features with learned prototypes, and balanced soft assignments to them.

The student's softmax over prototypes should match the teacher's assignment, which Sinkhorn and Knopp's iteration
(Cuturi, "Sinkhorn Distances", NeurIPS 2013; as in SwAV and DINOv2) makes balanced: every prototype gets an equal part
of all points, over all ranks, so that not everything ends in one of them. As in Sonata's released code, there is no
centre vector; a KoLeo term is an option of the objective (`train.objectives.spread`).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

_LEAST_EXPONENT = -80.0
"""Published temperatures reach -50."""


class PrototypeHead(nn.Module):
    """Features (n, inputs) -> cosine similarities to prototypes (n, prototypes), float32 or as autocast has it.

    Linear, GELU, linear to `dimensions`, unit length; then unit prototypes. With 1,088 inputs, 4,096 hidden channels,
    256 dimensions and 4,096 prototypes 6,557,952 parameters.
    """

    def __init__(self, inputs: int, *, hidden: int, dimensions: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, dimensions))
        self.prototypes = nn.Parameter(torch.empty(prototypes, dimensions))
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.uniform_(self.prototypes, -(dimensions**-0.5), dimensions**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        embedded = functional.normalize(self.mlp(features), dim=1)
        return functional.linear(embedded, functional.normalize(self.prototypes, dim=1).to(embedded.dtype))


@torch.no_grad()
def sinkhorn(similarity: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Balanced assignments of points to prototypes, float32 (n, K), every row of sum 1.

    Every rank of the process group, where there is one, gives its own points (also none); the balance is over all.

    Args:
        similarity: (n, K).
        temperature: of the exponential.
    """
    assigned = similarity.float() / temperature  # memory of its own, changed in place from here on
    highest = assigned.amax() if len(assigned) else assigned.new_full((), -torch.inf)
    # A common factor cancels; with the largest taken out, and a floor, no sum overflows or is 0.
    assigned.sub_(_over_ranks(highest, dist.ReduceOp.MAX)).clamp_(min=_LEAST_EXPONENT).exp_()
    points = _count_over_ranks(len(assigned), assigned.device)
    assigned.div_(_over_ranks(assigned.sum()))
    for _ in range(iterations):
        assigned.div_(_over_ranks(assigned.sum(0)) * assigned.shape[1])
        assigned.div_(assigned.sum(1, keepdim=True) * points)
    return assigned.mul_(points)


def cross_entropy(similarity: Tensor, target: Tensor, temperature: float) -> Tensor:
    """-sum_k target_k log softmax_k(similarity / temperature) of every row, float32 (n,); rows of `target` sum to 1."""
    scores = similarity.float() / temperature
    return scores.logsumexp(1) - (target * scores).sum(1)


def _count_over_ranks(count: int, device: torch.device) -> float | Tensor:
    together = dist.is_available() and dist.is_initialized()
    return _over_ranks(torch.tensor(float(count), device=device)) if together else float(count)


def _over_ranks(value: Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value, op=how)
    return value
