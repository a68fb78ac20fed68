"""The teacher: its weights against the plain formula, its place in a training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from brickyard.train.ema import follow


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def test_the_teacher_is_the_moving_average_written_out() -> None:
    torch.manual_seed(0)
    student = network()
    teacher = copy.deepcopy(student).requires_grad_(False)
    expected = {name: value.double().clone() for name, value in teacher.named_parameters()}
    for momentum in (0.9, 0.99, 0.5):
        for parameter in student.parameters():
            parameter.data += torch.randn_like(parameter)
        student(torch.randn(8, 3))
        follow(teacher, student, momentum)
        for name, value in student.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * value.detach().double()
    for name, value in teacher.named_parameters():
        assert torch.allclose(value.double(), expected[name], atol=1e-6)
        assert not value.requires_grad
    assert torch.equal(teacher.get_buffer("1.running_mean"), student.get_buffer("1.running_mean"))


def test_with_momentum_one_it_stays_as_it_is() -> None:
    teacher, student = network(), network()
    before = copy.deepcopy(teacher.state_dict())
    follow(teacher, student, 1.0)
    assert all(torch.equal(before[name], value) for name, value in teacher.named_parameters())


def test_networks_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in '2\.weight'"):
        follow(network()[:2], network(), 0.9)  # type: ignore[index]
