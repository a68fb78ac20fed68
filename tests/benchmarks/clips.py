"""What clips cost a trainer that draws 24 frames of a window: bytes read for those used, frames a second of a core.

Two kinds of clips: as a depth camera records them (1296 x 968 pixels), and already small (342 x 256, as video is cut
into). Both give images of 256 x 256. The stream reads the header and the drawn frames. Ours decodes at the smallest
sufficient eighth, cuts out the middle square and resizes bytes; beside it Pillow as most loaders call it: the whole
image, Lanczos to 256 pixels of height, crop. Times are of the processor, on one thread, of decoded and resized frames
without the reading.

python -m tests.benchmarks.clips
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from brickyard.shards.corpus import Corpus
from brickyard.shards.images import decode_reduced
from brickyard.shards.scene import Identity, Scene, View
from brickyard.shards.stream import Stream
from brickyard.train.models.rayzer import RayZerConfig
from brickyard.train.objectives.clips import ClipConfig, resized
from brickyard.train.objectives.novel_views import RayZer
from brickyard.train.objectives.perceptual import PerceptualConfig
from tests.benchmarks.report import append, arguments, table
from tests.shards.counting import counted
from tests.train.planes import clip_corpus

KINDS = {"camera": (1296, 968), "small": (342, 256)}
COLUMNS = {
    "kind": "s images", "frames": "d frames a clip", "kb_a_frame": ".0f kB a frame",
    "read_for_used": ".3f bytes read / used", "ours": ".0f frames/s, ours", "pillow": ".0f frames/s, Pillow",
    "factor": ".1f times",
}  # fmt: skip


def picture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (height, width, 3) with details of all sizes, the finer the fainter, as photographs have them."""
    total = np.zeros((size[1], size[0], 3))
    for edge in (4, 12, 40, 130, 400):
        noise = Image.fromarray(rng.integers(0, 255, (edge, edge * 4 // 3, 3), dtype=np.uint8))
        total += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), np.float64) * 4 / edge**0.7
    total = (total - total.min()) / (total.max() - total.min())
    return np.asarray(255 * total, np.uint8)


def encoded(rng: np.random.Generator, size: tuple[int, int], count: int) -> list[bytes]:
    """JPEGs of quality 92, 4:2:0: views of one large picture, each a little farther to the right."""
    wide = picture(rng, (size[0] + 8 * count, size[1]))
    found = []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(wide[:, 8 * number : 8 * number + size[0]]).save(file, "JPEG", quality=92)
        found.append(file.getvalue())
    return found


def clip(number: int, size: tuple[int, int], frames: int) -> Scene:
    """A clip with poses."""
    images = encoded(np.random.default_rng(number), size, frames)
    matrix = np.array([[1.1 * size[0], 0, size[0] / 2], [0, 1.1 * size[0], size[1] / 2], [0, 0, 1]])
    poses = [np.eye(4) for _ in images]
    for k, pose in enumerate(poses):
        pose[0, 3] = np.sin(k)
    views = [
        View(
            name=f"frame-{k:06d}", image=image, image_format="jpeg", width=size[0], height=size[1], intrinsics=matrix,
            scene_from_camera=pose, timestamp_ns=33_000_000 * k,
        )
        for k, (image, pose) in enumerate(zip(images, poses, strict=True))
    ]  # fmt: skip
    identity = Identity(
        dataset="bench", version="1", split="train", sequence=f"{number}", scene_id=f"clip-{number}", timestamp_ns=None,
        domain="video", licence="CC0-1.0",
    )  # fmt: skip
    return Scene(identity=identity, world_from_scene=np.eye(4), views=tuple(views))


def read_for_used(corpus: Corpus, clips: ClipConfig, size: int) -> float:
    """Bytes of an epoch's reads for each byte of the frames that were drawn."""
    network = RayZerConfig(network="tiny", size=size, patch=size // 4)
    objective = RayZer(network=network, clips=clips, perceptual=PerceptualConfig(network="none")).build()
    used = 0
    with counted() as count:
        stream = Stream(corpus, objective.fields, batch=1, epochs=1, prepare=objective.prepare, choose=objective.choose)
        for (found,) in stream:
            row = corpus.find(found.key)
            assert row is not None
            used += sum(corpus.addresses(row)[f"views/{frame}/image"].length for frame in found.frames)
    return count.bytes / used


def ours(data: bytes, size: int, shape: tuple[int, int]) -> torch.Tensor:
    """As `train.objectives.clips` does it, of one frame."""
    image = decode_reduced(data, size, shape)
    edge = min(image.shape[:2])
    top, left = (image.shape[0] - edge) // 2, (image.shape[1] - edge) // 2
    return resized(torch.from_numpy(image[None, top : top + edge, left : left + edge]), size)


def pillow(data: bytes, size: int, shape: tuple[int, int]) -> torch.Tensor:
    """As plain loaders do it."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = image.resize((round(size * shape[0] / shape[1]), size), Image.Resampling.LANCZOS)
    left = (image.size[0] - size) // 2
    image = image.crop((left, 0, left + size, size))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


def rate(way: Callable[[bytes, int, tuple[int, int]], Any], frames: list[bytes], size: int, shape: Any) -> float:
    """Frames for each second of the processor: the median of five passes."""
    times = []
    for _ in range(5):
        start = time.process_time()
        for data in frames:
            way(data, size, shape)
        times.append(time.process_time() - start)
    return len(frames) / median(times)


def measured(
    folder: Path, *, frames: int = 96, size: int = 256, clips: ClipConfig | None = None
) -> Iterator[dict[str, Any]]:
    """A row for each kind of clip."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind, shape in KINDS.items():
        scenes = [clip(number, shape, frames) for number in range(2)]
        corpus = clip_corpus(folder / kind, scenes)
        images = [view.image for view in scenes[0].views][:24]
        rates = [rate(way, images, size, shape) for way in (ours, pillow)]
        yield {
            "kind": kind, "frames": frames, "kb_a_frame": sum(map(len, images)) / 1000 / len(images),
            "read_for_used": read_for_used(corpus, clips or ClipConfig(), size), "ours": rates[0], "pillow": rates[1],
            "factor": rates[0] / rates[1],
        }  # fmt: skip
    torch.set_num_threads(threads)


def run(*, dry: bool = False) -> list[dict[str, Any]]:
    """Measure, print, append the record."""
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as place:
        rows = [row for frames in (96, 300) for row in measured(Path(place) / str(frames), frames=frames)]
    table("24 frames of a window", rows, COLUMNS)
    if not dry:
        append("clips", {"size": 256, "views": 24}, rows)
    return rows


if __name__ == "__main__":
    run(**vars(arguments(__doc__).parse_args()))
