"""One task makes one shard: read, curate, encode each scene, commit. It knows nothing of where it runs.

Whatever is wrong with a scene ends in the quarantine list with its reason; the other scenes are built. A task is
idempotent: if its part is committed it returns that, so the cure for every failure is to run it again.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from curate.pipeline import CurateConfig, curate
from infra.recipe import Recipe, ShardsConfig
from ingest.source import SceneRef, find_source
from shards.build import Part, commit_task, read_part
from shards.encode import EncodedScene, encode_scene
from shards.errors import BrickyardError, SceneError
from shards.index import Quarantined
from shards.storage import Store

_REMIND_S = 5.0
"""A time limit that was swallowed by native code rings again after so many seconds."""


@dataclass(frozen=True)
class Job:
    """What all tasks of a build share.

    Attributes:
        out: the corpus, a path or URI.
        build: digest of the fingerprint.
    """

    curate: CurateConfig
    shards: ShardsConfig
    out: str
    build: str

    @classmethod
    def of(cls, recipe: Recipe, out: str, build: str) -> Job:
        return cls(recipe.curate, recipe.shards, out, build)


@dataclass(frozen=True)
class TaskResult:
    """What a task did.

    Attributes:
        seconds: of work; 0 where the shard was there already.
        reused: True where nothing was left to do.
    """

    task: int
    part: Part
    seconds: float
    reused: bool


def make_scene(ref: SceneRef, curation: CurateConfig, shards: ShardsConfig) -> EncodedScene:
    """Read, curate and encode one scene."""
    scene = curate(find_source(ref.dataset).read(ref), curation)
    if scene.identity.key != ref.key:
        raise SceneError(f"scene {ref.key}: its source planned it under this key and read it as {scene.identity.key}")
    return encode_scene(scene, shards.compressor)


def run_task(job: Job, task: int, refs: Sequence[SceneRef], excluded: Mapping[str, str]) -> TaskResult:
    """Build and commit one shard; `excluded` scenes (they killed a worker before) are quarantined with the reasons."""
    store = Store(job.out)
    if (record := read_part(store, task, job.build)) is not None:
        return TaskResult(task, record[0], 0.0, True)
    begin = time.perf_counter()
    scenes, quarantined = [], []
    for ref in refs:
        if ref.key in excluded:
            quarantined.append(Quarantined(ref.key, excluded[ref.key]))
            continue
        try:
            with time_limit(job.shards.scene_timeout_s):
                scene = make_scene(ref, job.curate, job.shards)
        except (MemoryError, OSError):
            raise  # the machine's trouble, not the scene's: nothing is committed, the rerun tries again
        except (Exception, SceneTimeout) as problem:  # whatever a scene does, it must not take its neighbours with it
            quarantined.append(Quarantined(ref.key, reason(problem)))
        else:
            scenes.append(scene)
    part = commit_task(store, task, job.build, scenes, quarantined, container=job.shards.container)
    return TaskResult(task, part, time.perf_counter() - begin, False)


def reason(problem: BaseException) -> str:
    """The text of an error meant for people; for any other its type and where it was raised."""
    if isinstance(problem, BrickyardError | SceneTimeout):
        return str(problem)
    frames = traceback.extract_tb(problem.__traceback__)
    place = f" in {frames[-1].name} (line {frames[-1].lineno} of {frames[-1].filename.rsplit('/', 1)[-1]})"
    return f"unexpected {type(problem).__name__}{place if frames else ''}: {problem}"


class SceneTimeout(BaseException):
    """A scene took too long. No `Exception`, so that nothing on the way takes it for a fault of the data."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `SceneTimeout` in this thread after so many seconds. Without effect outside a process's main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(signum: int, frame: object) -> None:
        raise SceneTimeout(f"took longer than {seconds:g} s; raise shards.scene_timeout_s or drop the scene")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, _REMIND_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
