"""From points to volumes: rays by two places, settings in and out, and rooms that may lie anywhere."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brickyard.train.clouds import Cloud
from brickyard.train.rendering import rays
from brickyard.train.rendering.network import RenderingConfig
from brickyard.train.rendering.render import RenderConfig
from brickyard.train.rendering.renderer import Renderer, RendererConfig, box_rays
from brickyard.train.students.export import export_student, load_exported
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.voxels import VoxelConfig

SMALL = RendererConfig(
    network="tiny", decoders="tiny", cells=(8, 8, 6), sampling=RenderConfig(even=8, extra=0, rounds=0)
)
RANGE = replace(SMALL, range=((-4.0, -4.0, -1.0), (4.0, 4.0, 3.0)))
STUDENTS = (
    UNetConfig(network="tiny", inputs=("xyz", "color"), intensity="unit",
               voxels=VoxelConfig(kind="cartesian", size=(0.3,) * 3)),
    PointStudentConfig(network="tiny", inputs=("xyz", "color"), size=0.3),
)  # fmt: skip


def cloud(points: int = 300, seed: int = 0) -> Cloud:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=generator) * torch.tensor([5.0, 4.0, 2.5])
    return Cloud(key="a", domain="indoor", xyz=xyz, values={"color": torch.rand(points, 3, generator=generator)})


def test_two_places_are_the_ray_of_a_pixel() -> None:
    """As rays of pixels are brought into the box, in a room and in a range, whose axes are stretched differently."""
    torch.manual_seed(0)
    xyz = cloud().xyz
    scene = torch.zeros(len(xyz), dtype=torch.int64)
    lens, pose = torch.tensor([[[50.0, 0, 20], [0, 50, 15], [0, 0, 1]]]), torch.eye(4)[None]
    pose[0, :3, 3] = torch.tensor([1.0, 2, 0.5])
    pixels, view = torch.rand(20, 2) * 30, torch.zeros(20, dtype=torch.int64)
    found, z = rays.pixel_rays(pixels, view, lens, pose), torch.rand(20) * 3 + 0.5
    seen = found.origins + found.directions * (z * found.slant)[:, None]
    for config in (SMALL, RANGE):
        frame = Renderer(config, 4).frame(xyz, scene, 1)
        wanted = rays.to_box(found, frame, (20,))
        got, distance = box_rays(found.origins, seen, frame, (20,))
        for name in ("origins", "directions", "unit"):
            torch.testing.assert_close(getattr(got, name), getattr(wanted, name), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(distance, z * found.slant * wanted.unit, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("student", STUDENTS, ids=lambda s: s.kind)
def test_a_room_may_lie_anywhere(student: UNetConfig | PointStudentConfig) -> None:
    """The volume of a room is the same wherever its scene has its origin, although the student sees coordinates."""
    torch.manual_seed(0)
    network = RenderingConfig(student=student, renderer=SMALL).build().eval()
    here = cloud()
    there = replace(here, xyz=here.xyz + torch.tensor([16.0, -8.0, 4.0]))
    with torch.no_grad():
        a, b = network([here]), network([there])
    torch.testing.assert_close(a.volume, b.volume, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(b.frame.origin - a.frame.origin, torch.tensor([[16.0, -8, 4]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("renderer", [SMALL, replace(RANGE, features=5, color=False)])
@pytest.mark.parametrize("student", STUDENTS, ids=lambda s: s.kind)
def test_what_renders_is_exported_and_loaded(
    tmp_path: Path, student: UNetConfig | PointStudentConfig, renderer: RendererConfig
) -> None:
    torch.manual_seed(0)
    folder = tmp_path
    network = RenderingConfig(student=student, renderer=renderer).build().eval()
    export_student(network, folder)
    loaded = load_exported(folder).eval()
    assert loaded.config == network.config
    with torch.no_grad():
        torch.testing.assert_close(loaded([cloud()]).volume, network([cloud()]).volume)
    table = json.loads(json.dumps(dataclasses.asdict(renderer)))
    assert RendererConfig.from_table(table) == renderer


def test_a_range_is_stretched_to_the_box() -> None:
    renderer = Renderer(RANGE, 4)
    corners = torch.tensor([[-4.0, -4, -1], [4, 4, 3]])
    scene = torch.zeros(2, dtype=torch.int64)
    inside = renderer.frame(corners, scene, 1).to_box(corners, scene)
    torch.testing.assert_close(inside, torch.tensor([[0.0, 0, 0], [1, 1, 1]]))
    assert renderer.grid.low == (0.0,) * 3 and renderer.grid.high == (1.0,) * 3


def test_impossible_settings() -> None:
    for bad in ({"cells": (1, 4, 4)}, {"padding": -0.1}, {"features": -1}):
        with pytest.raises(ValueError, match="not negative"):
            replace(SMALL, **bad)  # type: ignore[arg-type]
