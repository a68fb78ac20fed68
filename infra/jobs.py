"""Builds handed to a cluster: Ray's job server runs the driver there, so a laptop may close.

What travels: this `brickyard` as it is installed here (libraries are the nodes' own, and are compared), and the recipe
as one file, with absolute roots. A root with credentials in it is refused: a job server shows what it was given.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from brickyard.infra.layers import compose_recipe, with_absolute_roots, with_variables
from brickyard.infra.nodes import distribution_folder
from brickyard.infra.recipe import Recipe
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.uri import redact

RECIPE = "recipe.yaml"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_ANSWER_S = 60.0
_NO_AGENT = "No available agent"
_INSTEAD = "give them to the nodes by their environment, files or role"


def portable_recipe(path: Path, settings: Sequence[str]) -> str:
    """The recipe as YAML that means the same on another machine; raises `RecipeError`."""
    composed = with_absolute_roots(with_variables(compose_recipe(path, settings)), path.resolve().parent)
    recipe = composed.load(Recipe)
    for number, source in enumerate(recipe.sources):
        source.resolve()
        if "://" in source.root and redact(source.root) != source.root:
            raise RecipeError(
                f"sources[{number}] ({source.dataset}): the root holds credentials, which a job server would show:"
                f" {_INSTEAD}"
            )
    return yaml.safe_dump(composed.plain(), sort_keys=False, allow_unicode=True)


def submit_build(client: Any, recipe: str, out: str, flags: Sequence[str]) -> str:
    """Hand a build over; returns the id of the job.

    Args:
        client: `ray.job_submission.JobSubmissionClient`.
        recipe: YAML, of `portable_recipe`.
        out: the corpus: a URI, or a path that all nodes share.
        flags: further ones of `brickyard build`.

    Raises:
        BrickyardError: what the server answers; credentials in `out`.
    """
    if "://" in out and redact(out) != out:
        raise BrickyardError(f"--out {redact(out)} holds credentials, which a job server would show: {_INSTEAD}")
    words = ["python", "-m", "brickyard.infra.cli", "build", RECIPE, "--out", out, "--address", "auto", *flags]
    with distribution_folder() as folder:
        (folder / RECIPE).write_text(recipe, encoding="utf-8")
        deadline = time.monotonic() + _ANSWER_S
        while True:
            try:
                with _told():
                    job: str = client.submit_job(
                        entrypoint=shlex.join(words), runtime_env={"working_dir": str(folder)}, metadata={"out": out}
                    )
                return job
            except BrickyardError as problem:  # the server answers before the agent that starts jobs has started
                if _NO_AGENT not in str(problem) or time.monotonic() > deadline:
                    raise


def connect(address: str) -> Any:
    """A client of the job server; raises `BrickyardError` where none answers.

    The server's token is taken from the environment, as Ray does (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN).
    """
    from ray.job_submission import JobSubmissionClient

    with _told(address):
        return JobSubmissionClient(address)


def state(client: Any, job: str) -> str:
    """ "PENDING", "RUNNING", or one of `ENDED`; raises `BrickyardError` for a job that is not known."""
    with _told(job):
        return str(client.get_job_status(job).value)


def follow(client: Any, job: str, show: Callable[[str], None]) -> str:
    """Show what the job prints until it ends; returns its last state."""

    async def lines() -> None:
        async for text in client.tail_job_logs(job):
            show(text)

    while state(client, job) == "PENDING":
        time.sleep(0.5)
    with _told(job):
        asyncio.run(lines())
    deadline = time.monotonic() + _ANSWER_S
    while (found := state(client, job)) not in ENDED and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def stop(client: Any, job: str) -> str:
    """Ask the job to stop, wait until it has; returns its last state. What is committed stays."""
    with _told(job):
        client.stop_job(job)
    deadline = time.monotonic() + _ANSWER_S
    while (found := state(client, job)) not in ENDED and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def known(client: Any) -> Iterator[dict[str, Any]]:
    """{"job", "state", "out", "message"} of every job that the server knows and that was submitted as one."""
    with _told():
        jobs = client.list_jobs()
    for job in sorted(jobs, key=lambda job: job.start_time or 0):
        if job.submission_id:
            out = (job.metadata or {}).get("out")
            yield {"job": job.submission_id, "state": job.status.value, "out": out, "message": job.message}


@contextmanager
def _told(what: str = "the job server") -> Iterator[None]:
    """What Ray raises, as a sentence."""
    from ray.exceptions import RayError

    try:
        yield
    except (ConnectionError, RayError, RuntimeError, ValueError) as problem:
        lines = [line for line in str(problem).splitlines() if line.strip()] or [repr(problem)]
        raise BrickyardError(f"{what}: {lines[0].strip()}") from None
