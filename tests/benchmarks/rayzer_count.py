"""What a clip costs in the published networks, counted rather than timed, so that it needs neither GPU nor weights.

Operations are counted by torch (multiply and add are two) over tensors that have shapes and no content: one clip,
forward; the way back takes twice as many, and a forward pass more where blocks are computed once more (checkpointing).
Memory is what one block keeps for the way back, measured with a few tokens under bfloat16 and proportional to them, as
attention keeps no table of all with all; with checkpointing only the tokens between blocks are kept, and one block's.
Weights, gradients and the two moments of AdamW take 16 bytes a weight.

python -m tests.benchmarks.rayzer_count [--dry]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from brickyard.train.models.lvsm import LVSMConfig
from brickyard.train.models.rayzer import RayZerConfig
from brickyard.train.models.view_transformer import Block, ViewTransformer
from tests.benchmarks.report import append, arguments, table

CASES: dict[str, tuple[Any, int, int]] = {
    "RayZer, paper": (RayZerConfig(network="paper", checkpointing=False), 16, 8),
    "RayZer, release": (RayZerConfig(network="release", checkpointing=False), 16, 8),
    "LVSM, decoder only": (LVSMConfig(design="decoder", checkpointing=False), 2, 6),
    "LVSM, encoder and decoder": (LVSMConfig(design="encoder-decoder", checkpointing=False), 2, 6),
}
"""Row -> network, input views and target views of a clip in training."""
COLUMNS = {
    "network": "s network", "views": "s input + target views", "weights": ".0f million weights",
    "state": ".1f GiB of weights and optimiser", "forward": ".1f TFLOP a clip, forward",
    "step": ".0f TFLOP a clip and step, checkpointed", "kept": ".1f GiB kept a clip",
    "kept_checkpointed": ".1f GiB, checkpointed",
}  # fmt: skip


def kept_of_a_block(channels: int, tokens: int = 256) -> float:
    """Bytes that the way back of one block needs for each token, under bfloat16."""
    block, kept = Block(channels), dict[int, tuple[int, Tensor]]()
    own = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.nbytes() >= tokens:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    given = torch.randn(1, tokens, channels, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(given)
    weights = sum(parameter.numel() * 2 for parameter in block.parameters() if parameter.dim() > 1)  # their bfloat16
    return (sum(size for size, _ in kept.values()) - weights) / tokens


def counted(config: Any, inputs: int, targets: int) -> dict[str, Any]:
    """A row without its name; see `COLUMNS`."""
    with torch.device("meta"):
        network = config.build("meta").train()
    views = inputs + targets
    images = torch.empty(1, views, 3, config.size, config.size, device="meta")
    number = torch.arange(views, device="meta")[None]
    given = (
        torch.eye(4, device="meta", dtype=torch.float64).expand(1, views, 4, 4),
        torch.ones(1, views, 4, device="meta"),
    )
    seen: list[tuple[int, int, int]] = []

    def look(module: nn.Module, tokens: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, ViewTransformer)
        batch, count, channels = tokens[0].shape
        seen.append((batch * count, channels, len(module.blocks)))

    for module in network.modules():
        if isinstance(module, ViewTransformer):
            module.register_forward_hook(look)
    with FlopCounterMode(display=False) as counter:
        found = network.look(images, inputs, number, given if network.posed else None)
        network.render(found.scene, found.told[:, inputs:])
    forward = counter.get_total_flops() / 1e12
    weights = sum(parameter.numel() for parameter in network.parameters())
    each = {channels: kept_of_a_block(channels) for _, channels, _ in seen}
    kept = sum(tokens * blocks * each[channels] for tokens, channels, blocks in seen)
    between = sum(tokens * blocks * 4 * channels for tokens, channels, blocks in seen)
    return {
        "views": f"{inputs} + {targets}", "weights": weights / 1e6, "state": weights * 16 / 2**30, "forward": forward,
        "step": 4 * forward, "kept": kept / 2**30,
        "kept_checkpointed": (between + max(tokens * each[channels] for tokens, channels, _ in seen)) / 2**30,
        "tokens": sum(tokens for tokens, _, _ in seen),
    }  # fmt: skip


def main() -> None:
    options: argparse.Namespace = arguments(__doc__).parse_args()
    rows = [{"network": name, **counted(*case)} for name, case in CASES.items()]
    table("counted", rows, COLUMNS)
    if not options.dry:
        append("rayzer_count", {"size": 256}, rows)


if __name__ == "__main__":
    main()
