"""Rays of views, the frames of rooms and ranges, and where rays are inside a box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.shards.cameras import project_to
from brickyard.shards.errors import BrickyardError
from brickyard.train.rendering.rays import (
    choose_pixels,
    intersect,
    pixel_rays,
    range_frame,
    to_box,
    unit_frame,
)
from tests.train.rendering.solids import rays_of

CAMERA = torch.tensor([[500.0, 0, 319.5], [0, 480.0, 239.5], [0, 0, 1]])


def _pose(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation * torch.linalg.det(rotation)
    pose[:3, 3] = 3 * torch.randn(3, generator=generator, dtype=torch.float64)
    return pose


def test_points_along_a_ray_fall_on_its_pixel_at_its_depth() -> None:
    """Held against the projection of the corpus: depth along z, times the slant, is the way along the ray."""
    poses = torch.stack([_pose(1), _pose(2)])
    pixels = torch.tensor([[0.0, 0], [639, 479], [319.5, 239.5], [100, 400], [12, 30]])
    view = torch.tensor([0, 0, 0, 1, 1])
    rays = pixel_rays(pixels, view, CAMERA.expand(2, 3, 3), poses)
    depth = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5])
    points = rays.origins + (depth * rays.slant)[:, None] * rays.directions
    for number in range(5):
        camera = np.linalg.inv(poses[view[number]].numpy())
        found = project_to(points[number : number + 1].numpy(), camera, CAMERA.double().numpy())
        assert found.depth[0] == pytest.approx(float(depth[number]), abs=1e-5)
        np.testing.assert_allclose(found.uv[0], pixels[number], atol=1e-3)
    assert float(rays.slant[2]) == pytest.approx(1) and float(rays.slant.min()) >= 1
    torch.testing.assert_close(rays.directions.norm(dim=1), torch.ones(5))


def test_distant_scenes_keep_their_precision() -> None:
    """Kilometres from the origin, as drives are, directions stay exact; only the camera's place is rounded."""
    near, far = _pose(3), _pose(3)
    far[:3, 3] += 1e5
    pixels, view = torch.tensor([[10.0, 20.0]]), torch.tensor([0])
    a, b = (pixel_rays(pixels, view, CAMERA[None], pose[None]) for pose in (near, far))
    assert torch.equal(a.directions, b.directions) and torch.equal(a.slant, b.slant)


@pytest.mark.parametrize("broken", ["pose", "intrinsics", "flat"])
def test_views_that_cannot_be_are_named(broken: str) -> None:
    poses, cameras = torch.stack([_pose(1), _pose(2)]), CAMERA.repeat(2, 1, 1)
    if broken == "pose":
        poses[1, 0, 3] = torch.nan
    elif broken == "intrinsics":
        cameras[1, 0, 0] = torch.inf
    else:
        cameras[1, 0] = 0
    with pytest.raises(BrickyardError, match="view 1 of the batch"):
        pixel_rays(torch.zeros(1, 2), torch.tensor([0]), cameras, poses)


def test_a_room_fills_the_unit_box() -> None:
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(50, 3, generator=generator) * torch.tensor([8.0, 4.0, 2.5]) + torch.tensor([100.0, -3.0, 7.0])
    scene = torch.arange(50) % 2
    frame = unit_frame(xyz, scene, 2)
    box = frame.to_box(xyz, scene)
    for number in range(2):
        low, high = box[scene == number].amin(0), box[scene == number].amax(0)
        assert float((high - low).max()) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close((low + high)[:2], torch.zeros(2), atol=1e-4, rtol=0)
        assert float(low[2]) == pytest.approx(-0.5, abs=1e-5)
    torch.testing.assert_close(frame.to_metres(box, scene), xyz)


@pytest.mark.parametrize("points", [[[1.0, 1, 1], [1, 1, 1]], [[1.0, 1, 1], [torch.nan, 1, 1]], []])
def test_rooms_of_no_size_are_refused(points: list[list[float]]) -> None:
    xyz = torch.tensor([[0.0, 0, 0], [1, 1, 1], *points])
    scene = torch.tensor([0, 0, *[1] * len(points)])
    with pytest.raises(BrickyardError, match="scene 1 of the batch"):
        unit_frame(xyz, scene, 2)


def test_a_range_fills_the_box_and_stretches_lengths() -> None:
    frame = range_frame((-54.0, -54.0, -5.0), (54.0, 54.0, 3.0), 1)
    scene = torch.tensor([0, 0])
    torch.testing.assert_close(
        frame.to_box(torch.tensor([[-54.0, -54, -5], [54, 54, 3]]), scene), torch.tensor([[0.0] * 3, [1] * 3])
    )
    pixels = pixel_rays(torch.tensor([[0.0, 0.0]]), torch.tensor([0]), CAMERA[None], _pose(4)[None])
    rays = to_box(pixels, frame, (1,))
    there = pixels.origins + 7 * pixels.directions  # 7 m along the ray, in either frame
    expected = frame.to_box(there, scene[:1])
    torch.testing.assert_close(rays.origins + 7 * rays.unit[:, None] * rays.directions, expected)
    with pytest.raises(ValueError, match="counts"):
        to_box(pixels, frame, (2,))


coordinates = st.floats(-2, 2, allow_subnormal=False)


@given(
    origin=st.tuples(coordinates, coordinates, coordinates),
    toward=st.tuples(coordinates, coordinates, coordinates),
    axis=st.sampled_from([None, 0, 1, 2]),
    near=st.sampled_from([0.0, 0.01, 0.5]),
)
@settings(deadline=None, max_examples=200)
def test_a_ray_is_in_the_box_between_entry_and_exit(origin, toward, axis, near) -> None:  # type: ignore[no-untyped-def]
    """Against looking at many points of the ray; also rays along an axis, in and beside the box."""
    low, high = (-0.5, -1.0, 0.0), (0.5, 0.5, 1.0)
    direction = torch.eye(3)[axis] if axis is not None else torch.tensor(toward)
    if float(direction.norm()) < 1e-3:
        return
    rays = rays_of(torch.tensor([origin]), torch.nn.functional.normalize(direction, dim=0)[None])
    entry, leave, hit = intersect(rays, low, high, near=near)
    assert bool(torch.isfinite(entry) & torch.isfinite(leave)) and bool(entry <= leave)
    places = torch.linspace(near, 8, 4001)
    points = rays.origins + places[:, None] * rays.directions
    depth = torch.minimum(points - torch.tensor(low), torch.tensor(high) - points).amin(1)
    deep, outside = depth > 1e-4, depth < -1e-4  # what rounding does not decide
    if bool(hit):
        assert bool(((places >= entry - 1e-4) & (places <= leave + 1e-4))[deep].all())
        within = (places > entry + 1e-3) & (places < leave - 1e-3)
        assert not bool(outside[within].any())
    else:
        assert float(entry) == float(leave) == 0 and not bool(deep.any())


def test_pixels_are_drawn_from_the_valid_ones() -> None:
    valid = torch.zeros(3, 20, 30, dtype=torch.bool)
    valid[0, 5:15, 3:9] = True
    valid[1, 2, 3:7] = True
    seeds = torch.tensor([1, 2, 3])
    pixels, view = choose_pixels(valid, 10, seeds)
    assert view.tolist() == [0] * 10 + [1] * 4
    assert bool(valid[view, pixels[:, 1].long(), pixels[:, 0].long()].all())
    assert len({tuple(p) for p in pixels[:10].tolist()}) == 10
    again, _ = choose_pixels(valid[:1], 10, seeds[:1])
    assert torch.equal(again, pixels[:10]), "a view's pixels do not depend on its batch-mates"


def test_every_valid_pixel_has_the_same_chance() -> None:
    valid = torch.ones(400, 5, 5, dtype=torch.bool)
    valid[:, 0, 0] = False
    pixels, _ = choose_pixels(valid, 7, torch.arange(400))
    counts = torch.bincount((pixels[:, 1] * 5 + pixels[:, 0]).long(), minlength=25)
    assert int(counts[0]) == 0
    expected = 400 * 7 / 24
    assert float((counts[1:] - expected).abs().max()) < 5 * expected**0.5
