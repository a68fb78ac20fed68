"""Cameras as the multi-view networks see them: poses, focal lengths, and the ray of every pixel.

A pose leads from the camera to the frame of a reference view, axes as everywhere (x right, y down, z forward).
Intrinsics are in units of the image's width and height, so that they do not depend on its size: a pixel's centre
(column + 1/2) / width is seen in the direction x = (that - cx) / fx. A ray is a Pluecker vector (o x d, d) with d of
length 1 and o the camera's centre: the same six numbers for every point o of the ray.

Everything here is float32 whatever autocast says: a pose in bfloat16 is off by half a degree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.train.models.view_transformer import begin_weights, two_layers
from brickyard.train.precision import float32_island

FOCAL = 1.25
"""Focal length that predictions start from, in image widths: 44 degrees wide."""


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Pinhole cameras of V views of B scenes.

    Attributes:
        poses: float32 (B, V, 4, 4), reference frame from camera.
        intrinsics: float32 (B, V, 4): fx, cx in image widths, fy, cy in image heights, in the order fx, fy, cx, cy.
    """

    poses: Tensor
    intrinsics: Tensor

    def views(self, start: int, stop: int | None = None) -> Cameras:
        """Some consecutive views of every scene."""
        return Cameras(poses=self.poses[:, start:stop], intrinsics=self.intrinsics[:, start:stop])

    def rays(self, height: int, width: int) -> Tensor:
        """float32 (B, V, 6, height, width): Pluecker vectors of the pixels' centres, moment first."""
        with float32_island(self.poses.device):
            poses, intrinsics = self.poses.float(), self.intrinsics.float()
            fx, fy, cx, cy = (value[..., None, None] for value in intrinsics.unbind(-1))
            x = ((torch.arange(width, device=poses.device) + 0.5) / width - cx) / fx
            y = ((torch.arange(height, device=poses.device)[:, None] + 0.5) / height - cy) / fy
            x, y = x.expand(*poses.shape[:2], height, width), y.expand(*poses.shape[:2], height, width)
            ahead = torch.stack((x, y, torch.ones_like(x)), 2)
            turned = torch.einsum("bvij,bvjhw->bvihw", poses[..., :3, :3], ahead)
            direction = functional.normalize(turned, dim=2)
            centre = poses[..., :3, 3, None, None].expand_as(direction)
            return torch.cat((torch.linalg.cross(centre, direction, dim=2), direction), 2)


class CameraHead(nn.Module):
    """The cameras of all views from one token each (B, V, d); at the start every pose is the identity.

    A view's pose comes from its token beside that of the canonical view: six numbers that are added to those of no
    rotation (see `rotation`) and three of translation, whose unit is whatever the network makes of it. The canonical
    view is where the frame is, by definition. Its token gives the one focal length of a scene; pixels are square
    and the principal point is the middle.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, bias=False)
        self.pose, self.focal = two_layers(2 * channels, channels, 9), two_layers(channels, channels, 1)
        begin_weights(self, 1e-3)

    def forward(self, tokens: Tensor, canonical: Tensor) -> Cameras:
        """Args: canonical: int64 (B,), place of the canonical view among those of each scene."""
        with float32_island(tokens.device):
            tokens = self.norm(tokens.float())
            scenes, views, _ = tokens.shape
            reference = tokens[torch.arange(scenes, device=tokens.device), canonical]
            found = self.pose(torch.cat((reference[:, None].expand_as(tokens), tokens), -1))
            start = found.new_tensor((1.0, 0, 0, 0, 1.0, 0))
            last = found.new_tensor((0.0, 0, 0, 1.0)).expand(scenes, views, 1, 4)
            poses = torch.cat((torch.cat((rotation(start + found[..., :6]), found[..., 6:, None]), -1), last), -2)
            here = torch.arange(views, device=tokens.device) == canonical[:, None]
            poses = torch.where(here[..., None, None], torch.eye(4, device=tokens.device), poses)
            focal = (FOCAL + self.focal(reference))[:, None].expand(scenes, views, 2)
            return Cameras(poses=poses, intrinsics=torch.cat((focal, torch.full_like(focal, 0.5)), -1))


def rotation(values: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) from six numbers (..., 6), two vectors made orthonormal by Gram-Schmidt; they and
    their cross product are the columns. Source: Zhou et al., "On the Continuity of Rotation Representations in Neural
    Networks", CVPR 2019."""
    first = functional.normalize(values[..., :3], dim=-1)
    second = values[..., 3:] - (first * values[..., 3:]).sum(-1, keepdim=True) * first
    second = functional.normalize(second, dim=-1)
    return torch.stack((first, second, torch.linalg.cross(first, second, dim=-1)), -1)


def relative(poses: Tensor, reference: Tensor) -> Tensor:
    """Poses (..., V, 4, 4) in the frame of the camera with the pose `reference` (..., 4, 4); both rigid, float64."""
    turn = reference[..., :3, :3].transpose(-1, -2)
    moved = poses.clone()
    moved[..., :3, :3] = turn[..., None, :, :] @ poses[..., :3, :3]
    shift = poses[..., :3, 3] - reference[..., None, :3, 3]
    moved[..., :3, 3] = (turn[..., None, :, :] @ shift[..., None])[..., 0]
    return moved
