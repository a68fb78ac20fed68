"""Released SLidR, ST-SLidR and PPKT networks: their names and shapes, written down here by themselves, and their
features against convolutions in MinkowskiEngine's own order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.models.mink_weights import load_mink, mink_name, read_mink, to_mink
from brickyard.train.models.sparse_unet import CONFIGS, SparseUNet, SparseUNetConfig
from brickyard.train.students.export import export_student, load_student
from brickyard.train.students.released import load_released, save_released
from brickyard.train.students.unet import UNetConfig, UNetStudent
from brickyard.train.voxels import VoxelConfig, cells, voxelise
from tests.train.minkowski import Network, convolve, field_of, rows_of, spread

Shapes = dict[str, tuple[int, ...]]
SMALL = SparseUNetConfig(stem=3, planes=(4, 5, 6, 4), layers=(1, 1, 1, 1))


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.bn.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def layout(stem: int, planes: tuple[int, ...], layers: tuple[int, ...], inputs: int = 1) -> Shapes:
    """Names and shapes of the public network, without its last layer."""
    shapes: Shapes = {"conv0p1s1.kernel": (27, inputs, stem)} | norm("bn0", stem)
    levels, width, skips = len(planes) // 2, stem, [stem]
    for number, (plane, depth) in enumerate(zip(planes, layers, strict=True), 1):
        if number <= levels:
            shapes |= {f"conv{number}p{2 ** (number - 1)}s2.kernel": (8, width, width)} | norm(f"bn{number}", width)
            skips.append(plane)
        else:
            if number == levels + 1:
                skips.pop()
            shapes |= {f"convtr{number - 1}p{2 ** (2 * levels - number + 1)}s2.kernel": (8, width, plane)}
            shapes |= norm(f"bntr{number - 1}", plane)
            width = plane + skips.pop()
        for block in range(depth):
            place = f"block{number}.{block}"
            shapes |= {f"{place}.conv1.kernel": (27, width, plane), f"{place}.conv2.kernel": (27, plane, plane)}
            shapes |= norm(f"{place}.norm1", plane) | norm(f"{place}.norm2", plane)
            if width != plane:
                shapes |= {f"{place}.downsample.0.kernel": (width, plane)} | norm(f"{place}.downsample.1", plane)
            width = plane
    return shapes


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights; variances and scales are positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        positive = name.endswith(("running_var", "bn.weight"))
        drawn = torch.rand(shape, generator=generator)
        state[name] = drawn + 0.5 if positive else (drawn - 0.5) * 0.6
    return state


SIZES: dict[str, Any] = {"stem": SMALL.stem, "planes": SMALL.planes, "layers": SMALL.layers}
STATE = filled(layout(**SIZES))


def test_the_network_has_the_public_names_and_shapes() -> None:
    config = CONFIGS["mink34"]
    public = to_mink(SparseUNet("mink34", 1))
    shapes = {name: tuple(v.shape) for name, v in public.items() if not name.endswith("num_batches_tracked")}
    assert shapes == layout(config.stem, config.planes, config.layers)


@pytest.mark.parametrize("seed", [0, 1])
def test_features_are_those_of_the_public_network(seed: int) -> None:
    """Kernels of every kind, strides from negative coordinates, shortcuts, stored statistics: the whole network."""
    network = SparseUNet(SMALL, 1).eval()
    state = filled(layout(**SIZES), seed)
    load_mink(network, state, "a file")
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(150, 3, generator=generator) * torch.tensor([0.4, 0.3, 0.2])
    config = VoxelConfig(kind="cartesian", size=(0.1, 0.1, 0.1))
    voxels = voxelise(xyz, torch.rand(150, 1, generator=generator) * 255, torch.zeros(150).long(), 1, config)
    where = cells(xyz, config)[voxels.representative].numpy()
    assert where.min() < -3
    expected = Network(state, levels=2, depth=1)(field_of(where, voxels.features.numpy()))
    with torch.no_grad():
        got = network(voxels)
    np.testing.assert_allclose(got.numpy(), rows_of(expected, where), atol=2e-4, rtol=2e-4)
    assert np.abs(got.numpy()).max() > 1


def test_one_offset_is_one_neighbour() -> None:
    """The reference itself: number 1 of 27 looks one cell down the first axis from the middle of the others."""
    kernel = np.zeros((27, 1, 1))
    kernel[12] = 1.0  # (-1, 0, 0)
    field = {(0, 0, 0): np.array([1.0]), (1, 0, 0): np.array([10.0])}
    assert convolve(field, kernel, 1) == {(0, 0, 0): np.array([0.0]), (1, 0, 0): np.array([1.0])}
    pair = np.zeros((8, 1, 1))
    pair[1] = 1.0  # (1, 0, 0)
    coarse = convolve(field, pair, 1, stride=2)
    assert coarse == {(0, 0, 0): np.array([10.0])}
    assert spread(coarse, pair, 1, field) == {(0, 0, 0): np.array([0.0]), (1, 0, 0): np.array([10.0])}


def test_what_is_written_is_what_is_read() -> None:
    network = SparseUNet(SMALL, 1)
    load_mink(network, STATE, "a file")
    again = to_mink(network)
    assert all(torch.equal(again[name], value) for name, value in STATE.items())
    with pytest.raises(BrickyardError, match="no weight of a sparse U-Net"):
        mink_name("head.weight", 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block2.0.norm1.bn.running_var": None}, r"1 weight is missing \('block2.0.norm1.bn.running_var'\)"),
        ({"block9.0.conv1.kernel": torch.zeros(1)}, r"1 weight is not in this network \('block9.0.conv1.kernel'\)"),
        ({"conv1p1s2.kernel": torch.zeros(8, 3, 4)}, "'conv1p1s2.kernel' is 8 x 3 x 4, this network needs 8 x 3 x 3"),
        ({"bn0.bn.weight": torch.full((3,), torch.inf)}, r"1 weight is not finite \('bn0.bn.weight'\)"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(change: dict[str, Tensor | None], message: str) -> None:
    network = SparseUNet(SMALL, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: value for name, value in (STATE | change).items() if value is not None}
    with pytest.raises(BrickyardError, match=message):
        load_mink(network, state, "a file")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# Files


TINY = filled(layout(16, (16, 32, 48, 48, 32, 32), (1,) * 6))
LAST = {"final.kernel": torch.zeros(32, 64), "final.bias": torch.zeros(1, 64)}
IMAGES = {"encoder.conv1.weight": torch.zeros(2), "decoder.0.bias": torch.zeros(2)}
FILES: dict[str, dict[str, Any]] = {
    "pretraining": {
        "model_points": TINY | LAST, "model_images": IMAGES, "epoch": 50,
        "config": {"cylindrical_coordinates": True, "voxel_size": 0.1, "losses": ["loss_superpixels_average"]},
    },
    "downstream": {"model_points": TINY | LAST, "config": {"cylindrical_coordinates": True, "voxel_size": 0.1}},
    "trainer": {
        "state_dict": {f"model_points.{n}": v for n, v in (TINY | LAST).items()}
        | {f"model_images.{n}": v for n, v in IMAGES.items()},
        "epoch": 3,
    },
    "downstream trainer": {"state_dict": {f"model.{n}": v for n, v in (TINY | LAST).items()}},
    "several GPUs": {"model_points": {f"module.{n}": v for n, v in (TINY | LAST).items()}},
    "weights alone": TINY,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_released_files_become_students(tmp_path: Path, name: str) -> None:
    torch.save(FILES[name], tmp_path / "model.pt")
    student = load_released(tmp_path / "model.pt")
    assert isinstance(student, UNetStudent)
    assert student.config == UNetConfig(network="tiny", intensity="published")
    assert all(torch.equal(to_mink(student.network)[n], v) for n, v in TINY.items())


def test_the_grid_of_a_released_file_is_kept(tmp_path: Path) -> None:
    config = {"cylindrical_coordinates": False, "voxel_size": 0.2}
    torch.save({"model_points": TINY, "config": config}, tmp_path / "a.pt")
    assert load_released(tmp_path / "a.pt").config.voxels == VoxelConfig(kind="cartesian", size=(0.2, 0.2, 0.2))
    torch.save({"model_points": TINY, "config": {"voxel_size": "large"}}, tmp_path / "a.pt")
    with pytest.raises(BrickyardError, match="voxel_size"):
        load_released(tmp_path / "a.pt")


def test_a_recipe_begins_with_released_weights(tmp_path: Path) -> None:
    torch.save(FILES["pretraining"], tmp_path / "model.pt")
    student = UNetConfig(network="tiny", weights=tmp_path / "model.pt").build()
    assert student.config.weights is None
    export_student(student, tmp_path)
    (tmp_path / "model.pt").unlink()  # an exported student stands by itself
    again = load_student(tmp_path)
    assert all(torch.equal(v, student.state_dict()[name]) for name, v in again.state_dict().items())
    with pytest.raises(BrickyardError, match=r"model\.pt"):
        UNetConfig(network="tiny", weights=tmp_path / "model.pt").build()


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    student = UNetStudent(UNetConfig(network="tiny", voxels=VoxelConfig(kind="cartesian", size=(0.3, 0.3, 0.3))))
    save_released(tmp_path / "a.pt", student)
    again = load_released(tmp_path / "a.pt")
    assert again.config == student.config
    assert all(torch.equal(v, student.state_dict()[name]) for name, v in again.state_dict().items())
    assert read_mink(tmp_path / "a.pt").keys() == to_mink(student.network).keys()
    unit = UNetStudent(replace(student.config, intensity="unit"))
    with pytest.raises(BrickyardError, match="intensity: unit"):
        save_released(tmp_path / "b.pt", unit)


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"model_points": {"conv1.weight": torch.zeros(2)}}, tmp_path / "a.pt")
    with pytest.raises(BrickyardError, match=r"holds no weight called 'conv0p1s1\.kernel'"):
        read_mink(tmp_path / "a.pt")
    with pytest.raises(BrickyardError, match="neither of a Sonata encoder nor of the MinkUNet"):
        load_released(tmp_path / "a.pt")
    torch.save({"model_points": filled(layout(16, (16, 32, 32, 16), (1,) * 4))}, tmp_path / "a.pt")
    with pytest.raises(BrickyardError, match="no known network"):
        load_released(tmp_path / "a.pt")
