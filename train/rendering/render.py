"""Rays, a volume and a field -> what is seen along the rays.

A ray is cut into even sections where it is in the box; the field says where surfaces may be, and more sections are put
there; then the field is evaluated at all of them, and their values are added up by NeuS weights. Rays that miss the box
are never computed: they show the background, at depth 0, and nothing is learned from them.

Memory. What the backward pass needs grows with the samples: of each piece of `chunk` rays nothing is kept but its
results, and it is computed once more when its turn comes (torch's checkpointing), so a step holds the intermediates of
one piece, whatever the number of rays. All pieces of a scene but its last are computed twice. At the published indoor
sizes, 132 samples a ray, that is half a MiB for each ray of a piece; forward and backward of 4,096 rays take 0.5 GiB in
pieces of 512, 2.0 GiB in one, and in pieces 1.5 times as long (`tests/benchmarks/rendering.py`).

Everything is float32, under autocast, too: distances are differences of sigmoids of hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from brickyard.shards.errors import BrickyardError
from brickyard.train.rendering import neus
from brickyard.train.rendering.field import Field
from brickyard.train.rendering.folded import Folded
from brickyard.train.rendering.rays import Rays, Vector, intersect
from brickyard.train.rendering.sampling import guess, merge, resample, stratified
from brickyard.train.rendering.volume import Grid, rows_of
from brickyard.train.views.noise import derive


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """How rays are sampled.

    Attributes:
        even: sections of a ray, evenly spaced.
        extra: sections added where surfaces seem to be.
        rounds: in how many rounds, each of which looks twice as sharp as the one before.
        inv_s: sharpness of the first round.
        near: distance from the camera before which nothing is rendered, box units.
        background: colour behind the box.
        anneal: see `neus.alphas`.
        chunk: rays whose intermediates are held at a time; 0 for all of a scene.
    """

    even: int = 96
    extra: int = 36
    rounds: int = 1
    inv_s: float = 64.0
    near: float = 0.01
    background: Vector = (0.0, 0.0, 0.0)
    anneal: float = 1.0
    chunk: int = 512

    def __post_init__(self) -> None:
        if self.even < 2 or self.extra < 0 or self.rounds < 0 or self.chunk < 0 or self.near < 0 or self.inv_s <= 0:
            raise ValueError("even must be 2 or more, inv_s positive, and extra, rounds, near, chunk not negative")
        if self.rounds and self.extra % self.rounds:
            raise ValueError(f"extra sections ({self.extra}) are drawn in equal rounds ({self.rounds})")


CONFIGS = {
    "published-indoor": RenderConfig(),
    "published-outdoor": RenderConfig(even=72, extra=24),
    "tiny": RenderConfig(even=32, extra=16),
}


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What R rays show, and the H x S samples on those that hit the box.

    Attributes:
        depth: float32 (R,), distance along the ray, box units; 0 where the ray misses.
        normal: float32 (R, 3), weighted sum of unit gradients (not of length 1 where surfaces are blurred).
        opacity: float32 (R,) in [0, 1].
        color: float32 (R, 3) in [0, 1], or None without a colour decoder.
        features: float32 (R, F), or None without a feature decoder.
        hits: int64 (H,), the rays that hit the box, ascending.
        distance: float32 (H, S), where their samples are along the ray.
        weight: float32 (H, S).
        sdf: float32 (H, S).
        gradient: float32 (H, S, 3).
    """

    depth: Tensor
    normal: Tensor
    opacity: Tensor
    color: Tensor | None
    features: Tensor | None
    hits: Tensor
    distance: Tensor
    weight: Tensor
    sdf: Tensor
    gradient: Tensor

    @property
    def hit(self) -> Tensor:
        """bool (R,)."""
        return torch.zeros_like(self.depth, dtype=torch.bool).index_fill_(0, self.hits, True)


def render(
    field: Field, volume: Tensor, grid: Grid, rays: Rays, *, config: RenderConfig, seeds: Tensor | None = None
) -> Rendered:
    """What rays show.

    Args:
        volume: (B, C, X, Y, Z), a scene each; least memory in channels_last_3d.
        grid: where its cells are.
        rays: of these scenes.
        seeds: int64 (R,) for random places of the samples, as training wants them; None for even ones.

    Raises:
        BrickyardError: a ray is not finite; none hits its scene's box.
        ValueError: shapes that do not fit.
    """
    if volume.shape[0] != len(rays.counts) or tuple(volume.shape[2:]) != grid.shape:
        raise ValueError(f"{len(rays.counts)} scenes on {grid.shape}, but the volume has shape {tuple(volume.shape)}")
    with torch.autocast(volume.device.type, enabled=False):
        entry, leave, hit = intersect(rays, grid.low, grid.high, near=config.near)
        _check(rays, hit)
        folded = field.folded()
        start, pieces = 0, []
        for scene, count in zip(volume.float().unbind(0), rays.counts, strict=True):
            which = start + hit[start : start + count].nonzero()[:, 0]
            start += count
            rows = rows_of(scene)
            parts = torch.split(which, config.chunk or max(len(which), 1)) if len(which) else ()
            for number, part in enumerate(parts):
                some, drawn = rays.of(part), None if seeds is None else seeds[part]
                ends = stratified(entry[part], leave[part], config.even, drawn)
                ends = _refined(folded, rows, grid, some, ends, config=config, seeds=drawn)
                work = partial(_piece, folded, rows, grid, some, ends, config=config)
                # The last piece's turn comes first in the backward pass: computing it twice would save nothing.
                if number + 1 == len(parts) or not torch.is_grad_enabled():
                    pieces.append(work())
                else:
                    pieces.append(checkpoint(work, use_reentrant=False, preserve_rng_state=False))
    return _assembled(pieces, hit, config)


class _Piece(NamedTuple):
    """As `Rendered`, of rays that hit."""

    depth: Tensor
    normal: Tensor
    opacity: Tensor
    color: Tensor | None
    features: Tensor | None
    distance: Tensor
    weight: Tensor
    sdf: Tensor
    gradient: Tensor


@torch.no_grad()
def _refined(
    folded: Folded, rows: Tensor, grid: Grid, rays: Rays, ends: Tensor, *, config: RenderConfig, seeds: Tensor | None
) -> Tensor:
    """Ends of sections (R, even + 1) -> with more where surfaces seem to be, (R, even + extra + 1)."""
    asked = ends
    known, order = ends.new_empty(len(ends), 0), None
    for turn in range(config.rounds):
        points = _points(rays, asked[:, :-1])
        known = torch.cat((known, folded.distances(rows, grid, points).view(len(ends), -1)), 1)
        if order is not None:
            known = known.gather(1, order)
        weight = guess(ends, known, config.inv_s * 2**turn)
        drawn = None if seeds is None else derive(seeds, "round", turn)
        asked = resample(ends, weight, config.extra // config.rounds, drawn)
        ends, order = merge(ends, asked)
    return ends


def _points(rays: Rays, distance: Tensor) -> Tensor:
    """(R x S, 3) points at distances (R, S)."""
    return torch.addcmul(rays.origins[:, None], rays.directions[:, None], distance[:, :, None]).view(-1, 3)


def _piece(folded: Folded, rows: Tensor, grid: Grid, rays: Rays, ends: Tensor, *, config: RenderConfig) -> _Piece:
    distance, lengths = ends[:, :-1], ends[:, 1:] - ends[:, :-1]
    points = _points(rays, distance)
    at = folded.samples(rows, grid, points)
    sdf, gradient = at.sdf.view_as(distance), at.gradient.view(*distance.shape, 3)
    slope = torch.bmm(gradient, rays.directions[:, :, None])[:, :, 0]
    weight = neus.weights(neus.alphas(sdf, slope, lengths, folded.inv_s, config.anneal))
    opacity = weight.sum(1)
    color = None
    if folded.color is not None:
        color = neus.composite(weight, folded.colors(at, points, rays.directions))
        color = color + (1 - opacity)[:, None] * color.new_tensor(config.background)
    return _Piece(
        depth=neus.expected_depth(weight, distance),
        normal=neus.composite(weight, torch.nn.functional.normalize(gradient, dim=2)),
        opacity=opacity,
        color=color,
        features=None if folded.features is None else folded.rendered_features(weight, at, points),
        distance=distance,
        weight=weight,
        sdf=sdf,
        gradient=gradient,
    )


def _assembled(pieces: list[_Piece], hit: Tensor, config: RenderConfig) -> Rendered:
    """Results of all rays, those that miss showing the background."""
    hits = hit.nonzero()[:, 0]
    joined: dict[str, Any] = {}
    for name in _Piece._fields:
        parts = [getattr(piece, name) for piece in pieces]
        joined[name] = None if parts[0] is None else torch.cat(parts)
    for name in ("depth", "normal", "opacity", "color", "features"):
        values = joined[name]
        if values is not None and len(hits) < len(hit):
            nothing = values.new_zeros(len(hit), *values.shape[1:])
            if name == "color":
                nothing = nothing + values.new_tensor(config.background)
            joined[name] = nothing.index_copy(0, hits, values)
    return Rendered(hits=hits, **joined)


def _check(rays: Rays, hit: Tensor) -> None:
    finite = torch.isfinite(rays.origins).all(1) & torch.isfinite(rays.directions).all(1)
    if not bool(finite.all() & hit.any()):
        broken = int((~finite).sum())
        what = f"{broken} of {len(hit)} rays are not finite" if broken else f"none of {len(hit)} rays hits the box"
        raise BrickyardError(f"{what}: check the poses of the views, and that points and cameras moved together")
