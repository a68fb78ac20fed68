"""Mending a damaged corpus: the scenes whose bytes are wrong are made anew from the raw data, and nothing else is.

What is still whole in a damaged shard is kept as it is, so a flipped bit costs one scene. The mended shard must have
the digest it was committed with; raw data or libraries that changed since then are refused, not mixed in. Index and
manifest are written again from the commit records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from brickyard.infra.accepted import check_code, signatures
from brickyard.infra.grown import grow
from brickyard.infra.job import about
from brickyard.infra.plan import Plan
from brickyard.infra.recipe import Recipe
from brickyard.infra.task import Job, make_scene, run_task, time_limit
from brickyard.ingest.source import SceneRef
from brickyard.shards.build import fingerprint_digest, finish_build, start_build
from brickyard.shards.containers import CONTAINERS
from brickyard.shards.convert import encoded_scene, summary_entries
from brickyard.shards.encode import EncodedScene
from brickyard.shards.errors import NONSENSE, CorpusError
from brickyard.shards.lock import only_writer
from brickyard.shards.parts import Part, read_commits, read_part
from brickyard.shards.storage import Store, digest64

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Repaired:
    """What a repair did: the shards that were mended, the keys of the scenes that were made anew."""

    shards: tuple[str, ...]
    scenes: tuple[str, ...]


def repair(recipe: Recipe, plan: Plan, out: str, *, progress: Progress = lambda done, total, note: None) -> Repaired:
    """Check every shard of a corpus and mend the damaged ones.

    Raises:
        CorpusError: another recipe, data or version than the corpus was built with, or a scene that no longer gives the
            bytes it gave then.
    """
    store = Store(out)
    shards: list[str] = []
    scenes: list[str] = []
    with only_writer(store):
        plan = check_code(store, grow(store, plan, take=False), accept=False)
        start_build(store, plan.fingerprint)
        build = fingerprint_digest(plan.fingerprint)
        job = Job.of(recipe, store.uri, plan.fingerprint)
        commits = read_commits(store, len(plan.tasks), need_shard=False)
        signed = signatures(job, plan, commits)
        builds = [made or job.build(refs) for made, refs in zip(signed, plan.tasks, strict=True)]
        for task, refs in enumerate(plan.tasks):
            progress(task, len(plan.tasks), f"{len(scenes)} scenes made anew" if scenes else "")
            record = read_part(store, task, builds[task], need_shard=False)
            if record is None:  # without its commit record, nothing is known of the shard
                made = run_task(job, task, refs, {})
                shards.append(str(made.part.shard))
                scenes += [ref.key for ref in refs]
            elif record[0].shard is not None and (bad := _mend(store, job, record[0], record[1].to_pylist(), refs)):
                shards.append(record[0].shard)
                scenes += bad
        progress(len(plan.tasks), len(plan.tasks), "")
        said = about(recipe, plan, job, builds)
        finish_build(store, len(plan.tasks), build, plan.missing, said, parts_of=builds)
    return Repaired(tuple(shards), tuple(scenes))


def _mend(store: Store, job: Job, part: Part, rows: Sequence[Mapping[str, Any]], refs: Sequence[SceneRef]) -> list[str]:
    """Keys of the scenes made anew; none if the shard is whole."""
    assert part.shard is not None
    data = store.read(part.shard) if store.exists(part.shard) else b""
    if xxhash.xxh3_128_hexdigest(data) == part.digest:
        return []
    planned = {ref.key: ref for ref in refs}
    scenes: list[EncodedScene] = []
    anew = []
    for row in rows:
        kept = _still_whole(row, data)
        if kept is None:
            anew.append(str(row["key"]))
            if row["key"] not in planned:
                raise CorpusError(
                    f"{store.uri}: scene {row['key']} is damaged, and the recipe does not plan it as it was built:"
                    " restore its raw data, and name its dataset among the sources"
                )
            with time_limit(job.shards.scene_timeout_s):
                kept = make_scene(planned[row["key"]], job.curate, job.shards)
            _refuse_change(row, kept, store)
        scenes.append(kept)
    buffer, _ = CONTAINERS[job.shards.container].write(scenes, part.task)
    if xxhash.xxh3_128_hexdigest(memoryview(buffer)) != part.digest:
        raise CorpusError(f"{store.uri}/{part.shard}: its scenes are the same, the file is not: another pyarrow?")
    store.write(part.shard, buffer)
    return anew


def _still_whole(row: Mapping[str, Any], data: bytes) -> EncodedScene | None:
    """The scene as stored, or None if one of its blobs is damaged."""
    blobs = {}
    for place in row["blobs"]:
        blob = data[place["offset"] : place["offset"] + place["length"]] if place["offset"] >= 0 else b""
        if len(blob) != place["length"] or digest64(blob) != place["digest"]:
            return None
        blobs[place["field"]] = blob
    try:
        return encoded_scene(blobs, summary_entries(row))
    except NONSENSE:
        return None


def _refuse_change(row: Mapping[str, Any], scene: EncodedScene, store: Store) -> None:
    made = {"header": digest64(scene.header)} | {name: digest64(blob) for name, blob in scene.blobs.items()}
    before = {place["field"]: place["digest"] for place in row["blobs"]}
    if changed := [name for name in before if made.get(name) != before[name]]:
        raise CorpusError(
            f"{store.uri}: scene {row['key']} no longer gives the bytes it gave when it was built "
            f"({changed[0]} differs): its raw files have changed; restore them, or build into another folder"
        )
