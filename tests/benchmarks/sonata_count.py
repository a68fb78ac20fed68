"""What a point costs in the large networks, counted rather than timed, so that it needs no GPU.

A view of a room at the published resolution is encoded once on a CPU in float32: operations are counted by torch
(multiply and add are two) and, for sparse convolutions, from their tables of neighbours; memory is the sum of what the
backward pass keeps. From these follow the memory and the operations of a step of `sonata-indoor`. Under bfloat16 most
activations take half.

python -m tests.benchmarks.sonata_count
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import spconv.pytorch as spconv
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from brickyard.train.clouds import Clouds, join_clouds
from brickyard.train.students.point import PointStudent, PointStudentConfig
from brickyard.train.voxels import representatives
from tests.benchmarks.report import append, table
from tests.benchmarks.sonata_cost import room

SIZE = 0.02
COLUMNS = {
    "network": "s network", "points": "d points", "rows": "s rows of the levels", "dense": ".2f dense MFLOP/point",
    "sparse": ".2f sparse MFLOP/point", "kept": ".1f kB kept/point", "kept_checkpointed": ".1f kB, checkpointed",
}  # fmt: skip


def view(inputs: tuple[str, ...], points: int) -> Clouds:
    """The nearest `points` of a room thinned to one point in 2 cm."""
    cloud = join_clouds([room(0, 400_000).cloud], inputs, "cpu").centred()
    _, chosen = representatives(cloud.cell_codes(cloud.cells(SIZE)))
    cloud = cloud.take(chosen.sort().values)
    distance = (cloud.xyz - cloud.xyz[100]).square().sum(1)
    return cloud.take(distance.argsort().argsort() < points)


def operations(student: PointStudent, cloud: Clouds) -> tuple[int, int, list[int]]:
    """(dense operations, those of sparse convolutions, rows of every level) of a forward pass."""
    sparse = 0

    def count(layer: Any, _: Any, output: Any) -> None:
        nonlocal sparse
        pairs = int(output.indice_dict[layer.indice_key].indice_pair_num.sum())
        sparse += 2 * pairs * layer.in_channels * layer.out_channels

    for module in student.modules():
        if isinstance(module, spconv.SubMConv3d):
            module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoded = student.eval()(cloud)
    return counter.get_total_flops(), sparse, [sum(level.counts) for level in encoded.levels]


def kept_bytes(student: nn.Module, cloud: Clouds) -> int:
    """Bytes that the backward pass keeps, parameters not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}  # the tensors themselves, lest memory be used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _ = student.train()(cloud).upcast(2)
    return sum(size for size, _ in kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--dry", action="store_true", help="do not record")
    options = parser.parse_args()
    rows = []
    for network in ("small", "base"):
        config = PointStudentConfig(network=network, size=SIZE, drop_path=0.0)
        cloud = view(config.inputs, options.points)
        torch.manual_seed(0)
        points, student = len(cloud.xyz), PointStudent(config)
        dense, sparse, levels = operations(student, cloud)
        kept = [kept_bytes(PointStudent(replace(config, checkpoint=twice)), cloud) for twice in (False, True)]
        rows.append({
            "network": network, "points": points, "rows": " ".join(map(str, levels)),
            "dense": dense / points / 1e6, "sparse": sparse / points / 1e6,
            "kept": kept[0] / points / 1e3, "kept_checkpointed": kept[1] / points / 1e3,
            "parameters": sum(parameter.numel() for parameter in student.parameters()),
        })  # fmt: skip
    table("counted, float32", rows, COLUMNS)
    if not options.dry:
        append("sonata_count", {"points": options.points, "size": SIZE}, rows)


if __name__ == "__main__":
    main()
