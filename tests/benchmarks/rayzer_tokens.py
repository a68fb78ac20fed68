"""What do the tokens of a trained network of views know of depth? Of films of rooms that nobody has seen.

Simulated scans of ScanNet as clips of colour frames, which have depth; see `evaluate.protocols.tokens`. Beside the
network stands the same one before training, beside both the true pixels and the places of patches.

python -m tests.benchmarks.rayzer_tokens RUN [RUN ...] [--rooms 24] [--dry]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from brickyard.evaluate.protocols.tokens import PROTOCOL, TokensConfig
from brickyard.evaluate.subject import Subject
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.shards.corpus import Corpus
from brickyard.train.models.view_network import ViewNetwork
from brickyard.train.students.export import load_exported
from tests.benchmarks.ponder_learning import brickyard
from tests.benchmarks.report import append, table

COLUMNS = {"network": "s network", "depth_order": ".1f nearer of two patches, % right"}


def films(folder: Path, rooms: int, frames: int = 20) -> Corpus:
    """Clips with depth, a third of them for validation."""
    config = SimulationConfig(scannet_rooms=rooms, scannet_frames=frames, scannet_spacing=0.3)
    simulate(folder / "raw", datasets=["scannet"], config=config)
    options = {"clips": {"frames": frames}}
    source = {"dataset": "scannet", "root": str(folder / "raw/scannet"), "options": options}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "films", "sources": [source]}))
    brickyard("build", folder / "recipe.yaml", "--out", folder / "corpus", "--in-process")
    return Corpus.open(folder / "corpus")


def judged(networks: dict[str, ViewNetwork], corpus: Corpus, settings: TokensConfig) -> list[dict[str, Any]]:
    """A row for each network, then pixels and places, which are the same for all of one size."""
    rows: list[dict[str, Any]] = []
    for name, network in networks.items():
        found = PROTOCOL.run(Subject(network, corpus), settings).metrics
        rows.append({"network": name, "depth_order": 100 * found["depth_order"]})
    for name, metric in (("pixels", "depth_order_pixels"), ("places", "depth_order_place")):
        rows.append({"network": f"no network: {name} of patches", "depth_order": 100 * found[metric]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of rayzer or lvsm")
    parser.add_argument("--rooms", type=int, default=24)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    networks: dict[str, ViewNetwork] = {}
    for run in options.runs:
        network = load_exported(run / "final")
        assert isinstance(network, ViewNetwork)
        torch.manual_seed(0)
        networks[f"{network.config.kind}, before training"] = network.config.build()
        networks[f"{network.config.kind}, trained"] = network
    with tempfile.TemporaryDirectory() as folder:
        corpus = films(Path(folder), options.rooms)
        rows = judged(networks, corpus, TokensConfig(inputs=2, targets=3, window=16, windows=4))
    table(f"{options.rooms} films of rooms", rows, COLUMNS)
    if not options.dry:
        append("rayzer_tokens", {"rooms": options.rooms}, rows)


if __name__ == "__main__":
    main()
