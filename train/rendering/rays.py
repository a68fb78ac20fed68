"""Rays of posed pinhole views, the box that is rendered, and when a ray is in it.

A scene is rendered in a box of fixed size. `unit_frame` shrinks a room, by one factor, so that its longest side is 1
and its floor lies at z = -0.5; `range_frame` stretches a range in metres to [0, 1] on each axis, so lengths depend on
the direction. Points, cameras and depths change frames together and only here.

A depth image holds depth along the camera's z; what is rendered is distance along the ray. `PixelRays.slant` is the
ratio of the two, at a pixel's centre. Camera axes are those of OpenCV: x right, y down, z forward; the centre of the
top left pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.views.noise import derive, uniform

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How metres of each scene become units of the box: (metres - origin) * scale.

    Attributes:
        origin: float32 (B, 3), metres.
        scale: float32 (B, 3), box units per metre along each axis.
    """

    origin: Tensor
    scale: Tensor

    def to_box(self, xyz: Tensor, scene: Tensor) -> Tensor:
        """Points (N, 3) in metres -> box units; `scene` int64 (N,)."""
        return (xyz - self.origin[scene]) * self.scale[scene]

    def to_metres(self, xyz: Tensor, scene: Tensor) -> Tensor:
        """Points (N, 3) in box units -> metres."""
        return xyz / self.scale[scene] + self.origin[scene]


def unit_frame(xyz: Tensor, scene: Tensor, batch: int, *, floor: float = -0.5) -> Frame:
    """Each scene's bounding box in x and y around the origin, its lowest point at z = `floor`, its longest side 1.

    Raises:
        BrickyardError: for a scene without points, with points that are not finite, or all at one place.
    """
    index = scene[:, None].expand(-1, 3)
    low = xyz.new_full((batch, 3), torch.inf).scatter_reduce_(0, index, xyz, "amin")
    high = xyz.new_full((batch, 3), -torch.inf).scatter_reduce_(0, index, xyz, "amax")
    side = (high - low).amax(1)
    for number, value in enumerate(side.tolist()):
        if not 0 < value < float("inf"):
            raise BrickyardError(
                f"scene {number} of the batch spans {value} m: a scene to be rendered needs finite points at two places"
                " or more; leave it out"
            )
    scale = (1 / side)[:, None].expand(-1, 3)
    origin = (low + high) / 2
    origin = torch.cat((origin[:, :2], low[:, 2:] - floor / scale[:, 2:]), 1)
    return Frame(origin=origin, scale=scale)


def range_frame(low: Vector, high: Vector, batch: int, device: torch.device | str = "cpu") -> Frame:
    """The range from `low` to `high`, metres, as the box from (0, 0, 0) to (1, 1, 1), for every scene alike."""
    origin = torch.tensor(low, device=device)
    scale = 1 / (torch.tensor(high, device=device) - origin)
    return Frame(origin=origin.expand(batch, 3), scale=scale.expand(batch, 3))


@dataclass(frozen=True, kw_only=True)
class PixelRays:
    """Rays in metres.

    Attributes:
        origins: float32 (R, 3), where the camera is.
        directions: float32 (R, 3), of length 1.
        slant: float32 (R,), metres along the ray for a metre of depth along the camera's z; 1 on the optical axis.
    """

    origins: Tensor
    directions: Tensor
    slant: Tensor


def pixel_rays(pixels: Tensor, view: Tensor, intrinsics: Tensor, scene_from_camera: Tensor) -> PixelRays:
    """The rays through pixels of pinhole views without distortion.

    Args:
        pixels: (R, 2), (column, row); a whole number is a pixel's centre.
        view: int64 (R,), the view of each pixel.
        intrinsics: (V, 3, 3).
        scene_from_camera: (V, 4, 4), rotation (or similarity) and place of the camera.

    Raises:
        BrickyardError: a pose or an intrinsic matrix is not finite, or the latter cannot be inverted.
    """
    finite = torch.isfinite(intrinsics).flatten(1).all(1) & torch.isfinite(scene_from_camera).flatten(1).all(1)
    for number, good in enumerate((finite & (torch.linalg.det(intrinsics.double()) != 0)).tolist()):
        if not good:
            raise BrickyardError(
                f"view {number} of the batch has a pose or intrinsics that are not finite, or intrinsics that cannot be"
                " inverted; leave the view out"
            )
    # In double: a scene may lie kilometres from its origin, and inverses are taken.
    inverse, pose = torch.linalg.inv(intrinsics.double()), scene_from_camera.double()
    ahead = torch.cat((pixels, torch.ones_like(pixels[:, :1])), 1).double()
    ahead = torch.einsum("rij,rj->ri", inverse[view], ahead)
    slant = torch.linalg.vector_norm(ahead / ahead[:, 2:], dim=1)
    turned = torch.einsum("rij,rj->ri", pose[view, :3, :3], ahead)
    directions = turned / torch.linalg.vector_norm(turned, dim=1, keepdim=True)
    return PixelRays(origins=pose[view, :3, 3].float(), directions=directions.float(), slant=slant.float())


@dataclass(frozen=True, kw_only=True)
class Rays:
    """Rays in box units, all of a scene one after another.

    Attributes:
        origins: float32 (R, 3).
        directions: float32 (R, 3), of length 1 in box units.
        unit: float32 (R,), box units along the ray for a metre along the ray.
        counts: rays of each scene.
    """

    origins: Tensor
    directions: Tensor
    unit: Tensor
    counts: tuple[int, ...]

    def of(self, which: Tensor) -> Rays:
        """The rays with these numbers, int64 (N,), as if of one scene."""
        parts = self.origins[which], self.directions[which], self.unit[which]
        return Rays(origins=parts[0], directions=parts[1], unit=parts[2], counts=(len(which),))


def to_box(rays: PixelRays, frame: Frame, counts: tuple[int, ...]) -> Rays:
    """Rays in metres -> in box units; `counts` rays of each scene, one scene after another."""
    if sum(counts) != len(rays.origins) or len(counts) != len(frame.scale):
        raise ValueError(f"{len(rays.origins)} rays of {len(frame.scale)} scenes, but the counts are {counts}")
    scene = torch.arange(len(counts), device=rays.origins.device)
    scene = scene.repeat_interleave(torch.tensor(counts, device=scene.device))
    stretched = rays.directions * frame.scale[scene]
    unit = torch.linalg.vector_norm(stretched, dim=1)
    origins = frame.to_box(rays.origins, scene)
    return Rays(origins=origins, directions=stretched / unit[:, None], unit=unit, counts=counts)


def intersect(rays: Rays, low: Vector, high: Vector, *, near: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays are inside a box (slab method).

    Args:
        near: distance from the camera before which nothing is rendered, box units.

    Returns:
        (entry (R,), exit (R,), hit bool (R,)); distances in box units, 0 where the ray misses the box.
    """
    origins, directions = rays.origins, rays.directions
    parallel = directions.abs() < 1e-9  # such a ray never leaves its slab, or is never in it
    inverse = 1 / torch.where(parallel, 1.0, directions)
    first = (origins.new_tensor(low) - origins) * inverse
    second = (origins.new_tensor(high) - origins) * inverse
    inside = (origins >= origins.new_tensor(low)) & (origins <= origins.new_tensor(high))
    enters, leaves = torch.minimum(first, second), torch.maximum(first, second)
    enters = torch.where(parallel, torch.where(inside, -torch.inf, torch.inf), enters)
    leaves = torch.where(parallel, torch.where(inside, torch.inf, -torch.inf), leaves)
    entry, leave = enters.amax(1).clamp(min=near), leaves.amin(1)
    hit = entry < leave
    return torch.where(hit, entry, 0.0), torch.where(hit, leave, 0.0), hit


def choose_pixels(valid: Tensor, count: int, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Up to `count` different pixels of each view, every valid one with the same chance.

    The valid pixels of a view, row by row, are cut into `count` runs of equal length, and one is drawn from each: the
    draw is spread over the image and takes no time for those not drawn.

    Args:
        valid: bool (V, H, W).
        seeds: int64 (V,).

    Returns:
        (pixels float32 (R, 2) as (column, row), view int64 (R,)), views in order; all valid pixels of a view that has
        no more than `count`.
    """
    width = valid.shape[2]
    pixels, views = [], []
    for number, mask in enumerate(valid):
        place = mask.flatten().nonzero()[:, 0]
        if len(place) > count:
            run = torch.arange(count, device=valid.device)
            drawn = uniform(derive(seeds[number : number + 1], "pixels"), count)[0].double()
            place = place[((run + drawn) * len(place) / count).long().clamp(max=len(place) - 1)]
        pixels.append(torch.stack((place % width, torch.div(place, width, rounding_mode="floor")), 1))
        views.append(torch.full_like(place, number))
    return torch.cat(pixels).float(), torch.cat(views)
