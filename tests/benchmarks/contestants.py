"""The loaders that are compared: ours, and others in the way their documentation shows.

Each is opened on its own copy of the corpus and gives, once for every epoch, all scenes in a new random order, in
lists of four. A scene is a dictionary of arrays: name, xyz (float32), color (uint8), normal (float32), label (int16).
Nobody has to concatenate the batch. Peers live in environments of their own (see `peers`).
"""

from __future__ import annotations

import io
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

import brickyard.shards.corpus
from brickyard.shards.buffers import BufferPool
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.codecs import Compressor
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import EncodedScene, encode_scene
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.stream import Sample, Stream
from tests.benchmarks.material import LABELS
from tests.benchmarks.peers import interpreter, version

BATCH = 4
PER_SHARD = 32
PER_TAR = 8  # more shards than workers, and as many scenes for each of them
ARRAYS = ("xyz", "color", "normal", "label")
FIELDS = ("points/xyz", "points/color", "points/normal", f"points/semantic.{LABELS}")
Batch = Sequence[dict[str, Any]]
Epoch = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class Contestant:
    """A loader.

    Attributes:
        layout: folder (below that of the run) with the corpus in its format.
        open: folder of the run -> function that starts the next epoch.
        module: that must be importable.
    """

    name: str
    layout: str
    open: Callable[[Path], Epoch]
    module: str = "numpy"


# Ours


def write_bricks(folder: Path, scenes: Sequence[Scene], compressor: Compressor) -> None:
    """Encode and commit a corpus, PER_SHARD scenes a shard."""
    store, fingerprint = Store(folder), {"benchmark": compressor}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    encoded: list[EncodedScene] = [encode_scene(scene, compressor) for scene in scenes]
    tasks = [encoded[start : start + PER_SHARD] for start in range(0, len(encoded), PER_SHARD)]
    for number, task in enumerate(tasks):
        commit_task(store, number, build, task, [])
    finish_build(store, len(tasks), build, [], {})


def open_bricks(folder: Path, *, compressor: str, threads: int, codes: bool = False) -> Epoch:
    """A `Stream`, taken up anew for every epoch."""
    corpus = Corpus.open(folder / f"brickyard-{compressor}")
    pool, number = BufferPool(), count()

    def epoch() -> Iterator[Batch]:
        prepare = partial(_prepare, codes=codes)
        stream = Stream(corpus, FIELDS, batch=BATCH, threads=threads, prepare=prepare, seed=next(number), epochs=1)
        stream._pool = pool  # a run over many epochs keeps its buffers, too
        return iter(stream)

    return epoch


class _Agrees:
    """Equal to every digest."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def unverified() -> Iterator[None]:
    """Every digest is right while this lasts: to measure what checking them costs, in this process only."""
    module: Any = brickyard.shards.corpus
    real, agrees = module.digest64, _Agrees()
    module.digest64 = lambda data: agrees
    try:
        yield
    finally:
        module.digest64 = real


def _prepare(sample: Sample, rng: np.random.Generator, *, codes: bool) -> dict[str, Any]:
    xyz, color, normal, label = (sample[field] for field in FIELDS)
    name = sample.key.partition("/")[2]
    return {"name": name, "xyz": xyz if codes else xyz.dequantise(), "color": color, "normal": normal, "label": label}


# Others


def write_npy(folder: Path, scenes: Sequence[Scene]) -> None:
    """A folder a scene, a file a field, as Pointcept's preprocessing writes them."""
    for scene in scenes:
        points, place = scene.points, folder / scene.identity.scene_id
        assert points is not None
        place.mkdir(parents=True)
        arrays = (points.xyz, points.color, points.normal, points.semantic[LABELS])
        for name, values in zip(ARRAYS, arrays, strict=True):
            np.save(place / f"{name}.npy", np.ascontiguousarray(values))


def read_npy(folder: Path) -> dict[str, Any]:
    return {"name": folder.name} | {name: np.load(folder / f"{name}.npy") for name in ARRAYS}


class NpyFolders:
    """A torch dataset of the map style over `write_npy`."""

    def __init__(self, folder: Path) -> None:
        self.folders = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return tensors(read_npy(self.folders[index]))


def tensors(scene: dict[str, Any]) -> dict[str, Any]:
    """As torch tensors, which worker processes hand over in shared memory instead of pickling them."""
    import torch

    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in scene.items()}


def as_it_is(batch: Any) -> Any:
    """Collate function: leave the list of scenes a list."""
    return batch


def torch_loader(dataset: Any, workers: int, **options: Any) -> Epoch:
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(dataset, num_workers=workers, persistent_workers=workers > 0, **options)
    return partial(iter, loader)


def open_npy(folder: Path, *, workers: int) -> Epoch:
    return torch_loader(NpyFolders(folder / "npy"), workers, batch_size=BATCH, shuffle=True, collate_fn=as_it_is)


def write_webdataset(folder: Path, source: Path) -> None:
    folder.mkdir()
    scenes = sorted(source.iterdir())
    for number, start in enumerate(range(0, len(scenes), PER_TAR)):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for scene in scenes[start : start + PER_TAR]:
                for name in ARRAYS:
                    tar.add(scene / f"{name}.npy", f"{scene.name}.{name}.npy")


def open_webdataset(folder: Path, *, workers: int) -> Epoch:
    import webdataset

    urls = sorted(str(path) for path in (folder / "webdataset").iterdir())
    pipeline = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(8 * PER_TAR).map(_from_tar)
    return torch_loader(pipeline.batched(BATCH, collation_fn=list), workers, batch_size=None)


def _from_tar(entry: dict[str, Any]) -> dict[str, Any]:
    arrays = {name: np.load(io.BytesIO(entry[f"{name}.npy"])) for name in ARRAYS}
    return tensors({"name": entry["__key__"], **arrays})


def write_mosaic(folder: Path, source: Path) -> None:
    from streaming import MDSWriter

    dtypes = {"xyz": "float32", "color": "uint8", "normal": "float32", "label": "int16"}
    columns = {"name": "str"} | {name: f"ndarray:{dtype}" for name, dtype in dtypes.items()}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for scene in sorted(source.iterdir()):
            writer.write(read_npy(scene))


def open_mosaic(folder: Path, *, workers: int) -> Epoch:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder / "mosaic"), shuffle=True, batch_size=BATCH)
    return torch_loader(dataset, workers, batch_size=BATCH, collate_fn=_from_mosaic)


def _from_mosaic(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with warnings.catch_warnings():  # its arrays are read-only views, which torch takes with a warning, without a copy
        warnings.simplefilter("ignore")
        return [tensors(scene) for scene in batch]


def write_litdata(folder: Path, source: Path) -> None:
    import litdata

    scenes = sorted(source.iterdir())
    litdata.optimize(read_npy, scenes, str(folder), chunk_bytes="64MB", num_workers=1, verbose=False)


def open_litdata(folder: Path, *, workers: int) -> Epoch:
    import litdata

    dataset = litdata.StreamingDataset(str(folder / "litdata"), shuffle=True)
    options = {"batch_size": BATCH, "num_workers": workers, "persistent_workers": workers > 0}
    loader = litdata.StreamingDataLoader(dataset, collate_fn=_from_litdata, **options)
    return partial(iter, loader)


def _from_litdata(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [tensors(scene) for scene in batch]


# The ceiling


def open_copies(folder: Path) -> Epoch:
    """No loader at all: the arrays of up to 64 scenes, in memory from the start, are copied into reused buffers."""
    scenes = [read_npy(place) for place in sorted((folder / "npy").iterdir())]
    kept = scenes[:64]
    buffers = [{name: np.empty_like(max((s[name] for s in kept), key=len)) for name in ARRAYS} for _ in range(BATCH)]
    names = [scene["name"] for scene in scenes]
    del scenes

    def epoch() -> Iterator[Batch]:
        order = iter(np.random.default_rng(0).permutation(len(names)).tolist())
        while chosen := list(islice(order, BATCH)):
            yield [_copy(kept[i % len(kept)], names[i], buffers[slot]) for slot, i in enumerate(chosen)]

    return epoch


def _copy(scene: dict[str, Any], name: str, buffers: dict[str, Any]) -> dict[str, Any]:
    out = {field: buffers[field][: len(scene[field])] for field in ARRAYS}
    for field, memory in out.items():
        np.copyto(memory, scene[field])
    return {"name": name, **out}


CEILING = Contestant("memory copy", "npy", open_copies)


def contestants(*, only_installed: bool = True) -> list[Contestant]:
    """The ceiling, ours, then every peer (that can be installed)."""
    found = [CEILING]
    for compressor in ("zstd", "lz4"):
        layout = f"brickyard-{compressor}"
        for threads in (1, 2):
            opener = partial(open_bricks, compressor=compressor, threads=threads)
            found.append(Contestant(f"brickyard {compressor}, {threads} thread{'s'[: threads - 1]}", layout, opener))
        opener = partial(open_bricks, compressor=compressor, threads=2, codes=True)
        found.append(Contestant(f"brickyard {compressor}, 2 threads, xyz as codes", layout, opener))
    peers = [
        ("npy folders + DataLoader", "npy", open_npy, "torch"),
        ("WebDataset", "webdataset", open_webdataset, "webdataset"),
        ("MosaicML Streaming", "mosaic", open_mosaic, "streaming"),
        ("litData", "litdata", open_litdata, "litdata"),
    ]
    for name, layout, open_peer, module in peers:
        for workers in (0, 2):
            label = f"{name} {version(module)}".strip() + f", {workers} workers"
            found.append(Contestant(label, layout, partial(open_peer, workers=workers), module))
    return [entry for entry in found if not only_installed or interpreter(entry.module)[0]]


def absent() -> dict[str, str]:
    """Peers that cannot be imported -> why."""
    reasons = {module: interpreter(module)[1] for module in ("torch", "webdataset", "streaming", "litdata")}
    return {module: reason for module, reason in reasons.items() if reason}


PEER_WRITERS = {"webdataset": write_webdataset, "mosaic": write_mosaic, "litdata": write_litdata}
"""Layout -> function that writes it from the npy folders."""
