"""The build job: tasks in a bounded window, longest first, on Ray or one after another; then index and manifest.

Either way a task runs in a process of its own, watched by `infra.supervisor`: a scene that hangs, dies or takes its
process with it is quarantined with what was seen, and its neighbours are built. What Ray loses (a node, a worker that
its memory monitor killed) is tried again; if a task keeps losing its worker, its scenes are tried one by one there.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brickyard.infra.accepted import check_code, parts_by_code, signatures
from brickyard.infra.cluster import cluster
from brickyard.infra.mended import check_inputs
from brickyard.infra.plan import Plan, task_memory
from brickyard.infra.recipe import Recipe
from brickyard.infra.supervisor import PATIENCE_S, dismiss, run_watched
from brickyard.infra.task import Job, TaskResult
from brickyard.ingest.source import SceneRef
from brickyard.shards.build import LOCK, fingerprint_digest, finish_build, finished, start_build
from brickyard.shards.corpus import MANIFEST
from brickyard.shards.errors import BrickyardError, CorpusError
from brickyard.shards.parts import Commit, part_name, read_commits
from brickyard.shards.storage import Store

ProgressCall = Callable[[int, int, str], None]

_WINDOW = 2
"""Tasks submitted per CPU: enough to keep workers busy, few enough to keep the driver's memory flat."""

_OUR_PART = re.compile(r"(\d{5,})(-[a-z]+)?\.parquet")
"""The commit record of a task, and lists that were too long for it."""


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    Attributes:
        manifest: of the corpus.
        tasks_done, tasks_reused: shards made now, and found committed.
        core_seconds: work done now.
    """

    manifest: dict[str, Any]
    tasks_done: int
    tasks_reused: int
    core_seconds: float


def run_build(
    recipe: Recipe,
    plan: Plan,
    out: str,
    *,
    cpus: int | None = None,
    address: str | None = None,
    in_process: bool = False,
    retry_quarantined: bool = False,
    accept_code: bool = False,
    progress: ProgressCall = lambda done, total, note: None,
) -> BuildResult:
    """Build (or complete) a corpus.

    Args:
        out: folder or URI of the corpus.
        cpus: tasks at a time on this machine; all cores by default.
        address: of a running Ray cluster; a local one is started otherwise.
        in_process: no Ray, one task after another.
        retry_quarantined: make the shards anew that lost scenes, after the raw data were mended; see `infra.mended`.
        accept_code: keep the parts that former code made; see `infra.accepted`.
        progress: called with (scenes done, scenes, note).

    Raises:
        CorpusError: another build was begun in this folder, or is running in it.
    """
    store = Store(out)
    with only_writer(store):
        plan = check_code(store, plan, accept=accept_code)
        check_inputs(store, plan, take=retry_quarantined)
        start_build(store, plan.fingerprint)
        build = fingerprint_digest(plan.fingerprint)
        if not retry_quarantined and (corpus := finished(store, build)):
            progress(len(plan.refs), len(plan.refs), "already built")
            return BuildResult(corpus.manifest, 0, len(plan.tasks), 0.0)
        job = Job.of(recipe, store.uri, plan.fingerprint)
        commits = read_commits(store, len(plan.tasks))
        if retry_quarantined:
            _forget_quarantined(store, commits)
        committed = signatures(job, plan.tasks, commits)
        todo = _open_tasks(store, plan, committed)
        reused = len(plan.tasks) - len(todo)
        results: Iterator[TaskResult]
        if in_process:
            results = _run_here(job, todo, plan)
        elif todo:
            results = _run_on_ray(job, todo, plan, cpus or os.cpu_count() or 1, address)
        else:
            results = iter(())
        seconds = _follow(results, plan, todo, progress)
        builds = [made or job.build(refs) for made, refs in zip(committed, plan.tasks, strict=True)]
        said = about(recipe, plan, job, builds)
        manifest = finish_build(store, len(plan.tasks), build, plan.missing, said, parts_of=builds)
    return BuildResult(manifest, len(todo), reused, seconds)


def about(recipe: Recipe, plan: Plan, job: Job, builds: Sequence[str]) -> dict[str, Any]:
    """What a manifest says of the build besides its contents; `builds` are the signatures of its parts."""
    notices = [asdict(notice) for notice in plan.notices]
    return {
        "name": recipe.name,
        "config": plan.fingerprint["config"],
        "code": parts_by_code(plan.fingerprint, job, plan.tasks, builds),
        "notices": notices,
    }


def _open_tasks(store: Store, plan: Plan, committed: Sequence[str | None]) -> list[int]:
    """Tasks without a commit, those with most raw bytes first; parts that are none of this build's are removed."""
    names = [part_name(task).removeprefix("parts/") for task in range(len(plan.tasks))]
    todo = [task for task, made in enumerate(committed) if made is None]
    done = {Path(name).stem for name in names} - {Path(names[task]).stem for task in todo}
    for name in sorted(store.list("parts")):
        if (ours := _OUR_PART.fullmatch(name)) and ours[1] not in done:
            store.delete(f"parts/{name}")
    return sorted(todo, key=lambda t: (-sum(ref.bytes_estimate for ref in plan.tasks[t]), t))


def _forget_quarantined(store: Store, commits: list[Commit | None]) -> None:
    """Take back the commits of tasks with quarantined scenes; the corpus is unfinished from here on."""
    lossy = [task for task, commit in enumerate(commits) if commit and commit.part.quarantined]
    if lossy and store.exists(MANIFEST):
        store.delete(MANIFEST)
    for task in lossy:
        store.delete(part_name(task))
        commits[task] = None


def _run_here(job: Job, todo: Sequence[int], plan: Plan) -> Iterator[TaskResult]:
    try:
        for task in todo:
            yield _checked(run_watched(job, task, plan.tasks[task], {}))
    finally:
        dismiss()


def _follow(results: Iterator[TaskResult], plan: Plan, todo: Sequence[int], progress: ProgressCall) -> float:
    total = len(plan.refs)
    done = total - sum(len(plan.tasks[task]) for task in todo)
    quarantined, seconds = 0, 0.0
    progress(done, total, "")
    for result in results:
        done += len(plan.tasks[result.task])
        quarantined += len(result.part.quarantined)
        seconds += result.seconds
        progress(done, total, f"{quarantined} quarantined" if quarantined else "")
    return seconds


@contextmanager
def only_writer(store: Store) -> Iterator[None]:
    """Hold the lock of a local corpus; raises `CorpusError` if another process builds there."""
    if not store.local:
        yield
        return
    path = Path(store.refuse_links().path(LOCK))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:  # nothing is emptied: the folder may be somebody's, its lock a link to something precious
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        if path.is_symlink():
            raise CorpusError(f"{path} is a link, not the lock of a build: remove it") from problem
        raise
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise CorpusError(f"another process is building in {store.uri}; wait for it or stop it") from problem
        if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise CorpusError(f"another process has just built in {store.uri}; run the command again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


# Ray


def _run_on_ray(job: Job, todo: Sequence[int], plan: Plan, cpus: int, address: str | None) -> Iterator[TaskResult]:
    """Yield results as tasks finish, with at most `_WINDOW` tasks per CPU under way."""
    with cluster(cpus, address) as ray:
        slots = int(ray.cluster_resources().get("CPU", cpus))
        remote = ray.remote(max_retries=2, retry_exceptions=False)(run_watched)
        waiting = list(reversed(todo))
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < _WINDOW * slots:
                task = waiting.pop()
                call = remote.options(**_needs(ray, plan.tasks[task]), name=f"shard {task}")
                running[call.remote(job, task, plan.tasks[task], {}, PATIENCE_S)] = task
            ready, _ = ray.wait(list(running), num_returns=1)
            task = running.pop(ready[0])
            yield _result(ray, ready[0], job, task, plan.tasks[task])


def _needs(ray: Any, refs: Sequence[SceneRef]) -> dict[str, Any]:
    """Resources of a task: its planned memory, or all of the largest node's where that is less (then it runs alone)."""
    largest = max((node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]), default=0)
    return {"num_cpus": 1, "memory": int(min(task_memory(sum(ref.bytes_estimate for ref in refs)), largest))}


def _result(ray: Any, ready: Any, job: Job, task: int, refs: Sequence[SceneRef]) -> TaskResult:
    """The result of a task; if it lost its workers, that of the same task without the scenes that do so."""
    try:
        return _get(ray, ready)
    except ray.exceptions.RayError as problem:
        deadly = _find_deadly(ray, job, refs, problem)
    again = ray.remote(max_retries=2)(run_watched).options(**_needs(ray, refs))
    try:
        return _get(ray, again.remote(job, task, refs, deadly, PATIENCE_S))
    except ray.exceptions.RayError as problem:
        raise BrickyardError(f"shard {task} keeps losing its worker ({problem}); build with fewer --cpus") from problem


def _get(ray: Any, ready: Any) -> TaskResult:
    """Raises `BrickyardError` for what the task raised, Ray's errors for a worker that is lost."""
    try:
        return _checked(ray.get(ready))
    except ray.exceptions.RayTaskError as problem:
        raise BrickyardError(str(problem.cause)) from problem


def _checked(value: object) -> TaskResult:
    if not isinstance(value, TaskResult):
        raise TypeError(f"a task returned {type(value).__name__}")
    return value


def _find_deadly(ray: Any, job: Job, refs: Sequence[SceneRef], first: Exception) -> Mapping[str, str]:
    """Try each scene in a worker of its own; those whose worker is lost are returned with the reason."""
    deadly = {}
    for ref in refs:
        trial = ray.remote(max_retries=0)(run_watched).options(**_needs(ray, [ref]))
        try:
            ray.get(trial.remote(job, None, [ref], {}, PATIENCE_S))
        except ray.exceptions.RayTaskError:
            continue  # an ordinary error: the task itself will tell
        except ray.exceptions.RayError:
            deadly[ref.key] = f"reading or curating it kills the worker process ({type(first).__name__})"
    return deadly
