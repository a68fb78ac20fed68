"""The point transformer as student: rows for points, whatever their scene's place, metric and batch-mates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.clouds import Cloud
from brickyard.train.models.point_transformer import Published
from brickyard.train.students.export import export_student, load_student
from brickyard.train.students.point import PointStudent, PointStudentConfig

CONFIG = PointStudentConfig(network="tiny", size=0.125, patch=16)


def cloud(points: int, seed: int, domain: str = "indoor") -> Cloud:
    """Coordinates are multiples of 1/256, so that moving them by whole numbers is exact."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randint(0, 300, (points, 3), generator=generator) / 256
    color, normal = (torch.rand(points, 3, generator=generator) for _ in range(2))
    return Cloud(key=f"toy/{seed}", domain=domain, xyz=xyz, values={"color": color, "normal": normal})


def student(config: PointStudentConfig = CONFIG) -> PointStudent:
    torch.manual_seed(0)
    result = PointStudent(config)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return result.eval()


@torch.no_grad()
def points(net: PointStudent, *clouds: Cloud, turn: int = 0) -> list[Tensor]:
    """Features of the points of every scene."""
    rows = net.encode(clouds, turn)
    return list(rows.features[rows.inverse].split([len(c.xyz) for c in clouds]))


def test_a_row_for_every_cell() -> None:
    net, scene = student(), cloud(80, 0)
    with torch.no_grad():
        rows = net.encode([scene])
    cells = ((scene.xyz - scene.xyz.amin(0)) / 0.125).floor()
    occupied = {tuple(cell) for cell in cells.tolist()}
    assert len(rows.features) == len(occupied) < 80
    assert rows.features.shape[1] == net.channels == 16 + 32 + 48 + 64 + 64
    assert torch.equal(cells[rows.representative][rows.inverse], cells)
    for row in range(len(rows.features)):  # the first of a cell's points speaks for it
        assert rows.representative[row] == (rows.inverse == row).nonzero()[0, 0]


def test_every_point_speaks_in_turn() -> None:
    net, scene = student(), cloud(60, 0)
    spoken, rows = set(), net.encode([scene])
    fullest = int(torch.bincount(rows.inverse).max())
    assert fullest > 1
    for turn in range(fullest):
        rows = net.encode([scene], turn)
        spoken |= set(rows.representative.tolist())
    assert spoken == set(range(60))


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 1000))
def test_batch_mates_change_nothing(counts: list[int], seed: int) -> None:
    net, clouds = student(), [cloud(count, seed + i) for i, count in enumerate(counts)]
    for scene, together in zip(clouds, points(net, *clouds), strict=True):
        torch.testing.assert_close(points(net, scene)[0], together, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 40), st.tuples(*[st.integers(-4000, 4000)] * 3), st.integers(0, 1000))
def test_where_a_scene_lies_changes_nothing(count: int, shift: tuple[int, int, int], seed: int) -> None:
    net, scene = student(), cloud(count, seed)
    there = replace(scene, xyz=scene.xyz + torch.tensor(shift))
    assert torch.equal(points(net, scene)[0], points(net, there)[0])


def test_a_domain_may_have_its_own_metric() -> None:
    scaled = student(replace(CONFIG, scale={"outdoor": 0.5}))
    outdoor, indoor = cloud(40, 0, "outdoor"), cloud(40, 0)
    shrunk = replace(indoor, xyz=indoor.xyz * 0.5)
    assert torch.equal(points(scaled, outdoor)[0], points(scaled, shrunk)[0])
    assert not torch.equal(points(scaled, outdoor)[0], points(scaled, indoor)[0])


def test_fewer_levels_give_coarser_rows_with_the_same_features() -> None:
    whole, scene = student(), cloud(80, 0)
    for levels in range(4):
        net = student(replace(CONFIG, upcast=levels))
        with torch.no_grad():
            rows = net.encode([scene])
        cells = ((scene.xyz - scene.xyz.amin(0)) / 0.125).floor().long() >> (4 - levels)
        assert len(rows.features) == len({tuple(cell) for cell in cells.tolist()})
        assert torch.equal(cells[rows.representative][rows.inverse], cells)
        assert rows.features.shape[1] == net.channels
        expected = points(whole, scene)[0][:, -net.channels :]
        torch.testing.assert_close(rows.features[rows.inverse], expected)


def test_what_is_exported_gives_the_same_features(tmp_path: Path) -> None:
    config = replace(CONFIG, inputs=("xyz", "color", "valid"), scale={"outdoor": 0.4}, upcast=2, checkpoint=True)
    net = student(config)
    export_student(net, tmp_path)
    again = load_student(tmp_path)
    assert isinstance(again, PointStudent)
    assert again.config == config
    assert torch.equal(points(net, cloud(40, 0))[0], points(again.eval(), cloud(40, 0))[0])  # type: ignore[arg-type]


def test_checkpointing_reaches_the_network() -> None:
    net = replace(CONFIG, checkpoint=True).build()
    assert isinstance(net, PointStudent)
    assert net.network.config.checkpoint
    assert net.network.config.patch == 16


@pytest.mark.parametrize(
    "wrong", [{"inputs": ("color",)}, {"network": "huge"}, {"size": 0.0}, {"scale": {"outdoor": -1.0}}]
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"xyz|unknown|positive"):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_too_large_a_scene_is_refused() -> None:
    scene = replace(cloud(2, 0), xyz=torch.tensor([[0.0, 0, 0], [1e5, 0, 0]]))
    with pytest.raises(BrickyardError, match="spans"):
        student().encode([scene])


def public_cells(xyz: np.ndarray, size: float) -> np.ndarray:
    """The released code's transforms, from their definition: the middle of the box over x and y and the lowest point go
    to 0, then coordinates over the size are rounded down and counted from the least."""
    low, high = xyz.min(0), xyz.max(0)
    centred = xyz - np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], np.float32)
    cells = np.floor(centred.astype(np.float64) / size).astype(np.int64)
    return cells - cells.min(0)


@pytest.mark.parametrize("published", ["grid", "flash", "plain"])
def test_published_cells_are_those_of_the_released_code(published: Published) -> None:
    config = replace(CONFIG, published=published, size=0.02, scale={"outdoor": 0.4})
    net = student(config)
    scenes = [rough(700, 0), rough(400, 1, domain="outdoor"), rough(1, 2)]
    seen: list[tuple[Tensor, Tensor]] = []
    forward = net.network.forward
    net.network.forward = lambda *a, **k: (seen.append((a[1], k["cells"])), forward(*a, **k))[1]  # type: ignore[method-assign]
    with torch.no_grad():
        rows = net.encode(scenes)
    ((_, cells),) = seen
    start, first = 0, 0
    moved = False
    for scene in scenes:
        scaled = scene.xyz.numpy() * np.float32(config.scale.get(scene.domain, 1.0))
        expected = public_cells(scaled, config.size)
        distinct, inverse = np.unique(expected, axis=0, return_inverse=True)
        got = rows.inverse[start : start + len(expected)].numpy() - first
        assert np.array_equal(got, inverse.reshape(-1))
        assert np.array_equal(cells[first : first + len(distinct)].numpy(), distinct)
        ours = np.floor((scaled.astype(np.float64) - scaled.min(0).astype(np.float64)) / config.size)
        moved |= len(np.unique(ours, axis=0)) != len(distinct)
        start, first = start + len(expected), first + len(distinct)
    assert moved and first == len(cells)  # the grid that begins at the least coordinates is another one


def test_published_cells_do_not_depend_on_batch_mates() -> None:
    net = student(replace(CONFIG, published="grid"))
    scenes = [rough(300, 0), rough(200, 1)]
    for alone, together in zip(scenes, points(net, *scenes), strict=True):
        torch.testing.assert_close(points(net, alone)[0], together, atol=1e-5, rtol=1e-4)


def rough(points: int, seed: int, domain: str = "indoor") -> Cloud:
    """Coordinates that are multiples of nothing."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=generator) * torch.tensor([0.31, 0.23, 0.17]) + 5
    return replace(cloud(points, seed, domain), xyz=xyz)
