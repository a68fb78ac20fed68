"""What a loader promises besides speed, as numbers: resume, shuffle, images, memory in the steady state.

resume    seconds from a saved state to the first batch, in an index of a million scenes (a small corpus's rows,
          repeated), by count and by a budget of points, on one rank and going on on two and four
shuffle   how often a scene of a batch comes from a sequence that the batch already has (20,000 frames of 100
          sequences, batches of 8), and the rank correlation of place and row
images    six 1600 x 900 JPEGs a scene to random crops of 224 x 416: ours against Pillow in a DataLoader, per core
memory    bytes of new buffers for a batch once the first four hundred batches are through

python -m tests.benchmarks.loader_promises
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from brickyard.shards.batching import Budget
from brickyard.shards.corpus import Corpus
from brickyard.shards.order import permute_many
from brickyard.shards.stream import Stream
from tests.benchmarks.contestants import FIELDS, write_bricks
from tests.benchmarks.material import material, room_copy
from tests.benchmarks.report import append, arguments, table

FRAMES, PER_SEQUENCE, BATCH = 20_000, 200, 8
WARM, STEADY = 400, 200
RESUME = "resume in a million scenes"
SHUFFLE = "shuffle: 20,000 frames of 100 sequences, batches of 8"
IMAGES = "six 1600 x 900 JPEGs to 416 x 224 crops"
MEMORY = "memory in the steady state"
COLUMNS = {
    RESUME: {
        "batch": "s batches by", "at": ".0f % of the epoch", "ranks": "d ranks", "seconds": ".3f s to the first batch",
        "state_bytes": "d B state",
    },
    SHUFFLE: {
        "order": "s order", "repeats": ".3f repeats in a batch", "correlation": "+.3f rank correlation",
    },
    IMAGES: {
        "decoder": "s decoder", "images_per_second_core": ".0f images/s and core",
        "mean_difference_levels": ".2f mean difference of levels",
    },
    MEMORY: {
        "new_bytes_per_batch": ".0f B of new buffers/batch", "buffers_megabytes": ".0f MB buffers",
        "python_blocks_per_batch": ".1f Python objects/batch",
    },
}  # fmt: skip


def resume(corpus: Corpus, scenes: int = 1_000_000) -> list[dict[str, Any]]:
    """Time to the first batch after 10, 50 and 90 % of an epoch; the next batches are those of an undisturbed run."""
    begun = time.perf_counter()
    index = pa.concat_tables([corpus.index] * (-(-scenes // len(corpus)))).slice(0, scenes).combine_chunks()
    large = Corpus(corpus.store, corpus.manifest, index)
    opened = time.perf_counter() - begun
    rows = []
    largest = int(corpus.points_per_scene.max())
    for batch in (8, Budget(points=4 * largest, bins=8)):
        for share in (0.1, 0.5, 0.9):
            place = int(share * scenes) // 8 * 8
            state = Stream(large, FIELDS, batch=batch, epochs=1).state() | {"place": [place, 0]}
            for world in (1, 2, 4):
                begun = time.perf_counter()
                stream = Stream(large, FIELDS, batch=batch, epochs=1, state=state, world=world)
                batches = iter(stream)
                next(batches)
                took = time.perf_counter() - begun
                batches.close()  # type: ignore[attr-defined]
                rows.append({
                    "batch": "count" if batch == 8 else "points", "at": 100 * share, "ranks": world,
                    "seconds": took, "state_bytes": len(json.dumps(stream.state())), "index_seconds": opened,
                })  # fmt: skip
    return rows


def shuffle() -> list[dict[str, Any]]:
    """Our order beside a full shuffle, no shuffle, and shuffled shards with a shuffle buffer."""
    rng = np.random.default_rng(0)
    orders = {
        "brickyard": permute_many(np.arange(FRAMES), FRAMES, 1, 0),
        "full shuffle": rng.permutation(FRAMES),
        "shards of 500 + buffer of 1000": np.fromiter(_buffered(rng, 500, 1000), np.int64),
        "shards of 500 + buffer of 4000": np.fromiter(_buffered(rng, 500, 4000), np.int64),
        "none": np.arange(FRAMES),
    }
    return [{"order": name, **_quality(order)} for name, order in orders.items()]


def _buffered(rng: np.random.Generator, shard: int, size: int) -> Iterator[int]:
    stream = (s * shard + i for s in rng.permutation(FRAMES // shard).tolist() for i in range(shard))
    buffer = list(islice(stream, size))
    for frame in stream:
        place = int(rng.integers(len(buffer)))
        yield buffer[place]
        buffer[place] = frame
    yield from (buffer[i] for i in rng.permutation(len(buffer)).tolist())


def _quality(order: NDArray[np.int64]) -> dict[str, float]:
    sequences = (order // PER_SEQUENCE).reshape(-1, BATCH)
    repeats = 1 - np.mean([len(set(batch)) for batch in sequences.tolist()]) / BATCH
    return {"repeats": float(repeats), "correlation": float(np.corrcoef(np.arange(FRAMES), order)[0, 1])}


def images(count: int = 24) -> list[dict[str, Any]]:
    """Images a second and core (processor time), decoded and cropped: the same crops for both."""
    import simplejpeg
    from PIL import Image
    from torch.utils.data import DataLoader

    from brickyard.train.augment import CropConfig, crop_image, random_box

    rng, config = np.random.default_rng(0), CropConfig()
    pictures = [bytes(view.image) for scene in material("nuscenes").scenes for view in scene.views]
    with Image.open(io.BytesIO(pictures[0])) as image:
        if image.size != (1600, 900):  # simulated: a texture of the right size instead
            base = np.kron(rng.integers(0, 255, (90, 160, 3)), np.ones((10, 10, 1))) + rng.integers(
                0, 20, (900, 1600, 3)
            )
            pictures = [simplejpeg.encode_jpeg(np.clip(base, 0, 255).astype(np.uint8), quality=90)]
    shown = [pictures[number % len(pictures)] for number in range(count)]
    boxes = [random_box(1600, 900, np.zeros((0, 2), np.uint16), config, rng) for _ in range(count)]

    class Pictures:
        def __len__(self) -> int:
            return count

        def __getitem__(self, number: int) -> NDArray[np.uint8]:
            box = boxes[number]
            with Image.open(io.BytesIO(shown[number])) as image:
                cut = image.convert("RGB").crop((box.left, box.top, box.left + box.width, box.top + box.height))
                small = cut.resize((config.width, config.height), Image.Resampling.BILINEAR)
            return np.asarray(small).transpose(2, 0, 1)

    loader: Any = DataLoader(Pictures(), batch_size=6, collate_fn=list)  # type: ignore[arg-type]
    ours = [crop_image(data, (1600, 900), box, config, flip=False) for data, box in zip(shown, boxes, strict=True)]
    theirs = [one for batch in loader for one in batch]
    apart = float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(ours, theirs, strict=True)]))
    work = {
        "brickyard": lambda: [
            crop_image(data, (1600, 900), box, config, flip=False) for data, box in zip(shown, boxes, strict=True)
        ],
        "Pillow in a DataLoader": lambda: list(loader),
    }
    rows = []
    for name, call in work.items():
        spent = min(_cpu(call) for _ in range(5))
        rows.append({"decoder": name, "images_per_second_core": count / spent, "mean_difference_levels": apart})
    return rows


def _cpu(call: Any) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def memory(corpus: Corpus) -> dict[str, Any]:
    """New buffers and Python objects for a batch in the steady state: how many buffers two threads need at once is
    known only after a while, which is what the first batches are for."""
    stream = Stream(corpus, FIELDS, batch=4, threads=2)
    batches = iter(stream)
    for _ in range(WARM):
        next(batches)
    made, blocks = stream._pool.made, sys.getallocatedblocks()
    for _ in range(STEADY):
        next(batches)
    grown = {"new_bytes_per_batch": (stream._pool.made - made) / STEADY, "buffers_megabytes": stream._pool.made / 1e6,
             "python_blocks_per_batch": (sys.getallocatedblocks() - blocks) / STEADY}  # fmt: skip
    batches.close()  # type: ignore[attr-defined]
    return grown


def run(*, scenes: int = 64, dry: bool = False) -> dict[str, list[dict[str, Any]]]:
    """All of them; prints the tables, appends the record."""
    rooms = material("scannet")
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as place:
        write_bricks(Path(place), [room_copy(rooms.scenes, number) for number in range(scenes)], "zstd")
        corpus = Corpus.open(place)
        found = {RESUME: resume(corpus), SHUFFLE: shuffle(), IMAGES: images(), MEMORY: [memory(corpus)]}
    for title, columns in COLUMNS.items():
        table(title, found[title], columns)
    if not dry:
        rows = [{"promise": title, **row} for title, lines in found.items() for row in lines]
        append("loader_promises", {"scenes": scenes}, rows, material=[rooms.origin])
    return found


if __name__ == "__main__":
    run(**vars(arguments(__doc__, scenes=64).parse_args()))
