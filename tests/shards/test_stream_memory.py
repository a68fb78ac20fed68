"""The formula of the docstring of `shards.stream`, held against the resident memory of a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Identity, Points, Scene
from brickyard.shards.storage import Store

POINTS = 100_000
SCENES = 24

PROGRAM = """
    import json, sys
    from pathlib import Path
    import numpy as np
    from brickyard.shards.codecs import Quantised
    from brickyard.shards.corpus import Corpus
    from brickyard.shards.stream import Stream

    folder, batch, ahead, threads, mode = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    PAGE = 4096

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    def thin(sample, rng):
        return sample["points/xyz"].dequantise()[::100].copy()

    def whole(sample, rng):
        return sample["points/xyz"].dequantise(), sample["points/color"], sample["points/normal"]

    corpus = Corpus.open(folder)
    stream = Stream(corpus, ["points/*"], batch=batch, ahead=ahead, threads=threads,
                    prepare={"thin": thin, "whole": whole}[mode])
    corpus.scene(0)  # tables and libraries are loaded now
    start, made, sizes = resident(), [], []
    for number, items in enumerate(stream):
        sizes.append(resident())
        made.append(stream._pool.made)
        del items
        if number == 150:
            break
    print(json.dumps({"start": start, "sizes": sizes, "made": made}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes that compress badly, all of one size."""
    place: Path = tmp_path_factory.mktemp("memory") / "corpus"
    rng, store = np.random.default_rng(0), Store(place)
    start_build(store, {})
    build = fingerprint_digest({})
    scenes = []
    for number in range(SCENES):
        normal = rng.normal(size=(POINTS, 3)).astype(np.float32)
        points = Points(
            xyz=rng.uniform(0, 20, (POINTS, 3)).astype(np.float32),
            color=rng.integers(0, 255, (POINTS, 3), dtype=np.uint8),
            normal=normal / np.linalg.norm(normal, axis=1, keepdims=True),
            normal_source="mesh",
        )
        identity = Identity(
            dataset="noise", version="1", split="train", sequence=str(number), scene_id=str(number),
            timestamp_ns=None, domain="indoor", licence="CC0-1.0",
        )  # fmt: skip
        scenes.append(encode_scene(Scene(identity=identity, world_from_scene=np.eye(4), points=points)))
    commit_task(store, 0, build, scenes, [])
    finish_build(store, 1, build, [], {})
    return place


def measured(folder: Path, batch: int, ahead: int, threads: int, mode: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), str(batch), str(ahead), str(threads), mode],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def rounded(size: int) -> int:
    return 1 << (size - 1).bit_length()


SCENE_BYTES = sum(rounded(POINTS * each) for each in (6, 3, 2, 6, 12, 3, 2, 12))
"""D: xyz, colour and normals as stored (they hardly compress); codes, floats, colours, codes and floats of normals."""


@pytest.mark.parametrize(("batch", "ahead", "threads"), [(4, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("mode", ["thin", "whole"])
def test_memory_keeps_to_the_formula_and_stays_flat(
    folder: Path, batch: int, ahead: int, threads: int, mode: str
) -> None:
    found = measured(folder, batch, ahead, threads, mode)
    scenes = (ahead + 2) * batch
    item = POINTS // 100 * 12
    allowed = threads * SCENE_BYTES + scenes * item if mode == "thin" else (scenes + threads) * SCENE_BYTES
    grown = max(found["sizes"]) - found["start"]
    assert grown <= allowed + (6 << 20)  # what threads and the allocator themselves take
    assert grown >= allowed // 8  # the formula is not idle
    settled = found["sizes"][30:]
    assert max(settled) - settled[0] <= 4 * SCENE_BYTES  # of hundreds of scenes that came through meanwhile
    assert found["made"][-1] <= (scenes + threads) * SCENE_BYTES
    later = found["made"][-1] - found["made"][30]  # a rare meeting of threads may need some buffers more
    assert later <= 6 * SCENE_BYTES, f"{later} bytes are allocated although nothing new is needed"
