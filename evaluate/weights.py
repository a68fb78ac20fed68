"""A digest of a network's weights: what was measured is filed under it."""

from __future__ import annotations

import torch
import xxhash
from torch import nn


def weights_digest(network: nn.Module) -> str:
    """A digest of all weights of a network, by name."""
    digest = xxhash.xxh3_128()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
