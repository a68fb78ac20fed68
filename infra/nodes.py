"""The code on the nodes of a cluster: brought along if need be, and the same on all of them, or nothing is built.

A part is signed with the code that made it. If a node ran other code, or another version of a library, the signature
would lie; so every node is asked before the first task, and nodes that join later are asked by their first task.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from brickyard.curate.pipeline import CurateConfig
from brickyard.infra.fingerprint import OURS, code_of
from brickyard.shards.build import fingerprint_digest
from brickyard.shards.errors import BrickyardError

Code = Mapping[str, Mapping[str, str]]
"""Dataset -> module or library -> digest or version; see `infra.fingerprint.code_of`."""
_ASKED_S = 120.0
_SHOWN = 5
_KEPT = ("METADATA", "entry_points.txt", "WHEEL", "RECORD")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "tests")


@contextmanager
def distribution_folder() -> Iterator[Path]:
    """A folder that holds what is installed here as `brickyard`, with its entry points: Ray copies it to nodes.

    Libraries are not in it; those are the nodes' own, and are compared.
    """
    with TemporaryDirectory(prefix="brickyard-") as folder:
        spec = find_spec(OURS)
        (package,) = [] if spec is None else spec.submodule_search_locations or []
        shutil.copytree(package, Path(folder) / OURS, ignore=_LEFT_OUT)
        known = distribution(OURS)
        info = Path(folder) / f"{OURS}-{known.version}.dist-info"
        info.mkdir()
        for name in _KEPT:
            if (text := known.read_text(name)) is not None:
                (info / name).write_text(text)
        yield Path(folder)


def code_here(datasets: Iterable[str], curation: CurateConfig) -> Code:
    """The code of these datasets where this runs."""
    return {dataset: code_of(dataset, curation) for dataset in datasets}


def refuse_other_code(ray: Any, code: Code, curation: CurateConfig) -> list[str]:
    """Ask every node that is there; raises `BrickyardError` with the first that differs, and in what.

    Returns the hosts that did not answer in time: frozen ones, or cut off. They hold nothing up, and their first task
    asks them again.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=1)(code_here)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = ask.options(scheduling_strategy=there).remote(list(code), curation)
            asked[answer] = node["NodeManagerHostname"]
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ASKED_S)
    for answer in answered:
        host = asked[answer]
        try:
            found = ray.get(answer)
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            continue  # it has died since it was listed, and will make nothing
        except ray.exceptions.RayError as problem:
            cause = getattr(problem, "cause", None) or problem
            raise BrickyardError(
                f"node {host} cannot say what code it has ({type(cause).__name__}: {cause}); it needs the libraries of"
                " brickyard[ingest] in the versions of the driver"
            ) from problem
        if lines := _differences(code, found):
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            raise BrickyardError(
                f"node {host} has other code than this driver: {'; '.join(lines[:_SHOWN])}{more}. Shards that it made"
                " would be signed with code that did not make them: install the same there"
            )
    return [asked[answer] for answer in silent]


def _differences(ours: Code, theirs: Code) -> list[str]:
    """Module or library, there and here, each once."""
    found = {}
    for dataset, code in ours.items():
        other = theirs.get(dataset, {})
        for name in sorted(code.keys() | other.keys()):
            if code.get(name) != other.get(name):
                found[name] = f"{name} is {other.get(name, 'not there')}, here {code.get(name, 'not there')}"
    return list(found.values())


@cache
def code_digest(dataset: str, curation: CurateConfig) -> str:
    """16 hex digits that stand for `code_of` in this process; worked out once."""
    return fingerprint_digest(code_of(dataset, curation))
