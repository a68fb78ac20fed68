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

from infra.plan import make_scene
from infra.recipe import Recipe
from ingest.source import SceneRef
from shards.build import Part, commit_task, read_part
from shards.errors import BrickyardError
from shards.index import Quarantined
from shards.storage import Store


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


def run_task(
    task: int, refs: Sequence[SceneRef], recipe: Recipe, out: str, build: str, excluded: Mapping[str, str]
) -> TaskResult:
    """Build and commit one shard.

    Args:
        out: the corpus, a path or URI.
        build: digest of the fingerprint.
        excluded: keys of scenes that must not be touched (they killed a worker before), with reasons.
    """
    store = Store(out)
    if (record := read_part(store, task, build)) is not None:
        return TaskResult(task, record[0], 0.0, True)
    begin = time.perf_counter()
    scenes, quarantined = [], []
    for ref in refs:
        if ref.key in excluded:
            quarantined.append(Quarantined(ref.key, excluded[ref.key]))
            continue
        try:
            with time_limit(recipe.shards.scene_timeout_s):
                scenes.append(make_scene(ref, recipe))
        except Exception as problem:  # whatever a scene does, it must not take its neighbours with it
            quarantined.append(Quarantined(ref.key, reason(problem)))
    part = commit_task(store, task, build, scenes, quarantined)
    return TaskResult(task, part, time.perf_counter() - begin, False)


def reason(problem: BaseException) -> str:
    """The text of an error meant for people; for any other its type and where it was raised."""
    if isinstance(problem, BrickyardError | TimeoutError):
        return str(problem)
    frames = traceback.extract_tb(problem.__traceback__)
    place = f" in {frames[-1].name} (line {frames[-1].lineno} of {frames[-1].filename.rsplit('/', 1)[-1]})"
    return f"unexpected {type(problem).__name__}{place if frames else ''}: {problem}"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this thread after so many seconds. Without effect outside a process's main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(signum: int, frame: object) -> None:
        raise TimeoutError(f"took longer than {seconds:g} s; raise shards.scene_timeout_s or drop the scene")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
