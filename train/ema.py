"""A teacher that follows its student: an exponential moving average of the weights.

The teacher is a copy whose parameters ask for no gradient. As a submodule of an objective it is checkpointed with it,
while the optimiser, clipping and the reduction over ranks pass it over; every rank follows the same student, so
teachers need no communication. The cost is one more copy of the weights and one pass over them a step.
"""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for every parameter; buffers are copied.

    Raises:
        ValueError: the two differ in what they are made of.
    """
    theirs, own = dict(student.named_parameters()), dict(teacher.named_parameters())
    if theirs.keys() != own.keys():
        raise ValueError(f"teacher and student differ in {sorted(theirs.keys() ^ own.keys())[0]!r}")
    average = [parameter.data for parameter in own.values()]
    if average:
        torch._foreach_mul_(average, momentum)
        torch._foreach_add_(average, [theirs[name].data for name in own], alpha=1 - momentum)
    for name, buffer in student.named_buffers():
        teacher.get_buffer(name).copy_(buffer)
