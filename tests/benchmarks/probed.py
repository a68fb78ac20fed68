"""Loaders under probe: a small corpus of numbered samples, and one rank of a run that says which numbers came when.

Runs in a peer's own environment (see `peers`), as `python -m tests.benchmarks.probed` with the words

    write LOADER FOLDER COUNT      make the corpus
    run LOADER FOLDER OPTIONS      one rank; prints its batches and its state as JSON
    get LOADER FOLDER NUMBER       one sample; prints its number
    trap LOADER FOLDER             read a stranger's data; prints whether they ran code

Every loader is set up as its documentation tells one to for a shuffled, deterministic run on several ranks; ranks and
addresses come by the environment variables of torchrun.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GLOBAL_BATCH = 12
PER_SHARD = 8
"""Also of WebDataset and litData: as many shards as the largest number of ranks times workers, 4 x 3."""
SEED = 7


class Ask(NamedTuple):
    """What a rank is to do.

    Attributes:
        workers: processes, or threads of ours.
        take: batches to take, None for all of the epoch.
        state: to go on from.
    """

    rank: int = 0
    world: int = 1
    workers: int = 1
    take: int | None = None
    state: Any = None

    @property
    def batch(self) -> int:
        return GLOBAL_BATCH // self.world


Run = tuple[Iterable[list[int]], Callable[[], Any]]
"""Batches of numbers, and a function that gives the state to save (None where there is none)."""


def sample(number: int) -> dict[str, Any]:
    return {"name": f"{number:05d}", "x": np.full(16, number, np.float32)}


def numbers(batch: list[dict[str, Any]]) -> list[int]:
    return [int(entry["name"]) for entry in batch]


# npy folders


def write_npy(folder: Path, count: int) -> None:
    for entry in map(sample, range(count)):
        np.save(folder / f"{entry['name']}.npy", entry["x"])


class _Files:
    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"name": self.files[index].stem, "x": np.load(self.files[index])}


def run_npy(folder: Path, ask: Ask) -> Run:
    from torch.utils.data import DataLoader, DistributedSampler

    dataset: Any = _Files(folder)
    sampler: Any = DistributedSampler(dataset, num_replicas=ask.world, rank=ask.rank, shuffle=True, seed=SEED)
    loader: Any = DataLoader(
        dataset, batch_size=ask.batch, sampler=sampler, num_workers=ask.workers, collate_fn=numbers
    )
    return loader, lambda: None


# WebDataset


def write_webdataset(folder: Path, count: int) -> None:
    for start in range(0, count, PER_SHARD):
        with tarfile.open(folder / f"{start:05d}.tar", "w") as tar:
            for entry in map(sample, range(start, min(count, start + PER_SHARD))):
                data = io.BytesIO()
                np.save(data, entry["x"])
                member = tarfile.TarInfo(f"{entry['name']}.x.npy")
                member.size = len(data.getvalue())
                tar.addfile(member, io.BytesIO(data.getvalue()))


def run_webdataset(folder: Path, ask: Ask) -> Run:
    import webdataset
    from torch.utils.data import DataLoader

    urls = sorted(str(path) for path in folder.iterdir())
    split = webdataset.split_by_node
    pipeline = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=SEED, nodesplitter=split).shuffle(32, seed=SEED)
    numbered = pipeline.map(_number).batched(ask.batch, collation_fn=list)
    loader: Any = DataLoader(numbered, batch_size=None, num_workers=ask.workers)
    return loader, lambda: None


def _number(entry: dict[str, Any]) -> int:
    return int(entry["__key__"])


# MosaicML Streaming


def write_mosaic(folder: Path, count: int) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"name": "str", "x": "ndarray:float32"}, size_limit=1000) as writer:
        for entry in map(sample, range(count)):
            writer.write(entry)


def run_mosaic(folder: Path, ask: Ask) -> Run:
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    if ask.world == 1:
        clean_stale_shared_memory()
    dataset: Any = StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=SEED, batch_size=ask.batch)
    loader: Any = StreamingDataLoader(
        dataset, batch_size=ask.batch, num_workers=ask.workers, collate_fn=lambda batch: (numbers(batch),)
    )
    if ask.state is not None:
        loader.load_state_dict(ask.state)
    return (batch[0] for batch in loader), loader.state_dict


# litData


def write_litdata(folder: Path, count: int) -> None:
    import litdata

    litdata.optimize(sample, list(range(count)), str(folder), chunk_size=PER_SHARD, num_workers=1, verbose=False)


def run_litdata(folder: Path, ask: Ask) -> Run:
    import litdata
    import torch

    if ask.world > 1:  # from there it learns its rank
        torch.distributed.init_process_group("gloo")
    dataset = litdata.StreamingDataset(str(folder), shuffle=True, seed=SEED, drop_last=False)
    loader: Any = litdata.StreamingDataLoader(
        dataset, batch_size=ask.batch, num_workers=ask.workers, collate_fn=numbers
    )
    if ask.state is not None:
        loader.load_state_dict(ask.state)
    return loader, loader.state_dict


# Brickyard


def write_bricks(folder: Path, count: int) -> None:
    from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
    from brickyard.shards.encode import encode_scene
    from brickyard.shards.scene import Identity, Points, Scene
    from brickyard.shards.storage import Store

    store, build = Store(folder), fingerprint_digest({})
    start_build(store, {})
    encoded = []
    for entry in map(sample, range(count)):
        identity = Identity(
            dataset="toy", version="1", split="train", sequence="s", scene_id=entry["name"], domain="indoor",
            licence="CC0-1.0", timestamp_ns=None,
        )  # fmt: skip
        points = Points(xyz=np.resize(entry["x"], (16, 3)).copy())
        encoded.append(encode_scene(Scene(identity=identity, world_from_scene=np.eye(4), points=points)))
    tasks = [encoded[start : start + PER_SHARD] for start in range(0, count, PER_SHARD)]
    for task, scenes in enumerate(tasks):
        commit_task(store, task, build, scenes, [])
    finish_build(store, len(tasks), build, [], {})


def run_bricks(folder: Path, ask: Ask) -> Run:
    from brickyard.shards.corpus import Corpus
    from brickyard.shards.stream import Stream

    stream = Stream(
        Corpus.open(folder), ["points/xyz"], batch=GLOBAL_BATCH, seed=SEED, epochs=1, rank=ask.rank, world=ask.world,
        threads=ask.workers, state=ask.state,
    )  # fmt: skip
    return ([int(entry.key.partition("/")[2]) for entry in batch] for batch in stream), stream.state


WRITE = {
    "npy": write_npy, "webdataset": write_webdataset, "mosaic": write_mosaic, "litdata": write_litdata,
    "bricks": write_bricks,
}  # fmt: skip
RUN = {
    "npy": run_npy, "webdataset": run_webdataset, "mosaic": run_mosaic, "litdata": run_litdata, "bricks": run_bricks,
}  # fmt: skip


# One sample by its number


def get(loader: str, folder: Path, number: int) -> int:
    if loader == "bricks":
        from brickyard.shards.corpus import Corpus

        return int(Corpus.open(folder).scene(f"toy/{number:05d}").identity.scene_id)
    dataset: Any
    if loader == "npy":
        dataset = _Files(folder)
    elif loader == "webdataset":
        import webdataset

        dataset = webdataset.WebDataset(sorted(map(str, folder.iterdir())), shardshuffle=False)
    elif loader == "mosaic":
        from streaming import StreamingDataset

        dataset = StreamingDataset(local=str(folder), batch_size=1)
    else:
        import litdata

        dataset = litdata.StreamingDataset(str(folder))
    return int(dataset[number]["name"])


# A sample that would run code


class Trap:
    """Pickled by the writer of hostile data; whoever unpickles it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def trap(loader: str, folder: Path) -> bool:
    """Whether reading hostile data, with the reader's defaults, runs what they hold."""
    mark, entry = folder.parent / "sprung", {"name": "00000", "x": Trap(folder.parent / "sprung")}
    folder.mkdir()
    with suppress(Exception):
        if loader == "npy":
            np.save(folder / "00000.npy", np.array([entry["x"]], object), allow_pickle=True)
            _Files(folder)[0]
        elif loader == "webdataset":
            import webdataset

            with tarfile.open(folder / "0.tar", "w") as tar:
                data = pickle.dumps(entry["x"])
                member = tarfile.TarInfo("00000.x.pickle")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            list(webdataset.WebDataset(str(folder / "0.tar"), shardshuffle=False).decode())
        elif loader == "mosaic":
            from streaming import MDSWriter, StreamingDataset

            with MDSWriter(out=str(folder), columns={"name": "str", "x": "pkl"}) as writer:
                writer.write(entry)
            list(StreamingDataset(local=str(folder), batch_size=1))
        elif loader == "litdata":
            import litdata

            litdata.optimize(_trapped, [str(mark)], str(folder), chunk_size=1, num_workers=1, verbose=False)
            mark.unlink(missing_ok=True)
            list(litdata.StreamingDataset(str(folder)))
        else:
            write_bricks(folder, 1)
            for path in folder.rglob("*.parquet"):  # any blob, and the index, replaced by a pickle
                path.write_bytes(pickle.dumps(entry["x"]))
            get(loader, folder, 0)
    return mark.exists()


def _trapped(mark: str) -> dict[str, Any]:
    return {"name": "00000", "x": Trap(Path(mark))}


def _take(run: Run, take: int | None) -> dict[str, Any]:
    """The first batches; the state is asked for while the iterator stands where it stands, as a training loop does."""
    source, state = run
    batches: Iterator[list[int]] = iter(source)
    found: list[list[int]] = []
    saved = None
    for batch in batches:
        found.append([int(number) for number in batch])
        if len(found) == take:
            saved = state()
            break
    return {"batches": found, "state": saved}


def main() -> None:
    what, loader, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    if what == "write":
        WRITE[loader](folder, int(sys.argv[4]))
        return
    if what == "get":
        answer: Any = get(loader, folder, int(sys.argv[4]))
    elif what == "trap":
        answer = trap(loader, folder)
    else:
        ask = Ask(**json.loads(sys.argv[4]))
        answer = _take(RUN[loader](folder, ask), ask.take)
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    os._exit(0)  # some loaders' threads and process groups would wait for each other


if __name__ == "__main__":
    main()
