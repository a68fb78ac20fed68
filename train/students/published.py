"""Published weights, in and out: a released Sonata checkpoint <-> a student of ours, with its decoder where it has one.

`load_published` finds out the sizes from the weights themselves, so a checkpoint of `base`, `large`, `small` or `tiny`
shape gives a student that evaluates and trains like any other (in a recipe, `weights:` of a point transformer does the
same). `save_published` writes what the public code loads. The names are those of `train.models.sonata_weights`.

The released weights may not be used commercially; Brickyard neither contains nor fetches them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.clouds import Input
from brickyard.train.models.point_decoder import PointDecoder, PointDecoderConfig
from brickyard.train.models.point_transformer import CONFIGS
from brickyard.train.models.sonata_weights import load_sonata, part_of, read_checkpoint, to_sonata, unwrapped
from brickyard.train.students.point import PointStudent, PointStudentConfig

_INPUTS: dict[int, tuple[Input, ...]] = {9: ("xyz", "color", "normal"), 6: ("xyz", "color"), 3: ("xyz",)}
_HEAD = 16  # channels of an attention head, in every published shape
_BUILT_IN = {
    "mlp_ratio": 4, "qkv_bias": True, "qk_scale": None, "pre_norm": True, "enable_rpe": False, "layer_scale": None,
    "stride": (2, 2, 2, 2), "order": ("z", "z-trans", "hilbert", "hilbert-trans"),
}  # fmt: skip
"""Settings of the public network that ours has built in: a checkpoint that says otherwise is of another network."""


def load_published(
    path: str | Path, *, inputs: Sequence[Input] | None = None, device: torch.device | str = "cpu"
) -> tuple[PointStudent, PointDecoder | None]:
    """The student of a checkpoint in the public layout, on the cells of the released code, and its decoder.

    Args:
        path: see `read_checkpoint`.
        inputs: features of a point in the order it was trained with; coordinates, then colour, then normal by default.
        device: where they will run.

    Raises:
        BrickyardError: where the file cannot be read, its sizes are none of `CONFIGS`, its settings are not those of
            this network, or weights are missing.
    """
    state, settings = read_checkpoint(path)
    state = unwrapped(state)
    encoder, decoder = part_of(state, decoder=False), part_of(state, decoder=True)
    channels, depths = _sizes(encoder, "enc.enc", path)
    network = next((n for n, c in CONFIGS.items() if (c.channels, c.depths) == (channels, depths)), None)
    if network is None:
        raise BrickyardError(f"{path}: no known network has channels {channels} and depths {depths}")
    _check_settings(settings, CONFIGS[network].heads, path)
    width = encoder["embedding.stem.linear.weight"].shape[-1] if "embedding.stem.linear.weight" in encoder else 9
    if inputs is None and width not in _INPUTS:
        raise BrickyardError(f"{path}: weights for {width} features of a point; say which with `inputs`")
    try:
        config = PointStudentConfig(
            network=network,
            inputs=_INPUTS[width] if inputs is None else tuple(inputs),
            patch=_patch(settings, path),
            drop_path=settings.get("drop_path"),
            published="grid",
        )
        student = PointStudent(config, device)
    except (TypeError, ValueError) as problem:
        raise BrickyardError(f"{path}: settings that make no network: {problem}") from problem
    load_sonata(student.network, encoder)
    if not decoder:
        return student, None
    channels, depths = _sizes(decoder, "dec.dec", path)
    try:
        sizes = PointDecoderConfig(channels=channels, heads=tuple(c // _HEAD for c in channels), depths=depths)
        head = PointDecoder(sizes, student.network.config, device)
    except ValueError as problem:
        raise BrickyardError(f"{path}: a decoder that fits no encoder of ours: {problem}") from problem
    load_sonata(head, decoder)
    return student, head


def save_published(path: str | Path, student: PointStudent, decoder: PointDecoder | None = None) -> None:
    """Write a checkpoint in the public layout.

    Args:
        path: ends in `.safetensors` (settings as JSON in its metadata), or in `.pth` for what the public code loads:
            a table of "config", the arguments of its network, and "state_dict".
        student: whose weights.
        decoder: written with them.
    """
    path, config = Path(path), student.network.config
    state = to_sonata(student.network) | ({} if decoder is None else to_sonata(decoder))
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    stages = len(config.depths)
    settings: dict[str, Any] = {
        "in_channels": state["embedding.stem.linear.weight"].shape[1],
        "order": config.orders,
        "stride": (2,) * (stages - 1),
        "enc_depths": config.depths,
        "enc_channels": config.channels,
        "enc_num_head": config.heads,
        "enc_patch_size": (config.patch,) * stages,
        "mlp_ratio": config.ratio,
        "drop_path": config.drop_path,
        "shuffle_orders": config.shuffle,
        "mask_token": config.mask_token,
        "traceable": True,
        "enc_mode": decoder is None,
    }
    if decoder is not None:
        settings |= {
            "dec_depths": decoder.config.depths,
            "dec_channels": decoder.config.channels,
            "dec_num_head": decoder.config.heads,
            "dec_patch_size": (config.patch,) * (stages - 1),
        }
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"config": json.dumps(settings)})
    elif path.suffix == ".pth":
        torch.save({"config": settings, "state_dict": state}, path)
    else:
        raise BrickyardError(f"{path}: published weights end in .safetensors or .pth")


def _sizes(state: Mapping[str, Tensor], part: str, path: str | Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and depths of the stages, read off the blocks' first norms."""
    blocks: dict[int, list[int]] = {}
    for name, value in state.items():
        match = re.fullmatch(re.escape(part) + r"(\d+)\.block\d+\.norm1\.0\.weight", name)
        if match:
            blocks.setdefault(int(match[1]), []).append(len(value))
    if sorted(blocks) != list(range(len(blocks))) or any(len(set(widths)) > 1 for widths in blocks.values()):
        raise BrickyardError(f"{path}: stages {sorted(blocks)} of {part!r} do not make a network; is a part missing?")
    stages = [blocks[stage] for stage in sorted(blocks)]
    return tuple(widths[0] for widths in stages), tuple(len(widths) for widths in stages)


def _check_settings(settings: Mapping[str, Any], heads: tuple[int, ...], path: str | Path) -> None:
    for name, ours in {**_BUILT_IN, "enc_num_head": heads}.items():
        theirs = settings.get(name, ours)
        if (tuple(theirs) if isinstance(theirs, list) else theirs) != ours:
            raise BrickyardError(f"{path}: {name} is {theirs!r}, this network has {ours!r}")


def _patch(settings: Mapping[str, Any], path: str | Path) -> int | None:
    """The patch of all stages, or None where nothing is said."""
    patches = {int(patch) for patch in settings.get("enc_patch_size", ())}
    if len(patches) > 1:
        raise BrickyardError(f"{path}: patches of {sorted(patches)} rows; this network has one size for all stages")
    return patches.pop() if patches else None
