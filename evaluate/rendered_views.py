"""A view rendered by a network, or warped from another one, compared with what was taken."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from brickyard.evaluate.images import depth_errors, normal_angle, psnr, ssim
from brickyard.evaluate.posed_views import PosedView
from brickyard.evaluate.warping import Warped, warp
from brickyard.train.rendering.network import SceneRenderer
from brickyard.train.rendering.renderer import Filled, box_rays


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What was rendered of a view of H x W pixels, on the CPU.

    Attributes:
        color: float32 (H, W, 3), or None. depth: float32 (H, W), metres, along what the view's depth is along.
        normal: float32 (H, W, 3), unit.
    """

    color: Tensor | None
    depth: Tensor
    normal: Tensor


def rendered_view(network: SceneRenderer, filled: Filled, view: PosedView, rays: int) -> Shown:
    """A view of a scene, so many rays at a time."""
    shape, device = view.depth.shape, network.device
    seen = torch.from_numpy(view.seen[view.shown]).float().to(device)
    assert view.camera.scene_from_camera is not None
    eye, axis = (torch.from_numpy(v).float().to(device) for v in (view.eye, view.camera.scene_from_camera[:3, 2]))
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for some in torch.split(seen, rays):
        found, _ = box_rays(eye.expand_as(some), some, filled.frame, (len(some),))
        out = network.renderer.render(filled, found)
        distance = out.depth / found.unit
        slant = functional.normalize(some - eye, dim=1) @ axis  # metres along z for a metre along the ray
        parts["depth"].append(distance * slant if view.along == "z" else distance)
        parts["normal"].append(functional.normalize(out.normal * filled.frame.scale[0], dim=1))
        if out.color is not None:
            parts["color"].append(out.color)
    mask = torch.from_numpy(view.shown)
    joined = {name: torch.cat(values).cpu() for name, values in parts.items()}
    whole = {name: values.new_zeros(*shape, *values.shape[1:]) for name, values in joined.items()}
    for name, values in joined.items():
        whole[name][mask] = values
    return Shown(color=whole.get("color"), depth=whole["depth"], normal=whole["normal"])


def compared(shown: Shown, view: PosedView) -> dict[str, float]:
    """How far a rendering is from what was taken; names as of the columns."""
    errors = depth_errors(shown.depth, torch.from_numpy(view.depth))
    result = {name: errors[name] for name in ("abs_rel", "rmse", "delta_1")}
    result["normal_angle"] = float(normal_angle(shown.normal, torch.from_numpy(view.normal)))
    if shown.color is not None:
        real = torch.from_numpy(view.color)
        result["psnr"] = float(psnr(shown.color, real, torch.from_numpy(view.shown)))
        result["ssim"] = float(ssim(shown.color, real))
    return {"psnr": float("nan"), "ssim": float("nan"), **result}


def best_warp(views: tuple[PosedView, ...], number: int) -> Warped | None:
    """Of all other views the one that covers most of a view, warped into it; None where there is no other."""
    target, best = views[number], None
    for other in (view for place, view in enumerate(views) if place != number):
        known = other.depth > 0
        warped = warp(other.seen[known], other.color[known], target.camera, target.along)
        if best is None or warped.covered.sum() > best.covered.sum():
            best = warped
    return best


def warped_compared(warped: Warped | None, view: PosedView) -> dict[str, float]:
    """As `compared`, of a warped view; names end in "_warped"."""
    names = ("psnr", "ssim", "abs_rel")
    if warped is None:
        return {f"{name}_warped": float("nan") for name in names}
    color = torch.from_numpy(warped.color * view.shown[..., None])
    found = compared(Shown(color=color, depth=torch.from_numpy(warped.depth), normal=torch.zeros_like(color)), view)
    return {f"{name}_warped": found[name] for name in names}
