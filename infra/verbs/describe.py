"""`brickyard describe`: figures and descriptors of every scene, beside the corpus, for `select` and `curate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from brickyard.curate.describe.describe import FIGURES, Embed, describe
from brickyard.curate.describe.images import Pixels
from brickyard.infra.progress import Progress
from brickyard.shards.build import OtherBuild
from brickyard.shards.corpus import Corpus
from brickyard.shards.described import LAYER, write_described
from brickyard.shards.errors import CorpusError
from brickyard.shards.layers import layer_store
from brickyard.shards.scene import Float32

_SIDE, _DIMENSIONS = 128, 128


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    corpus = Corpus.open(args.corpus)
    embed = None if args.no_network else network()
    provenance = {
        "figures": {figure.name: figure.version for figure in FIGURES},
        "embedding": "none" if embed is None else f"efficientnet-lite0, {_SIDE} pixels, {_DIMENSIONS} numbers, 1",
    }
    try:
        manifest = write_described(
            corpus,
            lambda row: describe(corpus.scene(row), embed).columns(),
            provenance=provenance,
            progress=Progress("describing", "shards"),
        )
    except OtherBuild as problem:
        layer = layer_store(corpus.store, LAYER).uri
        raise CorpusError(
            f"{layer} was described otherwise; delete it to describe the corpus anew: {problem}"
        ) from None
    if not args.json:
        print(f"{args.corpus}: {manifest['scenes']} scenes described; `select` and `curate` know their figures")
    return {"corpus": args.corpus, "scenes": manifest["scenes"], "layer": manifest["digest"]}, 0


def network() -> Embed:
    """The mean over pictures of what EfficientNet-Lite0 sees, projected to 128 numbers by a fixed random matrix."""
    import torch
    from torch.nn import functional

    from brickyard.train.teachers.efficientnet import EfficientNetLite0

    teacher = EfficientNetLite0().eval()
    mixing = np.random.default_rng(0).normal(size=(teacher.channels, _DIMENSIONS)).astype(np.float32)

    def embed(pictures: Sequence[Pixels]) -> Float32:
        batch = torch.cat([
            functional.interpolate(
                torch.from_numpy(one.copy()).permute(2, 0, 1)[None].float() / 255, (_SIDE, _SIDE), mode="area"
            )
            for one in pictures
        ])  # fmt: skip
        pooled = teacher(batch).mean(dim=(0, 2, 3)).sqrt().numpy()
        mixed = (pooled - pooled.mean()) @ mixing
        return np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-9), np.float32)

    return embed
