"""A folder as Hugging Face's transformers saves networks: config.json beside .safetensors.

transformers gives random numbers to what a file lacks and only logs it; here that is refused. What the features do not
need may be missing (a pooler) or left over (a classifier).
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor

from brickyard.shards.errors import RecipeError
from brickyard.train.teachers.resnet import dilate
from brickyard.train.teachers.teacher import Teacher

_UNUSED = ("pooler.",)
_BESIDE = ("classifier.", "lm_head.", "fc.", "head.")


class HuggingFace(Teacher):
    """A ResNet, or a ViT with patches such as DINO's, DINOv2's and DINOv3's.

    Raises:
        RecipeError: for any other network, or where the weights are not exactly those of config.json.
    """

    def __init__(self, folder: Path, output_stride: int) -> None:
        network = read_folder(f"teacher {folder}", folder)
        config = network.config
        if config.model_type == "resnet":
            channels, stride, multiple = config.hidden_sizes[-1], output_stride, 32
            dilate(network.encoder.stages, output_stride)
        elif isinstance(getattr(config, "patch_size", None), int):
            channels, stride, multiple = config.hidden_size, config.patch_size, config.patch_size
        else:
            raise RecipeError(f"teacher {folder}: {config.model_type!r} is neither a ResNet nor a ViT with patches")
        super().__init__(channels=channels, stride=stride, multiple=multiple)
        self.network = network
        resized = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        self.more: dict[str, Any] = {"interpolate_pos_encoding": True} if resized else {}

    def features(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.network(pixel_values=images, **self.more).last_hidden_state
        if hidden.ndim == 4:
            return hidden
        rows, columns = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        patches = hidden[:, -rows * columns :]  # class and register tokens come first
        return patches.transpose(1, 2).reshape(len(images), -1, rows, columns)


def read_folder(what: str, folder: Path) -> Any:
    """The network that a folder holds, without what classifies; `what` it is begins the sentence of a `RecipeError`."""
    from transformers import AutoModel

    if not list(folder.glob("*.safetensors")):
        raise RecipeError(f"{what}: no .safetensors file; other formats can run code and are not loaded")
    try:
        network, report = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        raise RecipeError(f"{what}: {error}") from error
    problems = {
        "missing": [n for n in report["missing_keys"] if not n.startswith(_UNUSED)],
        "not in this network": [n for n in report["unexpected_keys"] if not n.startswith(_BESIDE)],
        "of another shape": [str(mismatch[0]) for mismatch in report["mismatched_keys"]],
    }
    wrong = [
        f"{len(names)} weights {kind} ({', '.join(map(repr, sorted(names)[:3]))})"
        for kind, names in problems.items()
        if names
    ]
    if wrong:
        raise RecipeError(
            f"{what}: the weights are not those of its config.json: {'; '.join(wrong)}. If they have their"
            " authors' names (conv1.weight, patch_embed.proj.weight), give the file itself as the teacher's name"
        )
    return network
