"""Weights in the layout of the public Sonata release <-> our names.

A released checkpoint holds a table "state_dict" of a network whose parts are called `embedding`, `enc.enc<stage>` and
`dec.dec<stage>`; a pretraining checkpoint holds the same below `student.backbone.`. The tensors themselves mean the
same in both (also spconv's kernels: outputs, x, y, z, inputs), only the mask token has one axis more there. Reading
the checkpoint's file is the caller's; it is a pickle, so only with `torch.load(..., weights_only=True)`.

The released weights are licensed for non-commercial use: Brickyard neither contains nor fetches them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from shards.errors import BrickyardError
from train.models.point_decoder import PointDecoder
from train.models.point_transformer import PointTransformer

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

    Weights of other parts (the decoder's for an encoder, heads, a teacher) are left alone.

    Raises:
        BrickyardError: where a weight is missing, has another shape, or belongs to a stage or block that the network
            does not have; the network is then unchanged.
    """
    expected = to_sonata(network)
    probe = next(name for name in expected if name.endswith("weight"))
    wrapping = next((w for w in _WRAPPINGS if w + probe in state), None)
    if wrapping is None:
        raise BrickyardError(f"no weight {probe!r}, wrapped or not: these are not weights in Sonata's layout")
    parts = ("dec.",) if isinstance(network, PointDecoder) else ("embedding.", "enc.")
    given = {n.removeprefix(wrapping): v for n, v in state.items() if n.startswith(tuple(wrapping + p for p in parts))}
    wrong = sorted(given.keys() ^ expected.keys())
    if wrong:
        where = "missing" if wrong[0] in expected else "not in this network"
        raise BrickyardError(
            f"{len(wrong)} weights do not fit, the first, {wrong[0]!r}, is {where}; were they made for other sizes?"
        )
    for name, value in expected.items():
        if given[name].shape != value.shape:
            raise BrickyardError(
                f"{name!r} has shape {tuple(given[name].shape)}, this network needs {tuple(value.shape)}"
            )
    values = {}
    for ours in network.state_dict():
        value = given[sonata_name(ours, decoder=isinstance(network, PointDecoder))]
        values[ours] = value[0] if ours == "mask_token" else value
    network.load_state_dict(values)
