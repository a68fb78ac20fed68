"""Sparse convolutions against dense ones, and the network's shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from brickyard.shards.errors import RecipeError
from brickyard.train.models import sparse
from brickyard.train.models.norms import BatchNorm
from brickyard.train.models.sparse_unet import CONFIGS, SparseUNet, SparseUNetConfig, find_config, head, padded
from brickyard.train.voxels import VoxelConfig, Voxels, voxelise

CPU = torch.device("cpu")
SHAPE = (8, 12, 10)


def grid(channels: int, seed: int = 0, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Features and indices of random voxels of two scenes."""
    generator = torch.Generator().manual_seed(seed)
    indices = (torch.rand(2, *SHAPE, generator=generator) < share).nonzero().int()
    return torch.randn(len(indices), channels, generator=generator), indices


def dense(features: Tensor, indices: Tensor) -> Tensor:
    volume = features.new_zeros(2, features.shape[1], *SHAPE)
    b, x, y, z = indices.long().unbind(1)
    volume[b, :, x, y, z] = features
    return volume


def kernel(layer: torch.nn.Module) -> Tensor:
    """spconv's (outputs, k, k, k, inputs) -> torch's (outputs, inputs, k, k, k)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.permute(0, 4, 1, 2, 3)


def test_submanifold_equals_dense_forward_and_backward() -> None:
    features, indices = grid(5)
    layer = sparse.submanifold(5, 7, kernel=3, key="a", device=CPU)
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    got = layer(sparse.sparse_tensor(x, indices, SHAPE, 2)).features
    volume = functional.conv3d(dense(y, indices), kernel(layer), padding=1)
    b, i, j, k = indices.long().unbind(1)
    expected = volume[b, :, i, j, k]
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)
    probe = torch.randn_like(got)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    ours = torch.autograd.grad((got * probe).sum(), [x, weight])
    theirs = torch.autograd.grad((expected * probe).sum(), [y, weight])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


def test_down_and_up_equal_dense() -> None:
    features, indices = grid(4)
    down = sparse.down(4, 6, key="d", device=CPU)
    up = sparse.up(6, 3, key="d", device=CPU)
    coarse = down(sparse.sparse_tensor(features, indices, SHAPE, 2))
    fine = up(coarse)
    volume = functional.conv3d(dense(features, indices), kernel(down), stride=2)
    b, i, j, k = coarse.indices.long().unbind(1)
    torch.testing.assert_close(coarse.features, volume[b, :, i, j, k], atol=2e-5, rtol=2e-5)
    assert len(coarse.indices) == len(torch.unique(torch.cat((indices[:, :1], indices[:, 1:] // 2), 1), dim=0))
    back = functional.conv_transpose3d(volume, kernel(up).transpose(0, 1), stride=2)
    assert torch.equal(fine.indices, indices)
    b, i, j, k = indices.long().unbind(1)
    torch.testing.assert_close(fine.features, back[b, :, i, j, k], atol=2e-5, rtol=2e-5)


def lidar(points: int, scenes: int = 2, seed: int = 0) -> Voxels:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(points * scenes, 3, generator=generator) * torch.tensor([4.0, 4.0, 0.5])
    return voxelise(
        xyz, torch.rand(len(xyz), 1, generator=generator), torch.arange(scenes).repeat_interleave(points), scenes,
        VoxelConfig(),
    )  # fmt: skip


def test_mink34_has_the_parameters_of_res16unet34c() -> None:
    network = SparseUNet("mink34", 1)
    with_head = sum(p.numel() for p in (*network.parameters(), *head(network.channels, 64).parameters()))
    assert network.channels == 96
    assert with_head == 37_849_184


def test_spunet_has_the_parameters_of_the_public_one() -> None:
    """Counted by building the public class: 6 channels of input as indoors, 4 as outdoors, no classifier."""
    for inputs, parameters in ((6, 39_155_904), (4, 39_147_904)):
        assert sum(p.numel() for p in SparseUNet("spunet", inputs).parameters()) == parameters
    norms = [module for module in SparseUNet("spunet", 6).modules() if isinstance(module, BatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_a_wider_stem_sees_farther() -> None:
    torch.manual_seed(0)
    xyz = torch.tensor([[0.0, 0, 0], [2.0, 0, 0]])
    for kernel, far in ((None, False), (5, True)):
        sizes = SparseUNetConfig(stem=4, planes=(4, 4), layers=(0, 0), stem_kernel=kernel, widen="down")
        network, grids = SparseUNet(sizes, 1).eval(), VoxelConfig(kind="cartesian", size=(1.0, 1.0, 1.0))
        stems = []
        for color in (0.0, 1.0):
            features = torch.tensor([[1.0], [color]])
            voxels = voxelise(xyz, features, torch.zeros(2, dtype=torch.int64), 1, grids)
            shape = padded(voxels.shape, 2, 1)
            stems.append(network.stem(sparse.sparse_tensor(features, voxels.indices, shape, 1)).features[0])
        assert torch.equal(stems[0], stems[1]) != far


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_forward_gives_one_row_per_voxel_and_every_parameter_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network, voxels = SparseUNet(name, 1), lidar(300)
    features = network(voxels)
    assert features.shape == (len(voxels.indices), network.channels)
    (features * torch.randn_like(features)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_scenes_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    network = SparseUNet("tiny", 1).eval()
    xyz = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)) * 3
    scene = torch.arange(2).repeat_interleave(200)
    with torch.no_grad():
        both = voxelise(xyz, xyz[:, :1], scene, 2, VoxelConfig())
        alone = voxelise(xyz[:200], xyz[:200, :1], scene[:200], 1, VoxelConfig())
        got = network(both)[both.indices[:, 0] == 0]
        torch.testing.assert_close(got, network(alone), atol=1e-5, rtol=1e-4)


def test_the_same_input_gives_the_same_bits() -> None:
    torch.manual_seed(0)
    network, voxels = SparseUNet("tiny", 1), lidar(300)
    results = []
    for _ in range(2):
        network.zero_grad()
        features = network(voxels)
        features.square().sum().backward()
        results.append([features.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_grids_are_padded_and_capped() -> None:
    assert padded((1, 16, 17), 16, 1) == (16, 16, 32)
    with pytest.raises(RecipeError, match="larger voxels"):
        padded((4000, 4000, 1000), 16, 1)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(RecipeError, match="mink34"):
        find_config("mink18")
    with pytest.raises(ValueError, match="even number"):
        SparseUNetConfig(stem=8, planes=(8, 8, 8), layers=(1, 1, 1))
    assert CONFIGS["mink34"].levels == 4
