"""A room that is known exactly: walls of a box in six colours and a ball, in box units, cast by ray and as a field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brickyard.train.rendering.folded import Samples
from brickyard.train.rendering.rays import Rays, pixel_rays

LOW, HIGH = (-0.5, -0.4, -0.5), (0.5, 0.4, 0.0)
CENTRE, RADIUS = (0.1, 0.05, -0.35), 0.12
WALLS = torch.tensor(
    [[0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.2, 0.3, 0.9], [0.9, 0.8, 0.2], [0.5, 0.4, 0.3], [0.9, 0.9, 0.9]]
)
BALL = torch.tensor([0.7, 0.2, 0.8])


@dataclass(frozen=True)
class Hit:
    """distance (R,), normal (R, 3) towards the viewer, color (R, 3), whether it is the ball (R,)."""

    distance: Tensor
    normal: Tensor
    color: Tensor
    ball: Tensor


def cast(origins: Tensor, directions: Tensor) -> Hit:
    """What rays from inside the room hit first, exactly."""
    low, high = origins.new_tensor(LOW), origins.new_tensor(HIGH)
    ahead = torch.where(directions > 0, high, low) - origins
    wall = torch.where(directions.abs() > 1e-12, ahead / directions, torch.inf)
    distance, axis = wall.min(1)
    side = (directions.gather(1, axis[:, None])[:, 0] > 0).long()
    normal = torch.zeros_like(origins).scatter_(1, axis[:, None], (1.0 - 2.0 * side)[:, None].to(origins))
    offset = origins - origins.new_tensor(CENTRE)
    b, c = (offset * directions).sum(1), offset.square().sum(1) - RADIUS**2
    root = b.square() - c
    near = torch.where(root > 0, -b - root.clamp(min=0).sqrt(), torch.inf)
    ball = (near > 0) & (near < distance)
    distance = torch.where(ball, near, distance)
    places = origins + distance[:, None] * directions
    normal = torch.where(ball[:, None], (places - origins.new_tensor(CENTRE)) / RADIUS, normal)
    color = torch.where(ball[:, None], BALL.to(origins), WALLS.to(origins)[2 * axis + side])
    return Hit(distance, normal, color, ball)


def distance_to(points: Tensor) -> Tensor:
    """Signed distance: positive inside the room and outside the ball."""
    walls = torch.minimum(points - points.new_tensor(LOW), points.new_tensor(HIGH) - points).amin(-1)
    return torch.minimum(walls, (points - points.new_tensor(CENTRE)).norm(dim=-1) - RADIUS)


def views(count: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(origins, directions) (R, 3) of `count` square images of `size` pixels, taken while walking around the ball."""
    generator = torch.Generator().manual_seed(seed)
    poses = []
    for number in range(count):
        angle = 2 * math.pi * (number + float(torch.rand((), generator=generator))) / count
        eye = torch.tensor([0.33 * math.cos(angle), 0.25 * math.sin(angle), -0.2])
        forward = torch.nn.functional.normalize(torch.tensor([0.05, 0.0, -0.28]) - eye, dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0])), dim=0)
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack((right, torch.linalg.cross(forward, right), forward), 1)
        pose[:3, 3] = eye
        poses.append(pose)
    half = (size - 1) / 2
    camera = torch.tensor([[0.6 * size, 0, half], [0, 0.6 * size, half], [0, 0, 1.0]])
    line = torch.arange(size, dtype=torch.float32)
    row, column = torch.meshgrid(line, line, indexing="ij")
    pixels = torch.stack((column.flatten(), row.flatten()), 1).repeat(count, 1)
    view = torch.arange(count).repeat_interleave(size * size)
    found = pixel_rays(pixels, view, camera.expand(count, 3, 3), torch.stack(poses))
    return found.origins, found.directions


def rays_of(origins: Tensor, directions: Tensor, *counts: int) -> Rays:
    """Rays in a box whose units are metres."""
    return Rays(origins=origins, directions=directions, unit=torch.ones(len(origins)), counts=counts or (len(origins),))


class Known:
    """A field that is the room itself, to be rendered instead of a learned one."""

    features = None

    def __init__(self, sharpness: float, distance: Any = distance_to) -> None:
        self.inv_s, self.distance, self.color = torch.tensor(sharpness), distance, []

    def folded(self) -> Known:
        return self

    def distances(self, rows: Tensor, grid: Any, points: Tensor) -> Tensor:
        result: Tensor = self.distance(points)
        return result

    def samples(self, rows: Tensor, grid: Any, points: Tensor) -> Samples:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            sdf = self.distance(points)
            (gradient,) = torch.autograd.grad(sdf.sum(), points)
        return Samples(sdf.detach(), gradient, points.detach(), points.detach())

    def colors(self, at: Samples, points: Tensor, directions: Tensor) -> Tensor:
        """Of the nearest wall, or of the ball."""
        walls = torch.stack((points - points.new_tensor(LOW), points.new_tensor(HIGH) - points), 2).flatten(1)
        ball = (points - points.new_tensor(CENTRE)).norm(dim=1) - RADIUS < walls.amin(1)
        color = torch.where(ball[:, None], BALL, WALLS[walls.argmin(1)])
        return color.view(len(directions), -1, 3)
