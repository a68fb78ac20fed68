"""Weights in the layout of the public Sonata release <-> our names.

A released checkpoint holds a table "state_dict" of a network whose parts are called `embedding`, `enc.enc<stage>` and
`dec.dec<stage>`; a pretraining checkpoint holds the same below `student.backbone.`. The tensors themselves mean the
same in both (also spconv's kernels: outputs, x, y, z, inputs), only the mask token has one axis more there.

The released weights are licensed for non-commercial use: Brickyard neither contains nor fetches them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from brickyard.shards.errors import NONSENSE, BrickyardError
from brickyard.train.models.point_decoder import PointDecoder
from brickyard.train.models.point_transformer import PointTransformer
from brickyard.train.weights_files import check_fit, read_file

KEYS = {
    r"mask_token": "embedding.mask_token",
    r"stem\.0": "embedding.stem.linear",
    r"stem\.1": "embedding.stem.norm",
    r"pools\.(?P<below>\d+)\.linear": "enc.enc{stage}.down.proj",
    r"pools\.(?P<below>\d+)\.norm": "enc.enc{stage}.down.norm.0",
    r"joints\.(?P<stage>\d+)\.coarse\.(?P<layer>\d)": "dec.dec{stage}.up.proj.{layer}",
    r"joints\.(?P<stage>\d+)\.fine\.(?P<layer>\d)": "dec.dec{stage}.up.proj_skip.{layer}",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.position\.convolution": "{part}{stage}.block{block}.cpe.0",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.position(?=\.bias)": "{part}{stage}.block{block}.cpe.0",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.position\.linear": "{part}{stage}.block{block}.cpe.1",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.position\.norm": "{part}{stage}.block{block}.cpe.2",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.norm(?P<layer>\d)": "{part}{stage}.block{block}.norm{layer}.0",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.attention\.qkv": "{part}{stage}.block{block}.attn.qkv",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.attention\.out": "{part}{stage}.block{block}.attn.proj",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.mlp\.0": "{part}{stage}.block{block}.mlp.0.fc1",
    r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.mlp\.2": "{part}{stage}.block{block}.mlp.0.fc2",
}
"""Our module -> theirs; what follows (".weight", ".bias") is the same. Their pooling belongs to the stage after it."""

_ENCODER, _DECODER = ("embedding.", "enc."), ("dec.",)
_TOKEN, _PROBE = "embedding.mask_token", "enc.enc0.block0.attn.qkv.weight"
_WRAPPINGS = ("", "module.", "backbone.", "module.backbone.", "student.backbone.", "module.student.backbone.")


def sonata_name(ours: str, *, decoder: bool = False) -> str:
    """The public name of one of our parameters; raises `BrickyardError` for a name that is not ours."""
    for pattern, theirs in KEYS.items():
        match = re.match(pattern + r"(?=\.(weight|bias)$|$)", ours)
        if match:
            places = match.groupdict()
            if "below" in places:
                places["stage"] = str(int(places["below"]) + 1)
            return theirs.format(part="dec.dec" if decoder else "enc.enc", **places) + ours[match.end() :]
    raise BrickyardError(f"{ours!r} is no parameter of a point transformer or its decoder")


def to_sonata(network: PointTransformer | PointDecoder) -> dict[str, Tensor]:
    """The weights of a network under their public names and in their public shapes."""
    decoder = isinstance(network, PointDecoder)
    state: dict[str, Tensor] = network.state_dict()
    return {sonata_name(n, decoder=decoder): v[None] if n == "mask_token" else v for n, v in state.items()}


def load_sonata(network: PointTransformer | PointDecoder, state: Mapping[str, Tensor]) -> None:
    """Copy weights under public names, wrapped as in a release or a training checkpoint, into a network.

    Weights of other parts (the decoder's for an encoder, heads, a teacher) are left alone. A mask token that only one
    side has is too: networks trained with labels come without.

    Raises:
        BrickyardError: where a weight is missing, has another shape, or belongs to a stage or block that the network
            does not have; the network is then unchanged.
    """
    decoder = isinstance(network, PointDecoder)
    expected, given = to_sonata(network), part_of(unwrapped(state), decoder=decoder)
    if _TOKEN in expected:
        given.setdefault(_TOKEN, expected[_TOKEN])
    else:
        given.pop(_TOKEN, None)
    check_fit(expected, given, "these weights were made for other sizes or are not whole")
    values = {}
    for ours in network.state_dict():
        value = given[sonata_name(ours, decoder=decoder)]
        values[ours] = value[0] if ours == "mask_token" else value
    network.load_state_dict(values)


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the encoder and, where there is one, the decoder under their names in a release; no others.

    Raises:
        BrickyardError: where there is no encoder, or no decoder either.
    """
    found = _inside(state)
    if found:
        return found
    raise BrickyardError(
        f"no weight is called {_PROBE!r} or the like, wrapped or not: these are not weights in Sonata's layout"
    )


def _inside(state: Mapping[str, Any]) -> dict[str, Any]:
    for wrapping in _WRAPPINGS:
        starts = tuple(wrapping + part for part in (*_ENCODER, *_DECODER))
        found = {name.removeprefix(wrapping): v for name, v in state.items() if name.startswith(starts)}
        if found:
            return found
    return {}


def holds_sonata(table: Mapping[str, Any]) -> bool:
    """Whether what a file holds looks like weights in this layout."""
    state = table.get("state_dict", table)
    return isinstance(state, Mapping) and bool(_inside(state))


def part_of(state: Mapping[str, Tensor], *, decoder: bool) -> dict[str, Tensor]:
    """Those of unwrapped weights that belong to the decoder, or to the encoder."""
    return {name: value for name, value in state.items() if name.startswith(_DECODER if decoder else _ENCODER)}


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a checkpoint, and its table "config" ({} where there is none): the arguments of their network.

    Args:
        path: `.safetensors` with the table as JSON in its metadata, or any other name for what `torch.save` wrote, of
            which only tensors and plain tables are read (`weights_only`): a file that asks for code is refused.

    Raises:
        BrickyardError: where there is no such file, or it holds something else.
    """
    table, metadata = read_file(path)
    state = table.get("state_dict", table)
    try:
        config = json.loads(metadata["config"]) if "config" in metadata else table.get("config", {})
    except NONSENSE as problem:
        raise BrickyardError(f"{path}: the config in its metadata is no JSON: {problem}") from problem
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BrickyardError(f'{path} holds no table of weights, neither as "state_dict" nor as the whole')
    return dict(state), dict(config) if isinstance(config, Mapping) else {}
