"""What a step of every objective asks of a GPU, counted without one: launches, waits, copies, by part of the trainer.

A step is computed on a pretended GPU (`tests.benchmarks.pretend`), optimiser included, under bfloat16 as on a real one:
`sonata` is its base network on three rooms; `slidr`, `stslidr` and `ppkt` are the 37.8 million parameters of `mink34`
and a ResNet-50 on two street scenes of two images each. Launches and waits follow from the networks' depths and from
the numbers of scenes and views, hardly from points: there are as many of these as still make levels and patches like
those of large scenes. `--narrow` keeps the depths and takes few channels: this the suite holds against `BARS`.
The peak is that of the memory model at the points that there were.

python -m tests.benchmarks.launches [--narrow] [--dry] [--only sonata]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from brickyard.train.augment import CropConfig
from brickyard.train.clouds import Cloud
from brickyard.train.models import point_transformer, sparse_unet
from brickyard.train.models.serialization import ORDERS, encode_all
from brickyard.train.objectives import PPKT, SLidR, Sonata, STSLidR
from brickyard.train.objectives.objective import ObjectiveConfig
from brickyard.train.objectives.paired import PairedScene
from brickyard.train.running.distributed import Group
from brickyard.train.step import StepConfig, Stepper
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.teachers import TeacherConfig
from brickyard.train.teachers.resnet import ResNet
from tests.benchmarks.pretend import DEVICE, FIELDS, pretended_gpu
from tests.benchmarks.report import append, table
from tests.benchmarks.sonata_cost import room

OBJECTIVES: tuple[str, ...] = ("sonata", "slidr", "stslidr", "ppkt")
BARS = {"launches": 5000, "waits": 10}
"""A step stays below both."""
COLUMNS = {
    "part": "s part", "launches": ",d launches", "waits": "d waits", "copies": "d copies", "blocking": "d waiting",
    "bytes": ",d bytes", "float32": "d float32 products", "peak_mib": ".0f MiB peak",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is counted: an objective, its settings of a step, and the items of a pass."""

    objective: ObjectiveConfig
    step: StepConfig
    items: Sequence[Any]


def street(seed: int, config: CropConfig, points: int, *, labelled: bool) -> PairedScene:
    """A scene around a vehicle with two images in blocks of 16 x 16 pixels as superpixels, 60 pairs in each image."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, (12, 12, 1), (points, 3)).astype(np.float32)
    rows, columns, images, pairs = config.height // 16, config.width // 16, 2, 60
    block = np.arange(rows)[:, None] * columns + np.arange(columns)
    labels = np.stack([np.kron(block + image * block.size, np.ones((16, 16), np.int64)) for image in range(images)])
    image = np.repeat(np.arange(images), pairs)
    pixel = np.stack([rng.integers(0, edge, len(image)) for edge in (config.height, config.width)], axis=1)
    named = labels[image, pixel[:, 0], pixel[:, 1]]
    present = np.unique(named)
    number = np.full(labels.max() + 1, -1)
    number[present] = np.arange(len(present))
    values = {"intensity": torch.from_numpy(rng.random((points, 1), np.float32))}
    return PairedScene(
        cloud=Cloud(key=f"street-{seed}", domain="outdoor", xyz=torch.from_numpy(xyz), values=values),
        parts=(points,),
        transform=torch.eye(3),
        images=torch.from_numpy(rng.integers(0, 256, (images, 3, config.height, config.width), np.uint8)),
        labels=torch.from_numpy((number[labels] if labelled else np.empty((images, 0, 0))).astype(np.int16)),
        labelled=int((number[labels] >= 0).sum()) if labelled else 0,
        superpixels=len(present) if labelled else 0,
        pair_point=torch.from_numpy(rng.integers(0, points, len(image))),
        pair_image=torch.from_numpy(image),
        pair_pixel=torch.from_numpy(pixel),
        pair_superpixel=torch.from_numpy(number[named] if labelled else np.zeros(len(image), np.int64)),
        seed=seed,
    )


def case(name: str, *, narrow: bool, folder: Path) -> Case:
    """By the name of the objective; `folder` takes the weights of its teacher."""
    adamw = StepConfig(optimiser="adamw", lr=1e-4, weight_decay_end=0.2, clip=3.0)
    if name == "sonata":
        sizes: dict[str, Any] = {"prototypes": 64, "hidden": 64, "dimensions": 32} if narrow else {}
        student = PointStudentConfig(network="base", size=0.02)
        rooms = [room(seed, 1500 if narrow else 4000) for seed in range(3)]
        return Case(objective=Sonata(student=student, **sizes), step=adamw, items=rooms)
    kind = {"slidr": SLidR, "stslidr": STSLidR, "ppkt": PPKT}[name]
    crop = CropConfig(height=64, width=96) if narrow else CropConfig(height=224, width=416)
    stride = 32 if kind is PPKT else 4
    teacher, student = TeacherConfig(name=str(folder / "resnet.pt"), output_stride=stride), UNetConfig(network="mink34")  # type: ignore[arg-type]
    widths = (4, 8, 8, 16) if narrow else (64, 128, 256, 512)
    torch.save(ResNet(True, 8 if narrow else 64, widths, (3, 4, 6, 3)).state_dict(), folder / "resnet.pt")
    items = [street(seed, crop, 600 if narrow else 4000, labelled=kind is not PPKT) for seed in range(2)]
    return Case(objective=kind(student=student, teacher=teacher, crop=crop), step=StepConfig(), items=items)


@contextmanager
def few_channels() -> Iterator[None]:
    """The published networks as deep as ever, with few channels."""
    base = point_transformer.CONFIGS["base"]
    thin = replace(base, channels=(8, 8, 16, 16, 16), heads=(1, 1, 2, 2, 2), patch=256)
    unet = sparse_unet.CONFIGS["mink34"]
    slim = replace(unet, stem=4, planes=(4, 8, 8, 16, 16, 8, 8, 8))
    with (
        mock.patch.dict(point_transformer.CONFIGS, {"base": thin}),
        mock.patch.dict(sparse_unet.CONFIGS, {"mink34": slim}),
    ):
        yield


def count(name: str, *, narrow: bool, look: Callable[[Any], None] = lambda tally: None) -> dict[str, dict[str, Any]]:
    """part -> counts of a step, "all" last; `look` sees the tally itself."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, few_channels() if narrow else nothing():
        made = case(name, narrow=narrow, folder=Path(folder))
        with pretended_gpu() as tally:
            group = Group(rank=0, world=1, device=DEVICE)
            stepper = Stepper(made.step, made.objective.build(DEVICE), group, lambda _: 0)
            for parameter in stepper.trained:
                parameter.grad = torch.zeros_like(parameter)
            stepper.optimiser.step()  # the first one makes the optimiser's state
            encode_all(torch.zeros(1, 3, dtype=torch.int64, device=DEVICE), ORDERS)  # and tables are sent once
            tally.begin()
            assert stepper.make(0, 100, iter([list(made.items)]), [0]).learned
            parts = {part: dict(counts) for part, counts in tally.parts.items()}
            peak = tally.peak / 2**20
            look(tally)
    parts = dict(sorted(parts.items(), key=lambda item: -item[1].get("launches", 0)))
    total = {field: sum(part.get(field, 0) for part in parts.values()) for field in FIELDS}
    return {**parts, "all": {**total, "peak_mib": peak}}


@contextmanager
def nothing() -> Iterator[None]:
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narrow", action="store_true", help="few channels, few points")
    parser.add_argument("--only", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    parser.add_argument("--operations", action="store_true", help="print the operations of every part, too")
    parser.add_argument("--dry", action="store_true", help="do not record")
    options = parser.parse_args()

    def look(tally: Any) -> None:
        if options.operations:
            for (part, operation), number in tally.operations.most_common(100):
                print(f"{number:6d}  {part:28s} {operation}")

    rows = []
    for name in options.only:
        parts = count(name, narrow=options.narrow, look=look)
        table(
            f"{name}, a step",
            [{"part": part, **dict.fromkeys(FIELDS, 0), **counts} for part, counts in parts.items()],
            COLUMNS,
        )
        rows.append({"objective": name, **parts["all"], "parts": {p: c for p, c in parts.items() if p != "all"}})
    if not options.dry:
        append("launches", {"narrow": options.narrow}, rows)


if __name__ == "__main__":
    main()
