"""Going on with a build of the whole corpus: what a rerun costs where everything, most, or nothing new is to be found.

A corpus with as many parts and index rows as a real one is made of one tiny scene under many names, so that only what
grows with the number of scenes and shards is measured. Then `run_build` is called in a fresh process:

  finished     the corpus is there: nothing to do
  manifest     index and manifest are gone, as after a crash in the last moment: they are made from the parts
  a tenth      a tenth of the parts is gone: how long until the first task would start

On a local disk, and with `--remote` on the S3 test server behind a proxy that answers 20 ms later.

python -m tests.benchmarks.resuming [--scenes 140000] [--per-shard 7] [--remote] [--dry]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from tests.benchmarks.remote import endpoints
from tests.benchmarks.report import append, table

COLUMNS = {
    "where": "s store", "state": "s what is there", "scenes": ",d scenes", "shards": ",d shards",
    "seconds": ".1f s", "peak_mib": ",.0f MiB at the peak",
}  # fmt: skip
STATES = ("finished", "manifest", "a tenth")


class Begun(Exception):
    """The first task would start now."""


def pretend(scenes: int, per_shard: int) -> tuple[Any, Any]:
    """The recipe and the plan of a build of so many scenes."""
    from brickyard.infra.fingerprint import code_of
    from brickyard.infra.plan import Plan, _inputs
    from brickyard.infra.recipe import Recipe, build_config
    from brickyard.ingest.source import SceneRef

    recipe = Recipe(name="many")
    refs = [
        SceneRef(
            dataset="scannet", scene_id=f"scene{number:06d}", split="train", sequence=f"scene{number:06d}",
            root="/none", files={"mesh": f"scans/scene{number:06d}/mesh.ply"},
            points_estimate=100_000, bytes_estimate=30_000_000,
        )
        for number in range(scenes)
    ]  # fmt: skip
    tasks = tuple(tuple(refs[first : first + per_shard]) for first in range(0, scenes, per_shard))
    code = {"scannet": code_of("scannet", recipe.curate)}
    fingerprint = {"config": build_config(recipe), "code": code, "inputs": _inputs(refs, ())}
    return recipe, Plan(tasks, (), (), fingerprint)


def fill(out: str, recipe: Any, plan: Any) -> None:
    """Commit every task, and finish the corpus."""
    import numpy as np

    from brickyard.infra.job import run_build
    from brickyard.infra.task import Job, inputs
    from brickyard.shards.build import commit_task, start_build
    from brickyard.shards.encode import encode_scene
    from brickyard.shards.scene import Identity, Points, Scene
    from brickyard.shards.storage import Store

    identity = Identity(
        dataset="scannet", version="2", split="train", sequence="s", scene_id="s", domain="indoor", licence="CC0-1.0",
        timestamp_ns=None,
    )  # fmt: skip
    scene = Scene(identity=identity, world_from_scene=np.eye(4), points=Points(xyz=np.zeros((1, 3), np.float32)))
    encoded = encode_scene(scene)
    store, job = Store(out), Job.of(recipe, out, plan.fingerprint)
    start_build(store, plan.fingerprint)
    for number, refs in enumerate(plan.tasks):
        made = [
            replace(encoded, identity=replace(identity, scene_id=ref.scene_id, sequence=ref.sequence)) for ref in refs
        ]
        commit_task(store, number, job.build(refs), made, (), inputs=inputs(refs))
    run_build(recipe, plan, out, in_process=True)


def spoil(out: str, state: str, tasks: int) -> None:
    from brickyard.shards.corpus import INDEX, MANIFEST
    from brickyard.shards.parts import part_name
    from brickyard.shards.storage import Store

    store = Store(out)
    if state == "finished":
        return
    for name in (MANIFEST, INDEX):
        if store.exists(name):
            store.delete(name)
    if state == "a tenth":
        for task in range(0, tasks, 10):
            store.delete(part_name(task))


def resume(out: str, scenes: int, per_shard: int) -> dict[str, float]:
    """Run the build as far as its first task; called in a process of its own."""
    from brickyard.infra import job

    recipe, plan = pretend(scenes, per_shard)
    with mock.patch.object(job, "run_watched", side_effect=Begun):
        begun = time.perf_counter()
        with suppress(Begun):
            job.run_build(recipe, plan, out, in_process=True)
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure(where: str, out: str, scenes: int, per_shard: int, through: str | None = None) -> list[dict[str, Any]]:
    """A row for each state; the corpus is filled at `out` and seen at `through`."""
    recipe, plan = pretend(scenes, per_shard)
    fill(out, recipe, plan)
    rows = []
    for state in STATES:
        spoil(out, state, len(plan.tasks))
        words = [sys.executable, "-m", __spec__.name, "--resume", through or out, "--scenes", str(scenes)]
        done = subprocess.run([*words, "--per-shard", str(per_shard)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        row = {"where": where, "state": state, "scenes": scenes, "shards": len(plan.tasks)}
        rows.append(row | json.loads(done.stdout))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=140_000)
    parser.add_argument("--per-shard", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None, help="of the corpus on the local disk")
    parser.add_argument("--remote", action="store_true", help="also on an object store")
    parser.add_argument("--resume", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    if options.resume:
        json.dump(resume(options.resume, options.scenes, options.per_shard), sys.stdout)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    from brickyard.shards.storage import Store

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure("local disk", f"{folder}/corpus", options.scenes, options.per_shard)
    if options.remote:
        with endpoints() as stores:
            Store(stores[0].uri)._fs.create_dir("bricks")
            rows += measure("S3, 20 ms", stores[0].uri, options.scenes, options.per_shard, stores[20].uri)
    table("resuming", rows, COLUMNS)
    if not options.dry:
        append("resuming", {"per_shard": options.per_shard}, rows)


if __name__ == "__main__":
    main()
