"""What choosing views before the read saves: bytes and requests of an epoch, with every view read and with those drawn.

Simulated rooms with eight frames (1296 x 968 pixels) and street scenes with six images (1600 x 900), built as the
recipes say, and read by ranges as from an object store, through an empty cache. A request is a range that a store is
asked for; those of one turn go out together.

python -m tests.benchmarks.choosing
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from brickyard.infra.cli import main
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.shards.cache import CacheConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.objectives import Sonata, STSLidR
from brickyard.train.objectives.objective import Objective
from brickyard.train.objectives.sonata_images import ImageTerm
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from tests.benchmarks.report import append, arguments, table
from tests.shards.counting import counted

WORLD = SimulationConfig(
    scannet_rooms=2, scannet_frames=8, scannet_spacing=0.04, scannet_color_size=(1296, 968), nuscenes_scenes=2,
    nuscenes_keyframes=2, nuscenes_sweeps=0, nuscenes_columns=1080, nuscenes_image_size=(1600, 900),
)  # fmt: skip
VIEWS = 2
COLUMNS = {
    "objective": "s objective", "dataset": "s scenes", "views": ".0f images a scene", "whole_kb": ".0f kB a scene, all",
    "chosen_kb": ".0f kB, two views", "share": ".2f of the bytes", "whole_requests": ".1f requests, all",
    "chosen_requests": ".1f requests, two views",
}  # fmt: skip


def objectives() -> dict[str, Objective]:
    """The joint recipe's, and ST-SLidR with two views, each with a small network: what is read is the same."""
    inputs: Any = ("xyz", "color", "normal", "intensity", "valid")
    small = {"prototypes": 16, "hidden": 24, "dimensions": 8}
    student = PointStudentConfig(network="tiny", size=0.02, scale={"outdoor": 0.4}, inputs=inputs)
    return {
        "sonata with images": Sonata(student=student, images=ImageTerm(views=VIEWS), **small).build(),
        "stslidr": STSLidR(student=UNetConfig(network="tiny"), views=VIEWS).build(),
    }


def build(folder: Path, dataset: str) -> Corpus:
    """A corpus of one simulated dataset, with normals and superpixels."""
    simulate(folder, datasets=(dataset,), config=WORLD)
    options = {"max_frames": 8, "frames_every": 1} if dataset == "scannet" else {}
    recipe = {
        "name": dataset, "curate": {"normals": {}},
        "sources": [{"dataset": dataset, "root": str(folder / dataset), "options": options}],
    }  # fmt: skip
    path = folder / f"{dataset}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    if main(["build", str(path), "--out", str(folder / "corpora" / dataset), "--in-process"]):
        raise SystemExit("the benchmark's corpus was not built")
    return Corpus.open(folder / "corpora" / dataset)


def epoch(corpus: Corpus, objective: Objective, folder: Path, *, chosen: bool) -> tuple[float, float]:
    """(kB, requests) a scene."""
    with tempfile.TemporaryDirectory(dir=folder) as cold, counted() as count:
        cached = Corpus.open(corpus.store, cache=CacheConfig(folder=cold))
        before = count.bytes, count.reads
        stream = Stream(cached, objective.fields, batch=1, epochs=1, choose=objective.choose if chosen else None)
        scenes = sum(map(len, stream))
        return (count.bytes - before[0]) / 1000 / scenes, (count.reads - before[1]) / scenes


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each objective and dataset."""
    corpora = {dataset: build(folder, dataset) for dataset in ("scannet", "nuscenes")}
    for name, objective in objectives().items():
        for dataset, corpus in corpora.items():
            whole, asked = epoch(corpus, objective, folder, chosen=False)
            less, more = epoch(corpus, objective, folder, chosen=True)
            views = sum(corpus.index.column("n_views").to_pylist()) / len(corpus)
            yield {
                "objective": name, "dataset": dataset, "views": views, "whole_kb": whole, "chosen_kb": less,
                "share": less / whole, "whole_requests": asked, "chosen_requests": more,
            }  # fmt: skip


def run(*, dry: bool = False) -> list[dict[str, Any]]:
    """Measure, print, append the record."""
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as place:
        rows = list(measured(Path(place)))
    table("an epoch with all views read, and with the two that are drawn", rows, COLUMNS)
    if not dry:
        append("choosing", {"views": VIEWS}, rows)
    return rows


if __name__ == "__main__":
    run(**vars(arguments(__doc__).parse_args()))
