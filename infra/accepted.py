"""Code that changed after a build was begun: what differs, and going on all the same where that is wanted.

A part is signed by the code of its dataset (`infra.task.Job.builds`). Where a dataset has no part yet, its new code is
taken. Where it has, the build is refused with the modules and libraries that differ; `--accept-code` keeps those parts,
makes the others by the new code, and from then on `build.json` holds the former code among the `accepted`, the manifest
which parts are by which code. Corpora of the time when whole folders were digested are recognised and accepted
the same way.

Crashes: the manifest goes first, then `build.json` changes in one piece. The same command does the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from brickyard.infra.plan import Plan
from brickyard.infra.task import Job
from brickyard.shards.build import BUILD, differences, fingerprint_bytes
from brickyard.shards.corpus import MANIFEST
from brickyard.shards.documents import MAX_BYTES, Every, Maybe, read_document
from brickyard.shards.errors import CorpusError
from brickyard.shards.parts import Commit, read_inputs, side_by_side
from brickyard.shards.storage import Store

_FLAG = "--accept-code"
_GROWN = {
    "tasks": int, "signed": str, "config": dict, "sources": [{"dataset": str, "options": dict}], "code": [dict],
    "missing": [{"key": str, "reason": str}], "retry": bool,
    "was": [{"corpus": str, "fingerprint": str, "scenes": int}],
}  # fmt: skip
_SHAPE = {"config": dict, "inputs": dict, "accepted": Maybe(Every([Every(str)])), "grown": Maybe(_GROWN)}

Code = Mapping[str, Mapping[str, str]]
"""Dataset -> what `infra.fingerprint.code_of` gives."""


def begun(store: Store) -> dict[str, Any] | None:
    """The fingerprint in the folder; None where there is none that is whole."""
    if not store.exists(BUILD):
        return None
    data = store.read(BUILD, most=MAX_BYTES)
    try:
        code = Every(str) if _is_former(read_document(data, BUILD, {"code": dict})["code"]) else Every(Every(str))
        return read_document(data, BUILD, _SHAPE | {"code": code})
    except CorpusError:
        return None


def _is_former(code: Mapping[str, Any]) -> bool:
    """Whether it is of a former version, which took whole folders for the code of all datasets."""
    return code.keys() >= {"shards", "curate", "ingest"}


def check_code(store: Store, plan: Plan, *, accept: bool) -> Plan:
    """The plan, with the former code that was accepted, before or now.

    Args:
        accept: keep the parts that former code made.

    Raises:
        CorpusError: another configuration, or parts that other code has made.
    """
    store.refuse_links()
    if (before := begun(store)) is None:
        return plan
    now: Code = plan.fingerprint["code"]
    former = _by_dataset(before["code"], now)
    changed = [name for name in now if former.get(name) != now[name]]
    if config := differences(before["config"], plan.fingerprint["config"], "config"):
        lines = [*config, *code_differences(former, now)]
        way_out = "restore the former recipe and version; `--grow` adds scenes and sources."
        raise _refusal(store, "a different build", lines, way_out)
    kept = set(changed) & _datasets_of_parts(store, changed) if changed else set()
    if kept and not accept:
        lines = code_differences(*({name: code.get(name, {}) for name in kept} for code in (former, now)))
        way_out = f"`brickyard build {_FLAG}` keeps the parts that are there and records which code made which."
        raise _refusal(store, "other code", lines, way_out)
    accepted = {name: list(codes) for name, codes in before.get("accepted", {}).items()}
    for name in changed:
        older = [former[name]] if name in kept and name in former else []
        accepted[name] = [code for code in older + accepted.get(name, []) if code != now[name]]
    accepted = {name: codes for name, codes in accepted.items() if codes}
    code = {"code": dict(now)} | ({"accepted": accepted} if accepted else {})
    if changed:
        if store.exists(MANIFEST):
            store.delete(MANIFEST)
        store.write(BUILD, fingerprint_bytes({n: v for n, v in before.items() if n not in ("code", "accepted")} | code))
    return replace(plan, fingerprint=plan.fingerprint | code)


def _by_dataset(code: Mapping[str, Any], datasets: Iterable[str]) -> Code:
    return dict.fromkeys(datasets, code) if _is_former(code) else code


def _datasets_of_parts(store: Store, all_of_them: Iterable[str]) -> set[str]:
    """Those that have parts; all where a part does not say whose it is, or the corpus is finished."""
    if store.exists(MANIFEST):
        return set(all_of_them)
    found: set[str] = set()
    for known, _ in side_by_side(partial(read_inputs, store), store.list("parts")):
        found |= {key.partition("/")[0] for key in known} if known else set(all_of_them)
    return found


def _refusal(store: Store, by: str, lines: Sequence[str], way_out: str) -> CorpusError:
    shown = "\n  ".join(lines)
    return CorpusError(
        f"{store.uri} was begun by {by}; continuing would mix the two. What differs:\n  {shown}\n"
        f"Build into another folder, or {way_out}"
    )


def code_differences(before: Code, after: Code) -> list[str]:
    """A line for every module and library that differs, with the datasets concerned; at most 20."""
    found: dict[str, list[str]] = defaultdict(list)
    for dataset, now in sorted(after.items()):
        was = before.get(dataset, {})
        old = _is_former(was)
        if old and was != now:
            found["its code was fingerprinted by whole folders; whether it is the same cannot be told"].append(dataset)
        for name in sorted(was.keys() | now.keys()):
            both = name in was and name in now and name != "brickyard"  # a version then, a package now
            if was.get(name) != now.get(name) and (both or not old):
                found[f"{name}: was {was.get(name, 'not there')}, is {now.get(name, 'not there')}"].append(dataset)
    lines = [f"{line} (for {', '.join(datasets)})" for line, datasets in found.items()]
    return lines if len(lines) <= 20 else [*lines[:20], f"... and {len(lines) - 20} more"]


def parts_by_code(plan: Plan, job: Job, builds: Sequence[str]) -> list[dict[str, Any]]:
    """For the manifest, what code made which parts: [{"dataset", "parts": "0-3, 7", "code"}].

    Args:
        builds: what the part of each task is signed with.
    """
    made: dict[tuple[str, int], list[int]] = defaultdict(list)
    for task, (refs, build) in enumerate(zip(plan.tasks, builds, strict=True)):
        if task >= len(plan.kept):
            made[refs[0].dataset, job.builds(refs).index(build)].append(task)
    return [
        *plan.fingerprint.get("grown", {"code": ()})["code"],
        *(
            {"dataset": name, "parts": _ranges(numbers), "code": _codes(plan.fingerprint, name)[age]}
            for (name, age), numbers in sorted(made.items())
        ),
    ]


def _codes(fingerprint: Mapping[str, Any], dataset: str) -> list[Mapping[str, str]]:
    return [fingerprint["code"][dataset], *fingerprint.get("accepted", {}).get(dataset, ())]


def _ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 7] -> "0-2, 7"."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda item: item[1] - item[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def signatures(job: Job, plan: Plan, commits: Sequence[Commit | None]) -> list[str | None]:
    """What the committed part of each task is signed with, of all that it may be; None if there is no such part."""
    return [
        commit.build if commit is not None and (task < len(plan.kept) or commit.build in job.builds(refs)) else None
        for task, (refs, commit) in enumerate(zip(plan.tasks, commits, strict=True))
    ]
