"""The transformer of the multi-view networks: tokens of images, cameras, rays and scenes attend, all to all.

Blocks normalise before each branch, have no bias anywhere and 64 channels in a head; queries and keys are normalised
per head (RMS), so that attention of thousands of tokens stays calm in bfloat16. Weights of block k (from 0) start with
a standard deviation of 0.02 / sqrt(2 (k + 1)): deeper blocks begin quieter. Source of all numbers: RayZer (ICCV 2025,
arXiv 2505.00702) and LVSM (ICLR 2025, arXiv 2410.17242). They are for 768 channels; a narrower network begins with
larger weights, so that sums over its channels are as large (with 0.02 one of 128 channels learns nothing for hundreds
of steps).

Cost: 12 d^2 weights a block; 24 d^2 + 4 n d operations a token and block, forward, for n tokens of d channels.
Attention is torch's fused one, which keeps no n x n table; where it has a flash kernel that is used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

HEAD = 64
"""Channels of a head."""


class Attention(nn.Module):
    """Full self-attention of tokens (B, N, d)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.query_norm, self.key_norm = nn.RMSNorm(HEAD, eps=1e-5), nn.RMSNorm(HEAD, eps=1e-5)
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, channels = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        exact = self.query_norm.weight.dtype  # not autocast's: lengths are sums of 64 squares
        query, key = self.query_norm(query.to(exact)), self.key_norm(key.to(exact))
        seen = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(seen.transpose(1, 2).reshape(batch, count, channels))
        return out


class Block(nn.Module):
    """Attention, then an MLP of four times the width, each behind a norm and beside a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels, bias=False), nn.LayerNorm(channels, bias=False)
        self.attention = Attention(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels, bias=False), nn.GELU(), nn.Linear(4 * channels, channels, bias=False)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class ViewTransformer(nn.Module):
    """Blocks one after another: (B, N, channels) -> the same shape in float32, without a norm at either end. What the
    blocks add to is float32 under autocast, too.

    Args:
        channels: a multiple of 64.
        depth: number of blocks.
        checkpointing: while training keep the tokens between blocks alone, and compute each block once more on the way
            back: a third more time for a small part of the memory. Results do not change.
    """

    def __init__(self, channels: int, depth: int, *, checkpointing: bool = True) -> None:
        super().__init__()
        if channels % HEAD:
            raise ValueError(f"channels must be a multiple of {HEAD}, found {channels}")
        self.checkpointing = checkpointing
        self.blocks = nn.ModuleList(Block(channels) for _ in range(depth))
        for number, block in enumerate(self.blocks):
            begin_weights(block, deviation_of(channels) / math.sqrt(2 * (number + 1)))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.float() if tokens.dtype in (torch.bfloat16, torch.float16) else tokens
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens)
        return tokens


def deviation_of(channels: int) -> float:
    """Standard deviation of fresh weights: 0.02 of 768 channels, as published, and as the root of fewer."""
    return 0.02 * math.sqrt(768 / channels)


def begin_weights(network: nn.Module, deviation: float) -> None:
    """Draw the weights of all linear layers from a normal distribution, and set their biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def two_layers(inputs: int, channels: int, outputs: int) -> nn.Sequential:
    """Linear, SiLU, linear: the small networks between the transformers."""
    return nn.Sequential(nn.Linear(inputs, channels), nn.SiLU(), nn.Linear(channels, outputs))
