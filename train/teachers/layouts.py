"""Files of image networks as their authors publish them: where in the file the network is, and what else lies there.

A layout is recognised by where the first layer is. What the authors keep beside the network (a classifier, a
projection, a queue, the momentum copy) is left out by the names listed here; anything else is left over, and refused
when the weights meet the network. Sources: the public code of each system, whose names these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.weights_files import read_file, weights_in

_FIRST = {"resnet": "conv1.weight", "vit": "patch_embed.proj.weight"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a network is stored.

    Attributes:
        name: for messages.
        kind: of network.
        place: names of the tables that lead to its weights, outermost first.
        prefix: before the name of each of its weights.
        beside: beginnings of the names, in the same table, of what is left out.
    """

    name: str
    kind: Literal["resnet", "vit"]
    place: tuple[str, ...] = ()
    prefix: str = ""
    beside: tuple[str, ...] = ()


_DINO = ("head.", "mask_token")
LAYOUTS = (
    Layout(
        name="MoCo", kind="resnet", place=("state_dict",), prefix="module.encoder_q.",
        beside=("module.encoder_q.fc.", "module.encoder_k.", "module.queue"),
    ),
    Layout(
        name="PixPro", kind="resnet", place=("model",), prefix="module.encoder.",
        beside=("module.encoder_k.", "module.projector", "module.value_transform.", "module.predictor."),
    ),
    Layout(name="OBoW", kind="resnet", place=("network",), beside=("fc.",)),
    Layout(
        name="SwAV or DeepCluster-v2", kind="resnet", prefix="module.",
        beside=("module.projection_head.", "module.prototypes."),
    ),
    Layout(
        name="SwAV or DeepCluster-v2 in training", kind="resnet", place=("state_dict",), prefix="module.",
        beside=("module.projection_head.", "module.prototypes."),
    ),
    Layout(name="a torchvision or DINO ResNet", kind="resnet", beside=("fc.",)),
    Layout(name="a DINO, DINOv2 or DINOv3 ViT", kind="vit", beside=_DINO),
    Layout(
        name="a DINO ResNet in training", kind="resnet", place=("teacher",), prefix="module.backbone.",
        beside=("module.head.",),
    ),
    Layout(
        name="a DINO ViT in training", kind="vit", place=("teacher",), prefix="module.backbone.",
        beside=("module.head.", *("module.backbone." + name for name in _DINO)),
    ),
    Layout(
        name="a DINO ResNet in training, teacher", kind="resnet", place=("teacher",), prefix="backbone.",
        beside=("head.",),
    ),
    Layout(
        name="a DINO ViT in training, teacher", kind="vit", place=("teacher",), prefix="backbone.",
        beside=("head.", *("backbone." + name for name in _DINO)),
    ),
)  # fmt: skip


def read_layout(path: Path) -> tuple[Layout, dict[str, Tensor]]:
    """The layout of a file, and the weights of its network under the names they have within the network; those that are
    left over keep their whole names.

    Raises:
        BrickyardError: where the file cannot be read without running code, or has no known layout.
    """
    table, _ = read_file(path)
    for layout in LAYOUTS:
        weights = weights_in(table, layout.place)
        if weights and layout.prefix + _FIRST[layout.kind] in weights:
            kept = {name: value for name, value in weights.items() if not name.startswith(layout.beside)}
            return layout, {name.removeprefix(layout.prefix): value for name, value in kept.items()}
    known = "; ".join(_described(layout) for layout in LAYOUTS)
    raise BrickyardError(
        f"{path} has no known layout: its first names are {_names(table)}. Known are {known}; or a folder with"
        " config.json and .safetensors, as transformers saves them"
    )


def _described(layout: Layout) -> str:
    return f"{layout.name} ({'/'.join((*layout.place, layout.prefix + _FIRST[layout.kind]))})"


def _names(table: dict[str, Any]) -> str:
    """The first names of a file, one table down where it holds tables."""
    names = [f"{a}/{b}" for a, inner in table.items() if isinstance(inner, dict) for b in list(inner)[:3]]
    return ", ".join(repr(name) for name in (names or [str(name) for name in table])[:4]) or "none"
