"""How much is read of corpora, and in how many requests; and a corpus of scenes with six images each."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.worlds import toy_scene


@dataclass
class Count:
    """Attributes: calls: for ranges, each of which waits for the store once. reads: of a range or a blob. bytes: of
    these."""

    calls: int = 0
    reads: int = 0
    bytes: int = 0


@contextmanager
def counted() -> Iterator[Count]:
    """What every store reads meanwhile."""
    count, lock = Count(), threading.Lock()
    ranges, single = Store.read_ranges, Store.read_into

    def read_ranges(self: Store, name: str, wanted: Sequence[tuple[int, memoryview]]) -> list[int]:
        with lock:
            count.calls += bool(wanted)
        return ranges(self, name, wanted)

    def read_into(self: Store, name: str, offset: int, memory: memoryview) -> int:
        with lock:
            count.reads += 1
            count.bytes += len(memory)
        return single(self, name, offset, memory)

    with mock.patch.object(Store, "read_ranges", read_ranges), mock.patch.object(Store, "read_into", read_into):
        yield count


def six_views(folder: Path, scenes: int) -> Corpus:
    """A committed corpus of toy scenes whose images are as large in bytes as a camera's: it pays to leave one out."""
    store, fingerprint = Store(folder), {"six": scenes}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    commit_task(store, 0, build, [encode_scene(heavy(toy_scene(i, views=6))) for i in range(scenes)], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(store)


def heavy(scene: Scene) -> Scene:
    """Its images with 100 kB of text inside."""
    views = []
    for view in scene.views:
        text, data = PngInfo(), io.BytesIO()
        text.add_text("Comment", "x" * 100_000)
        Image.open(io.BytesIO(view.image)).save(data, "PNG", pnginfo=text)
        views.append(replace(view, image=data.getvalue()))
    return replace(scene, views=tuple(views))
