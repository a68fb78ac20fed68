"""Batch norms of their own for datasets: each sees its rows alone, all else is shared, strangers are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brickyard.infra.config import load, to_yaml
from brickyard.shards.errors import RecipeError
from brickyard.train.clouds import Cloud, join_clouds
from brickyard.train.models.norms import BatchNorm, SplitNorm
from brickyard.train.students.export import export_student, load_student
from brickyard.train.students.unet import UNetConfig
from brickyard.train.voxels import VoxelConfig

PLAIN = UNetConfig(
    network="tiny", inputs=("color",), voxels=VoxelConfig(kind="cartesian", size=(0.3,) * 3), intensity="unit"
)
SPLIT = replace(PLAIN, norms={"scannet": "real", "s3dis": "real", "structured3d": "drawn"})


def cloud(dataset: str, seed: int, shade: float) -> Cloud:
    rng = torch.Generator().manual_seed(seed)
    xyz = torch.rand(600, 3, generator=rng) * torch.tensor([4.0, 3.0, 2.0])
    color = (torch.rand(600, 3, generator=rng) * 0.2 + shade).clamp(0, 1)
    return Cloud(key=f"{dataset}/{seed}", domain="indoor", xyz=xyz, values={"color": color})


def norms_of(student: torch.nn.Module) -> list[SplitNorm]:
    return [module for module in student.modules() if isinstance(module, SplitNorm)]


@pytest.mark.parametrize("training", [True, False])
def test_it_is_batch_norm_of_each_group_alone(training: bool) -> None:
    torch.manual_seed(0)
    split = SplitNorm(3, 5).train(training)
    rows, scene = torch.randn(40, 5) * 3 + 1, torch.arange(4, dtype=torch.int32).repeat_interleave(10)
    for norm in split.norms:
        assert isinstance(norm, BatchNorm)
        norm.running_mean = torch.randn(5)
        torch.nn.init.normal_(norm.weight)
    split.norm_of = torch.tensor([2, 0, 0, 2])
    plain = [torch.nn.BatchNorm1d(5).train(training) for _ in range(3)]
    for one, norm in zip(plain, split.norms, strict=True):
        one.load_state_dict(norm.state_dict())
    found = split(rows, scene)
    for number, own in ((2, [0, 3]), (0, [1, 2])):
        chosen = torch.isin(scene, torch.tensor(own))
        torch.testing.assert_close(found[chosen], plain[number](rows[chosen]))
    for one, norm in zip(plain, split.norms, strict=True):
        torch.testing.assert_close(norm.running_var, one.running_var)
    assert torch.equal(split.norms[1].running_var, torch.ones(5)), "nobody's norm learns from others"


def test_one_row_of_a_dataset_is_normed_as_what_is_known() -> None:
    split = SplitNorm(2, 3)
    split.norm_of = torch.tensor([0, 1])
    found = split(torch.ones(5, 3), torch.tensor([0, 0, 0, 0, 1]))
    torch.testing.assert_close(found[4], torch.full((3,), (1 + 1e-5) ** -0.5))
    assert int(split.norms[1].num_batches_tracked) == 0


def test_a_scene_is_encoded_as_its_own_dataset_whoever_stands_beside_it() -> None:
    torch.manual_seed(0)
    student = SPLIT.build()
    bright, dark = cloud("scannet", 1, 0.7), cloud("structured3d", 2, 0.1)
    for _ in range(3):  # statistics
        student(join_clouds([bright, dark], student.inputs, "cpu"))
    student.eval()
    alone, _ = student(join_clouds([bright], student.inputs, "cpu"))
    both, voxels = student(join_clouds([dark, bright], student.inputs, "cpu"))
    torch.testing.assert_close(both[voxels.indices[:, 0] == 1], alone, atol=1e-5, rtol=1e-4)
    twin, _ = student(join_clouds([replace(bright, key="s3dis/1")], student.inputs, "cpu"))
    assert torch.equal(twin, alone), "two datasets may share norms"
    other, _ = student(join_clouds([replace(bright, key="structured3d/1")], student.inputs, "cpu"))
    assert not torch.allclose(other, alone, atol=1e-3)


def test_only_the_norms_are_multiplied() -> None:
    plain, split = PLAIN.build(), SPLIT.build()
    norms = sum(p.numel() for norm in norms_of(split) for p in norm.parameters())
    count = {name: sum(p.numel() for p in student.parameters()) for name, student in (("a", plain), ("b", split))}
    assert count["b"] - count["a"] == norms / 2 and not norms_of(plain)
    assert not [name for name in plain.state_dict() if "norms" in name]


def test_a_dataset_without_norms_is_refused_or_named() -> None:
    stranger = [cloud("nuscenes", 1, 0.5)]
    student = SPLIT.build()
    with pytest.raises(RecipeError, match="norms of scannet, s3dis, structured3d and none of nuscenes"):
        student(join_clouds(stranger, student.inputs, "cpu"))
    taken = replace(SPLIT, norms={**SPLIT.norms, "*": "real"}).build()
    taken(join_clouds(stranger, taken.inputs, "cpu"))
    with pytest.raises(ValueError, match="have one norm"):
        replace(SPLIT, weights=Path("some.pt"))


def test_they_are_exported_and_stand_in_recipes(tmp_path: Path) -> None:
    assert load(to_yaml(SPLIT), UNetConfig, where="here") == SPLIT
    torch.manual_seed(0)
    student = SPLIT.build()
    export_student(student, tmp_path)
    again = load_student(tmp_path)
    assert again.config == SPLIT
    clouds = join_clouds([cloud("structured3d", 2, 0.1)], student.inputs, "cpu")
    student.eval()
    again.eval()
    assert torch.equal(student(clouds)[0], again(clouds)[0])


def test_every_norm_learns() -> None:
    student = SPLIT.build()
    features, _ = student(join_clouds([cloud("scannet", 1, 0.7), cloud("structured3d", 2, 0.1)], student.inputs, "cpu"))
    features.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for n in norms_of(student) for p in n.parameters())
