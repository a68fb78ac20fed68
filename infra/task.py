"""One task makes one shard: read, curate, encode each scene, commit. It knows nothing of where it runs.

Whatever is wrong with a scene ends in the quarantine list with its reason; the other scenes are built. A task is
idempotent: if its part is committed it returns that, so the cure for every failure is to run it again.

What a scene cannot be blamed for is the machine's trouble: no space, no files left to open, a disk or a store that is
gone. Then the task fails, nothing is committed, and the rerun tries again.
"""

from __future__ import annotations

import errno
import json
import re
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import xxhash

from brickyard.curate.pipeline import CurateConfig, curate
from brickyard.infra.extras import refuse_missing
from brickyard.infra.meter import Cost, Meter
from brickyard.infra.recipe import Recipe, ShardsConfig
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.build import commit_task, fingerprint_digest
from brickyard.shards.encode import EncodedScene, encode_scene
from brickyard.shards.errors import BrickyardError, SceneError, without_addresses
from brickyard.shards.index import Quarantined
from brickyard.shards.parts import Part, read_part
from brickyard.shards.storage import Store

_REMIND_S = 1.0
"""A time limit that was swallowed rings again after so many seconds."""
_PAUSES_S = (0.2, 1.0)
"""A scene whose reader meets an `OSError` or has no memory is tried again after these."""
_OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOBUFS,
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
}  # fmt: skip
"""Nothing is left of something, or a network disk is gone (whose root may still seem to be there)."""
_AGAIN = "mend it and run the same command again"
_LONGEST_REASON = 2000
_PASSING_NAME = re.compile(re.escape(tempfile.gettempdir()) + r"/tmp[a-z0-9_]{8}\b")


@dataclass(frozen=True)
class Job:
    """What all tasks of a build share.

    Attributes:
        out: the corpus, a path or URI.
        made_by: dataset -> digests of configuration and code, which with a task's inputs decide the bytes of its shard:
            of the code that runs, then of former code whose parts were accepted.
    """

    curate: CurateConfig
    shards: ShardsConfig
    out: str
    made_by: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, recipe: Recipe, out: str, fingerprint: Mapping[str, Any]) -> Job:
        config, accepted = fingerprint["config"], fingerprint.get("accepted", {})
        made_by = {
            dataset: tuple(
                fingerprint_digest({"config": config, "code": code}) for code in (now, *accepted.get(dataset, ()))
            )
            for dataset, now in fingerprint["code"].items()
        }
        return cls(recipe.curate, recipe.shards, out, made_by)

    def build(self, refs: Sequence[SceneRef]) -> str:
        """What the part of a task is signed with: it stays valid as long as configuration, the code of its dataset and
        these scenes do, whatever becomes of the scenes of other tasks."""
        return self.builds(refs)[0]

    def builds(self, refs: Sequence[SceneRef]) -> list[str]:
        """All that the part may be signed with: by the code that runs, and by former code that was accepted."""
        known = list(inputs(refs).items())
        return [fingerprint_digest({"made_by": digest, "inputs": known}) for digest in self.made_by[refs[0].dataset]]


def inputs(refs: Sequence[SceneRef]) -> dict[str, str]:
    """Key -> digest of what the plan knows of the scene (files, sizes, calibration), not of where its root lies."""
    return {ref.key: _input(ref) for ref in refs}


def _input(ref: SceneRef) -> str:
    known = [ref.split, ref.sequence, dict(ref.files), ref.details, ref.points_estimate, ref.bytes_estimate]
    return xxhash.xxh3_64_hexdigest(json.dumps([ref.key, *known], sort_keys=True, default=str).encode())


@dataclass(frozen=True)
class TaskResult:
    """What a task did.

    Attributes:
        seconds: of work; 0 where the shard was there already.
        reused: True where nothing was left to do.
        cost: None where the shard was there already.
    """

    task: int
    part: Part
    seconds: float
    reused: bool
    cost: Cost | None = None


def make_scene(ref: SceneRef, curation: CurateConfig, shards: ShardsConfig, meter: Meter | None = None) -> EncodedScene:
    """Read, curate and encode one scene."""
    meter = meter or Meter()
    with meter.stage("read"):
        scene = find_source(ref.dataset).read(ref)
    scene = curate(scene, curation, meter.stage)
    if scene.identity.key != ref.key:
        raise SceneError(f"scene {ref.key}: its source planned it under this key and read it as {scene.identity.key}")
    with meter.stage("encode"):
        return encode_scene(scene, shards.compressor)


def run_task(
    job: Job,
    task: int,
    refs: Sequence[SceneRef],
    excluded: Mapping[str, str],
    begin_scene: Callable[[str], None] = lambda key: None,
) -> TaskResult:
    """Build and commit one shard.

    Args:
        excluded: key -> reason of scenes that are not tried (they ended a process before) but quarantined.
        begin_scene: called with the key of every scene before each try, and with "" before the shard is written.

    Raises:
        BrickyardError, OSError: the machine's trouble.
    """
    store, build = Store(job.out), job.build(refs)
    if (record := read_part(store, task, build)) is not None:
        return TaskResult(task, record[0], 0.0, True)
    begin, meter = time.perf_counter(), Meter()
    scenes, quarantined = [], []
    for ref in refs:
        if ref.key in excluded:
            quarantined.append(Quarantined(ref.key, excluded[ref.key]))
            continue
        with meter.scene(ref.key):
            made = _try_scene(job, ref, begin_scene, meter)
        if isinstance(made, Quarantined):
            quarantined.append(made)
        elif not _is_empty_part(made):
            scenes.append(made)
    begin_scene("")
    with meter.stage("write"):
        part = commit_task(store, task, build, scenes, quarantined, container=job.shards.container, inputs=inputs(refs))
    return TaskResult(task, part, time.perf_counter() - begin, False, meter.cost())


def _is_empty_part(scene: EncodedScene) -> bool:
    """Such as a square of a survey's grid beyond its border: there is nothing in it, so it is no scene."""
    held = scene.summary
    return held["whole"] is not None and held["n_points"] == held["n_views"] == 0


def try_scenes(job: Job, refs: Sequence[SceneRef], begin_scene: Callable[[str], None]) -> None:
    """Make scenes and throw them away, to see whether the process survives it."""
    for ref in refs:
        _try_scene(job, ref, begin_scene, Meter())


def _try_scene(job: Job, ref: SceneRef, begin_scene: Callable[[str], None], meter: Meter) -> EncodedScene | Quarantined:
    """The scene, or why there is none: whatever a scene does, it must not take its neighbours with it."""
    pauses = iter(_PAUSES_S)
    while True:
        begin_scene(ref.key)
        try:
            with time_limit(job.shards.scene_timeout_s):
                return make_scene(ref, job.curate, job.shards, meter)
        except BaseException as problem:
            if is_interrupt(problem):
                raise
            refuse_missing(problem, ref.key)
            pause = next(pauses, None) if isinstance(problem, MemoryError | OSError) else None
            if pause is None and isinstance(problem, OSError) and _is_of_the_machine(problem, ref):
                raise BrickyardError(f"{ref.key}: {problem}; that is no fault of the scene: {_AGAIN}") from problem
            if pause is None:
                return Quarantined(ref.key, reason(problem, ref))
        time.sleep(pause)


def is_interrupt(problem: BaseException) -> bool:
    """Whether a person pressed Ctrl-C; where a process is deaf to that, a scene has raised it."""
    return isinstance(problem, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def _is_of_the_machine(problem: OSError, ref: SceneRef) -> bool:
    if problem.errno in _OF_THE_MACHINE:
        return True
    try:
        return not Store(ref.root).exists()  # unmounted, unplugged, offline: every scene would fail
    except (OSError, BrickyardError):
        return True


def reason(problem: BaseException, ref: SceneRef | None = None) -> str:
    """The text of an error meant for people; for any other its type and where it was raised.

    It is kept in the corpus, so it is the same in every build: without addresses in memory, names of temporary files
    and the place of the dataset's root.
    """
    try:
        text = str(problem)
    except Exception as bug:
        text = f"(its text cannot be had: {type(bug).__name__})"
    if not isinstance(problem, BrickyardError | SceneTimeout):
        frames = traceback.extract_tb(problem.__traceback__)
        where = [f" in {f.name} (line {f.lineno} of {f.filename.rsplit('/', 1)[-1]})" for f in frames[-1:]]
        text = f"unexpected {type(problem).__name__}{''.join(where)}: {text}"
    if ref is not None:
        text = text.replace(ref.root.rstrip("/") + "/", "")
    text = _PASSING_NAME.sub("a temporary file", without_addresses(text))
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + " ..."


class SceneTimeout(BaseException):
    """A scene took too long. No `Exception`, so that nothing on the way takes it for a fault of the data."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `SceneTimeout` in this thread after so many seconds. Without effect outside a process's main thread.

    It ends what is written in Python and lets it pass; for all the rest there is `infra.supervisor`.
    """
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
