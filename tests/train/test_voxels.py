"""Voxels: golden cells, the seam, and what batching must not change."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.voxels import VoxelConfig, cells, voxelise

CYLINDER, CUBE = VoxelConfig(), VoxelConfig(kind="cartesian", size=(0.5, 0.5, 0.5))


def cloud(points: int, seed: int = 0) -> Tensor:
    return torch.randn(points, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor([10.0, 10.0, 1.0])


def test_golden_cells() -> None:
    assert cells(torch.tensor([[1.0, 0.0, 0.0]]), CYLINDER).tolist() == [[10, 0, 0]]
    assert cells(torch.tensor([[0.0, 2.05, -0.05]]), CYLINDER).tolist() == [[20, 90, -1]]
    assert cells(torch.tensor([[-0.1, 0.6, 1.0]]), CUBE).tolist() == [[-1, 1, 2]]


def test_the_seam_lies_behind_and_plus_180_is_minus_180() -> None:
    behind = torch.tensor([[-5.0, 0.0, 0.0], [-5.0, -0.0, 0.0], [-5.0, 1e-3, 0.0]])
    assert cells(behind, CYLINDER)[:, 1].tolist() == [-180, -180, 179]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-80, 80, width=32)] * 3), min_size=1, max_size=40), st.sampled_from([CYLINDER, CUBE])
)
def test_cells_follow_the_formula(points: list[tuple[float, float, float]], config: VoxelConfig) -> None:
    got = cells(torch.tensor(points), config).tolist()
    for (x, y, z), cell in zip(points, got, strict=True):
        phi = math.degrees(math.atan2(y, x))
        axes = (math.hypot(x, y), phi - 360 if phi >= 180 else phi, z) if config.kind == "cylindrical" else (x, y, z)
        for value, size, number in zip(axes, config.size, cell, strict=True):
            assert number in {math.floor(value / size + nudge) for nudge in (-1e-9, 0, 1e-9)}


def test_voxels_are_the_distinct_cells_with_their_first_points() -> None:
    xyz, features = cloud(3000), torch.rand(3000, 2)
    scene = torch.arange(3000) // 1000
    voxels = voxelise(xyz, features, scene, 3, CUBE)
    cell = torch.cat((scene[:, None], cells(xyz, CUBE)), 1).tolist()
    first: dict[tuple[int, ...], int] = {}
    for number, key in enumerate(map(tuple, cell)):
        first.setdefault(key, number)
    assert sorted(first.values()) == sorted(voxels.representative.tolist())
    assert [first[tuple(key)] for key in cell] == voxels.representative[voxels.inverse].tolist()
    assert torch.equal(voxels.features, features[voxels.representative])
    assert len(torch.unique(voxels.indices, dim=0)) == len(voxels.indices)
    assert voxels.indices.min() >= 0
    assert (voxels.indices[:, 1:].amax(0) < torch.tensor(voxels.shape)).all()


@pytest.mark.parametrize("config", [CYLINDER, CUBE])
def test_a_scene_is_paired_alike_whatever_its_batch_mates(config: VoxelConfig) -> None:
    """Cells keep their residue modulo 64, so stride-2 layers group them in the same way."""
    a, b = cloud(500, 1), cloud(500, 2) * 3
    alone = voxelise(a, a, torch.zeros(500, dtype=torch.int64), 1, config)
    both = voxelise(torch.cat((a, b)), torch.cat((a, b)), torch.arange(2).repeat_interleave(500), 2, config)
    mine = both.indices[both.indices[:, 0] == 0]
    assert torch.equal(mine[:, 1:] % 64, alone.indices[:, 1:] % 64)
    assert torch.equal(both.inverse[:500], alone.inverse)


def test_what_cannot_be_voxelised_is_refused() -> None:
    with pytest.raises(BrickyardError, match="without points"):
        voxelise(torch.zeros(0, 3), torch.zeros(0, 1), torch.zeros(0), 1, CUBE)
    far = torch.tensor([[0.0, 0, 0], [1e6, 0, 0]])
    with pytest.raises(BrickyardError, match="1000000"):
        voxelise(far, far, torch.zeros(2, dtype=torch.int64), 1, CUBE)
    with pytest.raises(ValueError, match="positive"):
        VoxelConfig(size=(0.1, 0, 0.1))
