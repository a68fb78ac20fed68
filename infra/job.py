"""The build job: tasks in a bounded window, longest first, on Ray or one after another; then index and manifest.

Either way a task runs in a process of its own, watched by `infra.supervisor`: a scene that hangs, dies or takes its
process with it is quarantined with what was seen, and its neighbours are built. What happens is noted in the corpus
(`infra.events`), for `brickyard status` and `brickyard report`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brickyard.infra.accepted import check_code, parts_by_code, signatures
from brickyard.infra.estimate import Rates
from brickyard.infra.events import EventLog
from brickyard.infra.grown import grow
from brickyard.infra.mended import check_inputs
from brickyard.infra.metrics import Metrics
from brickyard.infra.nodes import distribution_folder, refuse_other_code
from brickyard.infra.on_ray import checked, run_on_ray
from brickyard.infra.plan import Plan, task_memory
from brickyard.infra.ray_cluster import cluster
from brickyard.infra.recipe import Recipe
from brickyard.infra.story import measured_rates, read_story
from brickyard.infra.supervisor import dismiss, run_watched
from brickyard.infra.task import Job, TaskResult
from brickyard.shards.build import fingerprint_digest, finish_build, finished, start_build
from brickyard.shards.corpus import MANIFEST
from brickyard.shards.errors import CorpusError
from brickyard.shards.lock import only_writer
from brickyard.shards.parts import Commit, part_name, read_commits
from brickyard.shards.storage import Store

ProgressCall = Callable[[int, int, str], None]
_LONGEST_REASON = 2000

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
    ship_code: bool = False,
    rates: Rates | None = None,
    in_process: bool = False,
    retry_quarantined: bool = False,
    accept_code: bool = False,
    grows: bool = False,
    progress: ProgressCall = lambda done, total, note: None,
) -> BuildResult:
    """Build (or complete) a corpus.

    Args:
        out: folder or URI of the corpus.
        cpus: tasks at a time on this machine; all cores by default.
        address: of a running Ray cluster; a local one is started otherwise.
        ship_code: bring what is installed here as `brickyard` to the nodes of that cluster (not its libraries).
        rates: what raw bytes of a dataset cost elsewhere (see `infra.estimate.read_rates`), to order tasks and to
            declare memory by; where this build has begun already, its own log is asked, too.
        in_process: no Ray, one task after another.
        retry_quarantined: make the shards anew that lost scenes, after the raw data were mended; see `infra.mended`.
        accept_code: keep the parts that former code made; see `infra.accepted`.
        grows: add what the corpus has not; see `infra.grown`.
        progress: called with (scenes done, scenes, note).

    Raises:
        CorpusError: another build was begun in this folder, or is running in it.
        BrickyardError: a node of the cluster has other code than this driver.
    """
    store = Store(out)
    with only_writer(store):
        plan = _begin(store, plan, grows=grows, retry=retry_quarantined, accept=accept_code)
        build = fingerprint_digest(plan.fingerprint)
        if not retry_quarantined and (corpus := finished(store, build)):
            progress(len(plan.refs), len(plan.refs), "already built")
            return BuildResult(corpus.manifest, 0, len(plan.tasks), 0.0)
        job = Job.of(recipe, store.uri, plan.fingerprint)
        there = store.list("parts")  # before they are read: on an object store another run of this may add to them
        commits = read_commits(store, len(plan.tasks))
        if retry_quarantined:
            _forget_quarantined(store, commits, plan)
        committed = signatures(job, plan, commits)
        _refuse_lost(store, plan, committed)
        rates = {**(rates or {}), **_rates_so_far(store)}
        todo = _open_tasks(store, there, plan, committed, rates)
        reused = len(plan.tasks) - len(todo)
        at_a_time = 1 if in_process else cpus or os.cpu_count() or 1
        log = EventLog(store)
        log.add("begin", now=True, **_outline(recipe, plan, todo, at_a_time, address))
        with _noted(log):
            if in_process:
                results = _run_here(job, todo, plan)
            elif todo:
                results = _run_on_ray(
                    job, todo, plan, cpus=at_a_time, address=address, ship_code=ship_code, log=log, rates=rates
                )
            else:
                results = iter(())
            seconds = _follow(results, plan, todo, progress, log)
        builds = [made or job.build(refs) for made, refs in zip(committed, plan.tasks, strict=True)]
        said = about(recipe, plan, job, builds)
        manifest = finish_build(store, len(plan.tasks), build, plan.missing, said, parts_of=builds)
        log.add("end", now=True, scenes=manifest["scenes"], quarantined=len(manifest["quarantined"]))
    return BuildResult(manifest, len(todo), reused, seconds)


def _begin(store: Store, plan: Plan, *, grows: bool, retry: bool, accept: bool) -> Plan:
    """Begin or go on with the build of a plan, as far as what is there allows it; the plan with what was there."""
    plan = grow(store, plan, take=grows, retry=retry, accept=accept)
    plan = check_code(store, plan, accept=accept)
    check_inputs(store, plan, take=retry)
    start_build(store, plan.fingerprint)
    return plan


def about(recipe: Recipe, plan: Plan, job: Job, builds: Sequence[str]) -> dict[str, Any]:
    """What a manifest says of the build besides its contents; `builds` are the signatures of its parts."""
    notices = [asdict(notice) for notice in plan.notices]
    return {
        "name": recipe.name,
        "config": plan.fingerprint["config"],
        "code": parts_by_code(plan, job, builds),
        "notices": notices,
        **({"was": grown["was"]} if (grown := plan.fingerprint.get("grown")) else {}),
    }


def _rates_so_far(store: Store) -> Rates:
    """Of what this build has made so far, if it has begun."""
    try:
        return measured_rates(read_story(store).tasks)
    except CorpusError:
        return {}


def _open_tasks(
    store: Store, there: Sequence[str], plan: Plan, committed: Sequence[str | None], rates: Rates
) -> list[int]:
    """Tasks without a commit, those first that will take longest; parts that are none of this build's are removed, if
    they were `there` before the commits were read.

    Where the rate of a dataset is not known, that of the dearest known is taken: what is unknown begins early.
    """
    names = [part_name(task).removeprefix("parts/") for task in range(len(plan.tasks))]
    todo = [task for task, made in enumerate(committed) if made is None]
    done = {Path(name).stem for name in names} - {Path(names[task]).stem for task in todo}
    for name in sorted(set(there) & set(store.list("parts"))):
        if (ours := _OUR_PART.fullmatch(name)) and ours[1] not in done:
            store.delete(f"parts/{name}")
    pace = {name: each["seconds"] for name, each in rates.items()}
    dearest = max(pace.values(), default=1.0)

    def seconds(task: int) -> float:
        refs = plan.tasks[task]
        return pace.get(refs[0].dataset, dearest) * sum(ref.bytes_estimate for ref in refs)

    return sorted(todo, key=lambda task: (-seconds(task), task))


def _refuse_lost(store: Store, plan: Plan, committed: Sequence[str | None]) -> None:
    """What was there before a corpus grew is not made anew by a build."""
    if None in committed[: len(plan.kept)]:
        raise CorpusError(
            f"{store.uri}: the shard of {part_name(committed.index(None))} is damaged or gone: `brickyard repair`"
        )


def _forget_quarantined(store: Store, commits: list[Commit | None], plan: Plan) -> None:
    """Take back the commits of tasks with quarantined scenes; the corpus is unfinished from here on."""
    numbers = range(len(plan.kept), len(commits))
    lossy = [task for task in numbers if (commit := commits[task]) and commit.part.quarantined]
    if lossy and store.exists(MANIFEST):
        store.delete(MANIFEST)
    for task in lossy:
        store.delete(part_name(task))
        commits[task] = None


def _run_here(job: Job, todo: Sequence[int], plan: Plan) -> Iterator[TaskResult]:
    try:
        for task in todo:
            yield checked(run_watched(job, task, plan.tasks[task], {}))
    finally:
        dismiss()


def _run_on_ray(
    job: Job,
    todo: Sequence[int],
    plan: Plan,
    *,
    cpus: int,
    address: str | None,
    ship_code: bool,
    log: EventLog,
    rates: Rates,
) -> Iterator[TaskResult]:
    with ExitStack() as stack:
        shipped = stack.enter_context(distribution_folder()) if ship_code and address is not None else None
        ray = stack.enter_context(cluster(cpus, address, shipped))
        if address is not None:
            for host in refuse_other_code(ray, plan.fingerprint["code"], job.curate):
                print(f"node {host} does not answer; the build goes on without waiting for it", file=sys.stderr)
        memory = {dataset: each["memory"] for dataset, each in rates.items() if "memory" in each}
        metrics = None if address is None else Metrics()  # a cluster of one's own for one build is not scraped
        for result in run_on_ray(ray, job, todo, plan, heartbeat=log.alive, memory=memory):
            if metrics is not None:
                metrics.count(_said(result, plan))
            yield result


def _outline(recipe: Recipe, plan: Plan, todo: Sequence[int], cpus: int, address: str | None) -> dict[str, Any]:
    """What a run is about to do."""
    return {
        "recipe": recipe.name,
        "scenes": len(plan.refs),
        "tasks": len(plan.tasks),
        "todo": len(todo),
        "scenes_todo": sum(len(plan.tasks[task]) for task in todo),
        "bytes_todo": sum(ref.bytes_estimate for task in todo for ref in plan.tasks[task]),
        "missing": len(plan.missing),
        "cpus": cpus if address is None else None,
        "host": socket.gethostname(),
    }


@contextmanager
def _noted(log: EventLog) -> Iterator[None]:
    """Note why a run ends before its end."""
    try:
        yield
    except BaseException as problem:
        why = "interrupted" if isinstance(problem, KeyboardInterrupt | GeneratorExit) else str(problem)
        log.add("stopped", now=True, reason=why[:_LONGEST_REASON])
        raise


def _said(result: TaskResult, plan: Plan) -> dict[str, Any]:
    """A finished task, as the log tells it."""
    refs = plan.tasks[result.task]
    size = sum(ref.bytes_estimate for ref in refs)
    cost = {} if result.cost is None else asdict(result.cost)
    return {
        "task": result.task,
        "dataset": refs[0].dataset,
        "scenes": result.part.scenes,
        "planned": len(refs),
        "quarantined": [[q.key, q.reason] for q in result.part.quarantined],
        "bytes_in": size,
        "bytes_out": result.part.bytes,
        "seconds": result.seconds,
        "memory_declared": task_memory(size),
        **cost,
    }


def _follow(
    results: Iterator[TaskResult], plan: Plan, todo: Sequence[int], progress: ProgressCall, log: EventLog
) -> float:
    total = len(plan.refs)
    done = total - sum(len(plan.tasks[task]) for task in todo)
    quarantined, seconds = 0, 0.0
    progress(done, total, "")
    for result in results:
        done += len(plan.tasks[result.task])
        quarantined += len(result.part.quarantined)
        seconds += result.seconds
        log.add("task", **_said(result, plan))
        progress(done, total, f"{quarantined} quarantined" if quarantined else "")
    return seconds
