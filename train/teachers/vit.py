"""Vision transformers as teachers, with the names of DINO (ICCV 2021, arXiv 2104.14294), DINOv2 (arXiv 2304.07193, with
registers arXiv 2309.16588) and DINOv3 (arXiv 2508.10104).

One network in three dialects, told from each other by their weights:

    DINO      learned positions, resized to the image with an offset of 0.1 patches in the scale
    DINOv2    the same, a factor on every branch (`ls1`, `ls2`), patches of 14; with registers, positions are resized
              with antialiasing and without the offset. The giant's MLP is gated (`w12`, `w3`)
    DINOv3    no learned positions: queries and keys of patches are rotated by their place (RoPE). The bias of keys is
              masked; MLPs of the "plus" networks are gated (`w1`, `w2`, `w3`)

The features are the patches' tokens after the last norm. All published sizes up to 1,536 channels have 64 channels in a
head.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import BrickyardError
from brickyard.train.teachers.teacher import IMAGENET, Teacher
from brickyard.train.weights_files import load_fitting

_DEPTHS = {192: 12, 384: 12, 768: 12, 1024: 24, 1280: 32, 1536: 40}
"""Channels -> blocks, as published: a file with fewer blocks is cut short, not another network."""
_HEAD = 64
_LOCAL = "local_cls_norm."  # not used after training; of the published sizes here, only the satellite network has it
_SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))


class ViTTeacher(Teacher):
    """A ViT of the sizes its weights have.

    Args:
        weights: under the authors' names, without heads and mask token.
        what: the weights are, for messages.

    Raises:
        BrickyardError: where they make no such network.
    """

    def __init__(self, weights: Mapping[str, Tensor], what: str) -> None:
        satellite = _LOCAL + "weight" in weights
        weights = _unmasked({n: v for n, v in weights.items() if not n.startswith(_LOCAL)}, what)
        network = ViT(weights, what)
        load_fitting(network, weights, what)
        patch, normalisation = network.patch, _SATELLITE if satellite else IMAGENET
        super().__init__(channels=network.channels, stride=patch, multiple=patch, normalisation=normalisation)
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(images)
        return out


class ViT(nn.Module):
    """The tokens of the patches, (B, channels, H / patch, W / patch).

    Args:
        weights: give the sizes and the dialect; they are not copied.
        what: the weights are, for messages.
    """

    def __init__(self, weights: Mapping[str, Tensor], what: str) -> None:
        super().__init__()
        first = weights["patch_embed.proj.weight"]
        self.channels, self.patch = len(first), first.shape[-1]
        depth = len({m[1] for name in weights if (m := re.match(r"blocks\.(\d+)\.norm1\.weight$", name))})
        if _DEPTHS.get(self.channels) != depth:
            known = ", ".join(f"{c} channels with {d}" for c, d in _DEPTHS.items())
            raise BrickyardError(
                f"{what}: {self.channels} channels with {depth} blocks; published are {known} blocks. Is the file cut"
                " short?"
            )
        rotary = "rope_embed.periods" in weights
        eps = 1e-5 if rotary else 1e-6
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, self.channels, self.patch, self.patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.channels))
        self.rope_embed = _Periods() if rotary else None
        if not rotary:
            self.pos_embed = nn.Parameter(torch.zeros(1, _positions(weights, what), self.channels))
        self.registers = next((n for n in ("register_tokens", "storage_tokens") if n in weights), None)
        if self.registers is not None:
            count = weights[self.registers].shape[1] if weights[self.registers].ndim == 3 else 0
            self.register_parameter(self.registers, nn.Parameter(torch.zeros(1, count, self.channels)))
        self.blocks = nn.ModuleList(_Block(self.channels, weights, eps) for _ in range(depth))
        self.norm = nn.LayerNorm(self.channels, eps=eps)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images)
        rows, columns = patches.shape[-2:]
        x = patches.flatten(2).transpose(1, 2)
        turn = None
        if self.rope_embed is not None:
            turn = _rotation(rows, columns, self.rope_embed.periods)
        else:
            x = x + self._placed(rows, columns)
        extra = [self._first_token()] + ([] if self.registers is None else [getattr(self, self.registers)])
        x = torch.cat((*(token.expand(len(x), -1, -1) for token in extra), x), dim=1)
        for block in self.blocks:
            x = block(x, turn)
        tokens: Tensor = self.norm(x[:, -rows * columns :])
        return tokens.transpose(1, 2).reshape(len(images), self.channels, rows, columns)

    def _first_token(self) -> Tensor:
        token: Tensor = self.cls_token if self.rope_embed is not None else self.cls_token + self.pos_embed[:, :1]
        return token

    def _placed(self, rows: int, columns: int) -> Tensor:
        """The learned positions resized to a grid, (1, rows * columns, channels)."""
        edge = math.isqrt(self.pos_embed.shape[1] - 1)
        learned = self.pos_embed[:, 1:]
        if rows == columns == edge:
            return learned
        grid = learned.reshape(1, edge, edge, self.channels).permute(0, 3, 1, 2)
        if self.registers is not None:
            grid = functional.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        else:
            scale = ((rows + 0.1) / edge, (columns + 0.1) / edge)
            grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        return grid.flatten(2).transpose(1, 2)


class _Periods(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.periods: Tensor
        self.register_buffer("periods", torch.zeros(_HEAD // 4))


class _Block(nn.Module):
    def __init__(self, channels: int, weights: Mapping[str, Tensor], eps: float) -> None:
        super().__init__()
        bias, scaled = "blocks.0.attn.qkv.bias" in weights, "blocks.0.ls1.gamma" in weights
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=eps), nn.LayerNorm(channels, eps=eps)
        self.attn = _Attention(channels, bias)
        self.ls1, self.ls2 = (_Scale(channels) if scaled else nn.Identity() for _ in range(2))
        self.mlp = _mlp(channels, weights)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), turn))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class _Attention(nn.Module):
    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(channels, 3 * channels, bias=bias), nn.Linear(channels, channels)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
        batch, tokens, channels = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, channels // _HEAD, _HEAD).permute(2, 0, 3, 1, 4)
        if turn is not None:
            q, k = _turned(q, turn), _turned(k, turn)
        y = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(batch, tokens, channels))
        return out


class _Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Plain(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class _Gated(nn.Module):
    """`w3(silu(w1 x) * w2 x)`; where `joined`, w1 and w2 are the halves of one layer."""

    def __init__(self, channels: int, hidden: int, *, joined: bool) -> None:
        super().__init__()
        for name, width in (("w12", 2 * hidden),) if joined else (("w1", hidden), ("w2", hidden)):
            self.add_module(name, nn.Linear(channels, width))
        self.w3, self.joined = nn.Linear(hidden, channels), joined

    def forward(self, x: Tensor) -> Tensor:
        layers: Any = self._modules
        gate, value = layers["w12"](x).chunk(2, dim=-1) if self.joined else (layers["w1"](x), layers["w2"](x))
        out: Tensor = self.w3(functional.silu(gate) * value)
        return out


def _mlp(channels: int, weights: Mapping[str, Tensor]) -> nn.Module:
    inner: dict[str, Any] = {n: len(weights[f"blocks.0.mlp.{n}.weight"]) for n in ("fc1", "w1", "w12")
                             if f"blocks.0.mlp.{n}.weight" in weights}  # fmt: skip
    if "w12" in inner:
        return _Gated(channels, inner["w12"] // 2, joined=True)
    if "w1" in inner:
        return _Gated(channels, inner["w1"], joined=False)
    return _Plain(channels, inner.get("fc1", 4 * channels))


def _positions(weights: Mapping[str, Tensor], what: str) -> int:
    """Of the class token and of a square of patches."""
    places = weights["pos_embed"].shape[1] if "pos_embed" in weights and weights["pos_embed"].ndim == 3 else 0
    if places < 2 or math.isqrt(places - 1) ** 2 != places - 1:
        raise BrickyardError(
            f"{what}: it has neither learned positions of a square of patches (pos_embed, as DINO and DINOv2) nor"
            " rope_embed.periods (as DINOv3)"
        )
    return places


def _unmasked(weights: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """DINOv3's biases times the 0 or 1 they are masked with, without the masks."""
    result = {name: value for name, value in weights.items() if not name.endswith(".qkv.bias_mask")}
    for name, mask in weights.items():
        bias = result.get(name.removesuffix("_mask"))
        if not name.endswith(".qkv.bias_mask") or bias is None:
            continue
        if not bool(((mask == 0) | (mask == 1)).all()) or mask.shape != bias.shape:
            raise BrickyardError(f"{what}: {name!r} is no mask of zeros and ones for its bias")
        result[name.removesuffix("_mask")] = bias * mask.to(bias.dtype)
    return result


def _rotation(rows: int, columns: int, periods: Tensor) -> tuple[Tensor, Tensor]:
    """(sine, cosine), each (rows * columns, head), of the angles of every patch: its place in -1..1 by rows, then by
    columns, over every period; the second half of a head turns as the first."""
    axes = [(torch.arange(n, device=periods.device) + 0.5) / n * 2 - 1 for n in (rows, columns)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2, 1)
    angle = (2 * math.pi * place / periods).flatten(1).tile(2)
    return angle.sin(), angle.cos()


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys (B, heads, tokens, head), those of the patches, which come last, turned."""
    sine, cosine = turn
    others, patches = x[:, :, : -len(sine)], x[:, :, -len(sine) :]
    left, right = patches.chunk(2, dim=-1)
    return torch.cat((others, patches * cosine + torch.cat((-right, left), dim=-1) * sine), dim=2)
