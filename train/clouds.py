"""Points of a scene on their way into a network: what there is of them, and what there is not.

Coordinates every scene has; colour, normals and intensity it may lack. A missing modality is zeros behind a flag, never
zeros that look like black points: a network that takes "valid" gets the flags as further inputs, for one that does not,
a scene without what it needs is refused. So datasets with and without colours can train one network, and training can
withhold a modality (`train.views`), which is what makes the network work without it later.

Intensities come in the scale a network asks for (`IntensityScale`). One scale for all datasets, 0..1, is what a network
of several datasets needs. It is not what SLidR and ST-SLidR feed, nor does a batch norm make the two equal: behind
inputs of 0..1 the first layer's variances are so small that its `eps` counts, and the outputs shrink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.transfer import send, send_table

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample

Input = Literal["xyz", "color", "normal", "intensity", "height", "range", "valid"]
IntensityScale = Literal["unit", "published"]
"""0..1; or what the public loaders of SLidR and ST-SLidR feed: nuScenes' bytes as they are, 0..255, and SemanticKITTI's
0..1 plus 1. Waymo's, which have no full scale, are taken through tanh in both, as is customary."""

WIDTHS: dict[str, int] = {"xyz": 3, "color": 3, "normal": 3, "intensity": 1, "height": 1, "range": 1}
MODALITIES = ("color", "normal", "intensity")
"""What a scene may lack, in the order of the flags."""

_MAX_CELLS = (1 << 16) - 1


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The points of one scene, on the CPU, in memory of its own.

    Attributes:
        key: of the scene. domain: "indoor", "outdoor", ...
        xyz: float32 (N, 3), metres, z up.
        values: modality -> float32 (N, width): "color" 0..1, unit "normal", "intensity" in the scale it was read in.
            Only what there is.
    """

    key: str
    domain: str
    xyz: Tensor
    values: Mapping[str, Tensor]

    def take(self, points: Tensor) -> Cloud:
        """The cloud of some points, given by numbers or as a mask."""
        return replace(self, xyz=self.xyz[points], values={name: v[points] for name, v in self.values.items()})


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """The points of a batch, one scene after another, on a device.

    Attributes:
        xyz: float32 (N, 3), metres.
        values: modality -> float32 (N, width), zeros where a scene lacks it.
        valid: modality -> bool (batch,), which scenes have it.
        scene: int64 (N,), number of each point's scene.
        counts: points of every scene.
        datasets: of every scene.
    """

    xyz: Tensor
    values: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    scene: Tensor
    counts: tuple[int, ...]
    datasets: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """Number of scenes."""
        return len(self.counts)

    def take(self, points: Tensor, counts: tuple[int, ...] | None = None) -> Clouds:
        """The clouds of some points, given by ascending numbers or as a mask; who knows how many of each scene says so
        in `counts`, and the device is not asked."""
        scene = self.scene[points]
        return replace(
            self,
            xyz=self.xyz[points],
            values={name: value[points] for name, value in self.values.items()},
            scene=scene,
            counts=tuple(torch.bincount(scene, minlength=self.batch).tolist()) if counts is None else counts,
        )

    def first(self, scenes: int) -> Clouds:
        """The clouds of the first so many scenes."""
        counts = self.counts[:scenes]
        points = sum(counts)
        return Clouds(
            xyz=self.xyz[:points],
            values={name: value[:points] for name, value in self.values.items()},
            valid={name: value[:scenes] for name, value in self.valid.items()},
            scene=self.scene[:points],
            counts=counts,
            datasets=self.datasets[:scenes],
        )

    def numbers(self) -> Tensor:
        """int64 (N,): the number of every point within its scene."""
        return torch.arange(len(self.xyz), device=self.xyz.device) - self.starts()[self.scene]

    def starts(self) -> Tensor:
        """int64 (batch,): the number of every scene's first point within the batch."""
        return send_table([sum(self.counts[:scene]) for scene in range(self.batch)], self.xyz.device)

    def extreme(self, how: Literal["amin", "amax"]) -> Tensor:
        """Least or greatest coordinates of every scene, (batch, 3); 0 for a scene without points."""
        index = self.scene[:, None].expand_as(self.xyz)
        return self.xyz.new_zeros(self.batch, 3).scatter_reduce_(0, index, self.xyz, how, include_self=False)

    def centred(self) -> Clouds:
        """Every scene with the middle of its box above the origin and its lowest point at height 0."""
        low, high = self.extreme("amin"), self.extreme("amax")
        shift = torch.cat(((low[:, :2] + high[:, :2]) / 2, low[:, 2:]), dim=1)
        return replace(self, xyz=self.xyz - shift[self.scene])

    def cells(self, size: float, *, multiples: bool = False) -> Tensor:
        """int64 (N, 3): the cell of every point, in float64, so that GPU and CPU agree.

        The grid begins at the scene's least coordinates; with `multiples`, cells end at multiples of `size` from the
        origin, whichever the scene's first is, and are counted from that. Raises `BrickyardError` where a scene spans
        65,535 cells or more.
        """
        cells = self.cells_unchecked(size, multiples=multiples)
        if len(cells):
            check_cells(float(cells.max()), size)
        return cells.long()

    def cells_unchecked(self, size: float, *, multiples: bool = False) -> Tensor:
        """The same as float64, for who calls `check_cells` with the largest."""
        lowest = self.extreme("amin").double()
        if multiples:  # floor is monotonous: the least coordinate is in the first cell
            return (self.xyz.double() / size).floor() - (lowest / size).floor()[self.scene]
        return ((self.xyz.double() - lowest[self.scene]) / size).floor()

    def cell_codes(self, cells: Tensor) -> Tensor:
        """int64 (N,): scene and cell as one number."""
        code = self.scene
        for axis in range(3):
            code = code << 16 | cells[:, axis]
        return code


def check_cells(largest: float, size: float) -> None:
    """Raise `BrickyardError` where a cell's largest coordinate says that a scene spans too many cells."""
    if not largest < _MAX_CELLS:
        raise BrickyardError(
            f"a scene spans {largest:.0f} cells of {size} m, more than {_MAX_CELLS - 1}; scale it down, or use a larger"
            " size"
        )


def modalities(inputs: Sequence[str]) -> tuple[str, ...]:
    """Those of `MODALITIES` that a network with these inputs takes."""
    return tuple(name for name in MODALITIES if name in inputs)


def fields(inputs: Sequence[str]) -> tuple[str, ...]:
    """What such a network asks of the stream."""
    return ("points/xyz", *(f"points/{name}" for name in modalities(inputs)))


def channels(inputs: Sequence[str]) -> int:
    """Features of a point with these inputs; "valid" is one flag for each modality among them."""
    return sum(len(modalities(inputs)) if name == "valid" else WIDTHS[name] for name in inputs)


def read_cloud(sample: Sample, inputs: Sequence[str], intensity: IntensityScale = "unit") -> Cloud:
    """The cloud of a sample, in new memory; inside a stream's `prepare`.

    Args:
        sample: of the stream.
        inputs: of the network, see `Input`.
        intensity: the scale of intensities.

    Raises:
        BrickyardError: a scene without points; or, unless "valid" is among the inputs, without a modality that is taken
            or with intensities whose full scale is unknown; or with a number that is not finite.
    """
    if "points/xyz" not in sample or not len(sample["points/xyz"].values):
        raise BrickyardError(f"scene {sample.key} has no points, which this student needs; leave it out by selection")
    values = {}
    for name in modalities(inputs):
        if f"points/{name}" in sample and not ("valid" in inputs and name == "intensity" and _unit(sample) is None):
            stored = _read_intensity(sample, intensity) if name == "intensity" else _read(sample, name)
            values[name] = torch.from_numpy(stored)
        elif "valid" not in inputs:
            raise BrickyardError(
                f"scene {sample.key} has no {name}, which this student needs; select other scenes, take {name!r} out of"
                " its inputs, or add 'valid' to them, so that it learns to do without"
            )
    xyz = torch.from_numpy(np.array(sample["points/xyz"].dequantise(), np.float32))
    _refuse_nonfinite(sample.key, {"xyz": xyz, **values})
    return Cloud(key=sample.key, domain=sample.header.identity.domain, xyz=xyz, values=values)


def _refuse_nonfinite(key: str, values: Mapping[str, Tensor]) -> None:
    """One bad number would make the loss of a whole batch NaN, and nobody could say which scene it was."""
    for name, value in values.items():
        if not bool((finite := torch.isfinite(value)).all()):
            point = int((~finite).nonzero()[0, 0])
            raise BrickyardError(
                f"scene {key}: {name} of point {point} is {value[point].tolist()}, not finite; leave the scene out by"
                " selection, or build it again (`brickyard verify --deep` finds such scenes)"
            )


def _read(sample: Sample, name: str) -> NDArray[np.float32]:
    stored = sample[f"points/{name}"]
    values = stored.dequantise() if hasattr(stored, "dequantise") else np.asarray(stored)
    result: NDArray[np.float32] = values.reshape(len(values), WIDTHS[name]).astype(np.float32)
    return result / np.float32(255) if name == "color" else result


def _read_intensity(sample: Sample, scale: IntensityScale) -> NDArray[np.float32]:
    values, unit = _read(sample, "intensity"), _unit(sample)
    if unit is None:
        unit = (sample.header.points or {}).get("intensity_unit")
        raise BrickyardError(
            f"scene {sample.key} has intensity in unit {unit!r}, this student needs one of ['byte', 'unit']; select"
            " other scenes, take 'intensity' out of the student's inputs, or add 'valid' to them"
        )
    if unit == "waymo":
        return np.tanh(values)
    if scale == "published":
        return values if unit == "byte" else values + np.float32(1)
    return values / np.float32(255) if unit == "byte" else values


def _unit(sample: Sample) -> str | None:
    """Of intensities: "byte", "unit", or "waymo", whose raw ones everybody knows; None where nobody does."""
    unit = (sample.header.points or {}).get("intensity_unit")
    if unit == "raw" and sample.header.identity.dataset.startswith("waymo"):
        return "waymo"
    return unit if unit in ("byte", "unit") else None


def join_clouds(clouds: Sequence[Cloud], inputs: Sequence[str], device: torch.device | str) -> Clouds:
    """The clouds of several scenes on a device."""
    device, counts = torch.device(device), tuple(len(cloud.xyz) for cloud in clouds)
    values, valid = {}, {}
    for name in modalities(inputs):
        parts = [c.values.get(name, c.xyz.new_zeros(len(c.xyz), WIDTHS[name])) for c in clouds]
        values[name] = send(torch.cat(parts), device)
        valid[name] = send(torch.tensor([name in cloud.values for cloud in clouds]), device)
    xyz = send(torch.cat([cloud.xyz for cloud in clouds]), device)
    scene = torch.repeat_interleave(send_table(counts, device), output_size=len(xyz))
    datasets = tuple(cloud.key.partition("/")[0] for cloud in clouds)
    return Clouds(xyz=xyz, values=values, valid=valid, scene=scene, counts=counts, datasets=datasets)


def point_features(clouds: Clouds, inputs: Sequence[str]) -> Tensor:
    """float32 (N, channels(inputs)): the inputs side by side, in their order."""
    columns = []
    for name in inputs:
        if name == "xyz":
            columns.append(clouds.xyz)
        elif name == "height":
            columns.append(clouds.xyz[:, 2:])
        elif name == "range":
            columns.append(torch.hypot(clouds.xyz[:, 0], clouds.xyz[:, 1])[:, None])
        elif name == "valid":
            columns += [clouds.valid[m][clouds.scene][:, None].float() for m in modalities(inputs)]
        else:
            columns.append(clouds.values[name])
    return torch.cat(columns, dim=1)
