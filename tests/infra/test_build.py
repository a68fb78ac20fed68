"""The build job as a user runs it: bad scenes, kills, wrong recipes, third-party sources."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.shards.verify import verify

RECIPE = """
name: test
sources:
  - dataset: kitti_object
    root: raw
curate:
  superpixels: {segments: 20, compactness: 6.0, sigma: 1.0}
shards: {max_scenes: 2}
"""


def write_kitti(folder: Path, frames: int) -> None:
    """A few KITTI object frames: random points ahead of the car, noise images, a plain calibration."""
    rng = np.random.default_rng(0)
    training = folder / "training"
    for name in ("velodyne", "image_2", "calib"):
        (training / name).mkdir(parents=True)
    for frame in range(frames):
        points = rng.uniform((4, -10, -2, 0), (40, 10, 1, 1), (600, 4)).astype("<f4")
        points[:, 3] = np.round(points[:, 3], 2)
        (training / "velodyne" / f"{frame:06d}.bin").write_bytes(points.tobytes())
        pixels = rng.integers(0, 255, (24, 80, 3), dtype=np.uint8)
        Image.fromarray(np.kron(pixels, np.ones((4, 4, 1), np.uint8))).save(training / "image_2" / f"{frame:06d}.png")
        camera = "160 0 160 {} 0 160 48 0 0 0 1 0"
        lines = [f"P{i}: " + camera.format(-60 if i == 3 else 0) for i in range(4)]
        lines += ["R0_rect: 1 0 0 0 1 0 0 0 1", "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -0.27"]
        lines += ["Tr_imu_to_velo: 1 0 0 0 0 1 0 0 0 0 1 0", ""]
        (training / "calib" / f"{frame:06d}.txt").write_text("\n".join(lines))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_kitti(tmp_path / "raw", 8)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def brickyard(home: Path, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any], str]:
    """(exit code, JSON object, stderr) of a command, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "brickyard.infra.cli", *arguments, "--json"],
        cwd=home, capture_output=True, text=True, timeout=200, env=os.environ | (env or {}), check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def files(folder: Path) -> dict[str, bytes]:
    """Of a corpus, without the logs of its builds, which tell times."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("log/")}


def test_a_killed_build_continues_to_the_same_bytes(home: Path) -> None:
    code, whole, text = brickyard(home, "build", "recipe.yaml", "--out", "whole", "--in-process")
    assert (code, whole["scenes"], whole["shards_built"]) == (0, 8, 4), text

    process = subprocess.Popen(
        [sys.executable, "-m", "brickyard.infra.cli", "build", "recipe.yaml", "--out", "killed", "--cpus", "1"],
        cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list((home / "killed").glob("parts/0*"))) < 1 and time.monotonic() < deadline:
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (home / "killed" / "manifest.json").exists()
    time.sleep(1.0)  # a worker may still finish the shard it was at
    committed = {p.name: p.stat().st_mtime_ns for p in (home / "killed" / "parts").iterdir()}

    code, again, text = brickyard(home, "build", "recipe.yaml", "--out", "killed", "--cpus", "2")
    assert code == 0, text
    assert again["shards_reused"] >= 1
    assert again["shards_reused"] + again["shards_built"] == 4
    for name, when in committed.items():
        if not name.startswith("."):
            assert (home / "killed" / "parts" / name).stat().st_mtime_ns == when, "a committed shard was built again"
    assert files(home / "killed") == files(home / "whole")


def test_bad_scenes_are_quarantined_and_good_ones_built(home: Path) -> None:
    raw = home / "raw" / "training"
    (raw / "velodyne" / "000001.bin").write_bytes((raw / "velodyne" / "000001.bin").read_bytes()[:-5])
    (raw / "calib" / "000002.txt").write_text("P2: 1 2 three")
    (raw / "image_2" / "000003.png").write_bytes(b"\x89PNG\r\n\x1a\n not an image")
    code, result, text = brickyard(home, "build", "recipe.yaml", "--out", "corpus", "--in-process")
    assert code == 3, text
    reasons = {q["key"].rsplit("/", 1)[-1]: q["reason"] for q in result["quarantined"]}
    assert sorted(reasons) == ["000001", "000002", "000003"]
    assert "velodyne/000001.bin" in reasons["000001"]
    assert "byte" in reasons["000001"]
    assert "calib/000002.txt" in reasons["000002"]
    assert "image_2/000003.png" in reasons["000003"]
    assert "unexpected" not in text
    corpus = Corpus.open(home / "corpus")
    assert len(corpus) == 5
    assert [q.key for q in corpus.quarantine] == sorted(q["key"] for q in result["quarantined"])
    assert verify(corpus, deep=True).problems == ()
    assert sum(map(len, Stream(corpus, ("points/*", "views/*"), batch=2, epochs=1))) == 5
    code, _, _ = brickyard(home, "build", "recipe.yaml", "--out", "corpus", "--in-process", "--allow-quarantined", "3")
    assert code == 0


def test_repair_makes_only_the_damaged_scenes_anew(home: Path) -> None:
    build = ("build", "recipe.yaml", "--out", "corpus", "--in-process")
    assert brickyard(home, *build)[0] == 0
    whole = files(home / "corpus")
    corpus = Corpus.open(home / "corpus")
    shards = sorted((home / "corpus" / "shards").iterdir())
    place = corpus.addresses(1)["points/xyz"]
    data = bytearray((home / "corpus" / corpus.shard(1)).read_bytes())
    data[place.offset + 40] ^= 8
    (home / "corpus" / corpus.shard(1)).write_bytes(data)
    data = shards[-1].read_bytes()
    shards[-1].write_bytes(data[: len(data) // 2])
    (home / "corpus" / "parts" / "00001.parquet").unlink()
    (home / "corpus" / "index.parquet").write_bytes(b"PAR1")
    assert brickyard(home, "verify", "corpus")[0] == 1
    code, result, text = brickyard(home, "repair", "recipe.yaml", "--corpus", "corpus")
    assert code == 0, text
    assert files(home / "corpus") == whole
    assert result["scenes"][0] == corpus.keys[1]
    assert corpus.keys[0] not in result["scenes"]
    assert len(result["shards"]) == 3
    assert brickyard(home, "repair", "recipe.yaml", "--corpus", "corpus")[1]["scenes"] == []

    (home / "corpus" / corpus.shard(1)).write_bytes(b"gone")
    raw = home / "raw" / "training" / "velodyne" / f"{corpus.keys[1][-6:]}.bin"
    scan = bytearray(raw.read_bytes())
    scan[0] ^= 1
    raw.write_bytes(scan)
    code, result, text = brickyard(home, "repair", "recipe.yaml", "--corpus", "corpus")
    assert code == 1
    assert corpus.keys[1] in result["error"]
    assert "no longer gives the bytes" in result["error"]


def test_statistics_selections_and_differences(home: Path) -> None:
    assert brickyard(home, "build", "recipe.yaml", "--out", "corpus", "--in-process")[0] == 0
    code, found, text = brickyard(home, "stats", "corpus")
    assert code == 0, text
    (part,) = found["parts"].values()
    corpus = Corpus.open(home / "corpus")
    assert part["scenes"] == 8
    assert part["n_points"] == int(corpus.points_per_scene.sum())
    assert found["fields"]["points/xyz"]["blobs"] == 8
    assert sum(entry["bytes"] for entry in found["fields"].values()) == part["bytes"] > 0
    limit = f"n_pairs={int(np.median(corpus.index.column('n_pairs').to_numpy())) + 1}"
    code, chosen, text = brickyard(home, "select", "corpus", "--at-least", limit, "--out", "chosen.parquet")
    assert code == 0, text
    assert 0 < chosen["scenes"] < 8
    assert brickyard(home, "select", "corpus", "--at-least", "n_points", "--out", "x.parquet")[0] == 1
    assert brickyard(home, "convert", "corpus", "--to", "webdataset", "--out", "tars")[0] == 0
    assert brickyard(home, "diff", "corpus", "tars")[:2] == (
        0, {"only_first": [], "only_second": [], "changed": {}, "same": 8}
    )  # fmt: skip


def test_a_damaged_corpus_is_mended_by_building_again(home: Path) -> None:
    build = ("build", "recipe.yaml", "--out", "corpus", "--in-process")
    assert brickyard(home, *build)[0] == 0
    whole = files(home / "corpus")
    shard = sorted((home / "corpus" / "shards").iterdir())[1]
    shard.unlink()
    (home / "corpus" / "index.parquet").write_bytes(b"PAR1 damaged")
    (home / "corpus" / "parts" / "00002.parquet").write_bytes(b"not a part")
    code, result, text = brickyard(home, *build)
    assert (code, result["shards_built"], result["shards_reused"]) == (0, 2, 2), text
    assert files(home / "corpus") == whole


def test_mended_raw_data_are_tried_again_on_request(home: Path) -> None:
    build = ("build", "recipe.yaml", "--out", "corpus", "--in-process")
    assert brickyard(home, *build[:3], "whole", "--in-process")[0] == 0
    path = home / "raw" / "training" / "calib" / "000002.txt"
    good = path.read_bytes()
    path.write_bytes(b"x" * len(good))
    assert brickyard(home, *build)[0] == 3
    path.write_bytes(good)
    assert brickyard(home, *build)[0] == 3
    code, result, _ = brickyard(home, *build, "--retry-quarantined")
    assert (code, result["shards_built"], result["quarantined"]) == (0, 1, [])
    assert files(home / "corpus") == files(home / "whole")


def test_another_recipe_does_not_continue_a_corpus(home: Path) -> None:
    assert brickyard(home, "build", "recipe.yaml", "--out", "corpus", "--in-process")[0] == 0
    (home / "recipe.yaml").write_text(RECIPE.replace("segments: 20", "segments: 30"))
    code, result, _ = brickyard(home, "build", "recipe.yaml", "--out", "corpus", "--in-process")
    assert code == 1
    assert "segments: was 20, is 30" in result["error"]


def test_moving_the_raw_data_does_not_change_the_corpus(home: Path) -> None:
    assert brickyard(home, "build", "recipe.yaml", "--out", "a", "--in-process")[0] == 0
    (home / "raw").rename(home / "elsewhere")
    (home / "recipe.yaml").write_text(RECIPE.replace("root: raw", f"root: {home / 'elsewhere'}"))
    assert brickyard(home, "build", "recipe.yaml", "--out", "b", "--in-process")[0] == 0
    assert files(home / "a") == files(home / "b")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("root: raw", "root: nowhere"), ["nowhere", "does not exist"]),
        (("segments", "segment"), ["line 7", "unknown key 'segment'", "'segments'"]),
        (("kitti_object", "kiti_object"), ["line 4", "kiti_object", "kitti_object"]),
        (("max_scenes: 2", "max_scenes: two"), ["line 8", "max_scenes"]),
        (("max_scenes: 2", "max_scenes: 0"), ["line 8", "between 1 and 4096"]),
    ],
)
def test_a_wrong_recipe_is_explained(home: Path, change: tuple[str, str], words: list[str]) -> None:
    (home / "recipe.yaml").write_text(RECIPE.replace(*change))
    code, result, text = brickyard(home, "plan", "recipe.yaml")
    assert code == 2
    assert "Traceback" not in text
    for word in words:
        assert word in result["error"]


def test_a_folder_that_cannot_be_written_is_named(home: Path) -> None:
    (home / "file").write_text("in the way")
    code, result, text = brickyard(home, "build", "recipe.yaml", "--out", "file/corpus", "--in-process")
    assert code == 1
    assert "/file" in result["error"]
    assert "Traceback" not in text


def test_the_plan_writes_nothing_and_foretells_the_build(home: Path) -> None:
    before = files(home)
    code, plan, _ = brickyard(home, "plan", "recipe.yaml", "--cpus", "2", "--samples", "2")
    assert code == 0
    assert files(home) == before
    assert (plan["scenes"], plan["shards"], plan["points"]) == (8, 4, 8 * 600)
    _, built, _ = brickyard(home, "build", "recipe.yaml", "--out", "corpus", "--in-process")
    blobs = sum(place.length for row in range(8) for place in Corpus.open(home / "corpus").addresses(row).values())
    assert plan["bytes_out"] == pytest.approx(blobs, rel=0.1)
    assert built["scenes"] == plan["scenes"]


DEADLY = """
import os, time
from dataclasses import dataclass, replace
from brickyard.ingest.source import SceneRef, Source
from tests.worlds import toy_scene

@dataclass(frozen=True, kw_only=True)
class Options:
    scenes: int = 5

def plan(store, options):
    for i in range(options.scenes):
        yield SceneRef(
            dataset="deadly", scene_id=f"scene-{i:03d}", split="train", sequence="s", root=store.uri, files={}
        )

def read(ref):
    if ref.scene_id == "scene-001":
        return toy_scene(1)  # under another key than planned
    if ref.scene_id == "scene-002":
        os._exit(9)
    if ref.scene_id == "scene-003":
        time.sleep(60)
    if ref.scene_id == "scene-004":
        raise KeyError("a bug in a reader")
    scene = toy_scene(int(ref.scene_id[-3:]))
    return replace(scene, identity=replace(scene.identity, dataset="deadly"))

SOURCE = Source("deadly", Options, plan, read)
"""


def test_a_scene_that_kills_or_stops_its_worker_costs_only_itself(tmp_path: Path) -> None:
    """Through a source of a third party, found by its entry point; on Ray: `test_ray_cluster`."""
    plugin = tmp_path / "plugin"
    (plugin / "deadly-1.0.dist-info").mkdir(parents=True)
    (plugin / "deadly.py").write_text(textwrap.dedent(DEADLY))
    (plugin / "deadly-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (plugin / "deadly-1.0.dist-info" / "entry_points.txt").write_text("[brickyard.sources]\ndeadly = deadly:SOURCE\n")
    recipe = "name: x\nsources: [{dataset: deadly, root: .}]\ncurate: {superpixels: null, correspondences: null}\n"
    (tmp_path / "recipe.yaml").write_text(recipe + "shards: {scene_timeout_s: 1.5}\n")
    path = os.pathsep.join([str(plugin), str(Path(__file__).parents[2])])
    code, result, text = brickyard(
        tmp_path, "build", "recipe.yaml", "--out", "corpus", "--in-process", env={"PYTHONPATH": path}
    )
    assert code == 3, text
    reasons = {q["key"]: q["reason"] for q in result["quarantined"]}
    assert sorted(reasons) == [f"deadly/scene-{i:03d}" for i in (1, 2, 3, 4)]
    assert "read it as toy/scene-001" in reasons["deadly/scene-001"]
    assert "kills the worker" in reasons["deadly/scene-002"]
    assert "took longer than 1.5 s" in reasons["deadly/scene-003"]
    assert "KeyError" in reasons["deadly/scene-004"]
    assert Corpus.open(tmp_path / "corpus").keys == ["deadly/scene-000"]
