"""Weights in the layout of the public SLidR, ST-SLidR and PPKT checkpoints <-> our names and kernels.

Their network is Res16UNet34C on MinkowskiEngine. A pretraining checkpoint holds a table "model_points" of it beside the
image network; a downstream one, or another trainer's, the same as "state_dict" below "model." or "model_points.".

MinkowskiEngine keeps a kernel as (offsets, inputs, outputs). Its offsets run through the cube with the first axis
fastest: number i stands for (i % k, i // k % k, i // k^2), less k // 2 for an odd k, and the output at u sums
`input[u + offset] @ kernel[i]` (its `kernel_region.hpp`, `coordinate_at`). spconv's are (outputs, x, y, z, inputs). A
transposed convolution uses the pairs of the strided one the other way round, so its kernel is permuted the same way. A
1 x 1 kernel is (inputs, outputs) there.

Source of the names: the public code of SLidR (`model/res16unet.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.models.sparse_unet import SparseUNet
from brickyard.train.weights_files import check_fit, read_file, weights_in

_PLACES = (("model_points",), ("state_dict",), ())
_WRAPPINGS = ("", "model.", "model_points.", "module.", "model_points.module.")
_STEM = "conv0p1s1.kernel"
_FINAL = "final."
"""The 1 x 1 layer to the space of the contrast or to classes: thrown away after pretraining, and no part of ours."""


def mink_name(ours: str, levels: int) -> str:
    """The public name of one of our weights; raises `BrickyardError` for a name that is not ours.

    Args:
        ours: name in the state of a `SparseUNet`.
        levels: how often the network halves the resolution, 4 in the public one.
    """
    match = re.fullmatch(r"(?P<part>stem|down|up|encoder|decoder)\.(?:(?P<stage>\d+)\.)?(?P<rest>.+)", ours)
    if match is None:
        raise BrickyardError(f"{ours!r} is no weight of a sparse U-Net")
    part, stage, rest = match["part"], int(match["stage"] or 0), match["rest"]
    if part == "stem":
        return _layer("conv0p1s1", "bn0", rest, ours)
    if part == "down":
        return _layer(f"conv{stage + 1}p{2**stage}s2", f"bn{stage + 1}", rest, ours)
    if part == "up":
        number = levels + stage
        return _layer(f"convtr{number}p{2 ** (levels - stage)}s2", f"bntr{number}", rest, ours)
    number = stage + 1 if part == "encoder" else levels + stage + 1
    block, _, rest = rest.partition(".")
    which, _, rest = rest.partition(".")
    place = f"block{number}.{block}"
    if which in ("first", "second"):
        layer = 1 if which == "first" else 2
        return _layer(f"{place}.conv{layer}", f"{place}.norm{layer}", rest, ours)
    if which == "shortcut":
        rest = rest.replace("0.weight", "convolution.weight").replace("1.", "norm.", 1)
        return _layer(f"{place}.downsample.0", f"{place}.downsample.1", rest, ours)
    raise BrickyardError(f"{ours!r} is no weight of a sparse U-Net")


def to_mink(network: SparseUNet) -> dict[str, Tensor]:
    """The weights of a network under their public names and in their public shapes."""
    levels = network.config.levels
    return {mink_name(name, levels): _to_mink(value) for name, value in network.state_dict().items()}


def load_mink(network: SparseUNet, weights: Mapping[str, Tensor], what: str) -> None:
    """Copy weights under public names (see `read_mink`) into a network, batch norms with the statistics they stored.

    Raises:
        BrickyardError: where one is missing, left over or has another shape; the network is then unchanged.
    """
    check_fit(to_mink(network), weights, what)
    values = {}
    for ours, value in network.state_dict().items():
        public = mink_name(ours, network.config.levels)
        if public in weights:  # what is absent is what a batch norm counts
            values[ours] = _from_mink(weights[public], value) if public.endswith(".kernel") else weights[public]
    network.load_state_dict(values, strict=False)


def read_mink(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint under their public names, without the last layer and the image network.

    Raises:
        BrickyardError: where the file cannot be read without running code, or holds no such network.
    """
    table, _ = read_file(path)
    found = mink_in(table)
    if found is None:
        raise BrickyardError(
            f"{path} holds no weight called {_STEM!r}, neither as 'model_points' nor as 'state_dict': these are not"
            " weights of the MinkUNet of SLidR, ST-SLidR or PPKT"
        )
    return found


def mink_in(table: Mapping[str, object]) -> dict[str, Tensor] | None:
    """The weights of such a network in what a file holds, or None."""
    for place in _PLACES:
        weights = weights_in(table, place) or {}
        for wrapping in _WRAPPINGS:
            if wrapping + _STEM in weights:
                inner = {n.removeprefix(wrapping): v for n, v in weights.items() if n.startswith(wrapping)}
                return {name: value for name, value in inner.items() if not name.startswith((_FINAL, "model_images."))}
    return None


def _layer(convolution: str, norm: str, rest: str, ours: str) -> str:
    """`convolution.weight` or `norm.<what>` of ours -> theirs."""
    if rest == "convolution.weight":
        return f"{convolution}.kernel"
    if rest.startswith("norm."):
        return f"{norm}.bn.{rest.removeprefix('norm.')}"
    raise BrickyardError(f"{ours!r} is no weight of a sparse U-Net")


def _to_mink(value: Tensor) -> Tensor:
    if value.ndim == 5:  # (outputs, x, y, z, inputs) -> (z, y, x, inputs, outputs): x is then the fastest of the three
        return value.permute(3, 2, 1, 4, 0).reshape(-1, value.shape[4], value.shape[0])
    return value.T if value.ndim == 2 else value


def _from_mink(kernel: Tensor, ours: Tensor) -> Tensor:
    """A kernel in the shape of our weight."""
    if ours.ndim == 2:
        return kernel.T
    outputs, x, y, z, inputs = ours.shape
    return kernel.reshape(z, y, x, inputs, outputs).permute(4, 2, 1, 0, 3).contiguous()
