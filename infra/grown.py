"""`build --grow`: what the recipe plans and a finished corpus has not is added to it; what is there stays as it is.

Former shards keep their numbers, names and bytes, former rows of the index their places; new scenes come after them, in
shards of their own. A scene that was built stays as it was built: if its raw files have changed, or are not planned any
more, a notice of the manifest says so. One that was quarantined or missing is taken if its raw files are others now.
The recipe may differ in its sources; curation, shards, splits, and the options of a dataset that it still names must be
the former ones.

`build.json` then has an entry `grown`: how many parts there were, a digest over their signatures, and what the former
manifest said that the parts do not. Readers see the former corpus until index and manifest are written anew. After a
crash the same command goes on, with or without the flag.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import xxhash

from brickyard.infra.accepted import begun, code_differences
from brickyard.infra.plan import Plan, group
from brickyard.infra.task import inputs
from brickyard.shards.build import BUILD, differences, fingerprint_bytes, fingerprint_digest, start_build
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.index import Quarantined
from brickyard.shards.parts import Commit, part_name, read_commits, read_inputs, side_by_side
from brickyard.shards.storage import Store

FLAG = "--grow"
_SAME = ("curate", "shards", "splits")
_RECORD = re.compile(r"(\d{5,})\.parquet")

Fingerprint = Mapping[str, Any]


def grow(store: Store, plan: Plan, *, take: bool, retry: bool = False, accept: bool = False) -> Plan:
    """The plan for a corpus that has grown, or is to: tasks of the former parts first, then those of new scenes.

    Args:
        take: let the corpus grow by what it has not; without, only a growth that was begun goes on.
        retry: take scenes that were quarantined also where their raw files are the same.
        accept: make new scenes of a dataset by other code than its former ones.

    Raises:
        CorpusError: the corpus is unfinished or damaged, or the recipe differs in more than it may.
    """
    store.refuse_links()
    before = begun(store)
    if before is None:
        return plan
    grown = before.get("grown")
    if not take or _is_same(before, plan):
        return plan if grown is None else _after(store, plan, grown)
    finished = _finished(store, before)
    if finished is not None:
        grown = _generation(store, finished, before, retry)
    if grown is None:
        raise CorpusError(f"{store.uri} holds an unfinished build: complete it without {FLAG}, then let it grow")
    _refuse_other_settings(store, grown, plan)
    planned = _after(store, plan, grown)
    _refuse_other_code(store, before["code"], planned, accept=accept)
    start_build(store, before)  # what interrupted runs have left goes
    store.write(BUILD, fingerprint_bytes(planned.fingerprint))
    return planned


def _is_same(before: Fingerprint, plan: Plan) -> bool:
    return all(before[name] == plan.fingerprint[name] for name in ("config", "code", "inputs"))


def _finished(store: Store, before: Fingerprint) -> Corpus | None:
    """The corpus, if it is what `build.json` says."""
    if not store.exists(MANIFEST):
        return None
    corpus = Corpus.open(store)
    return corpus if corpus.fingerprint == fingerprint_digest(before) else None


def _generation(store: Store, corpus: Corpus, before: Fingerprint, retry: bool) -> dict[str, Any]:
    """What stands of a finished corpus in `build.json` while it grows, and from then on."""
    code = corpus.manifest["code"]
    if not isinstance(code, list):
        raise CorpusError(f"{store.uri} is of a former version: run `brickyard build --accept-code` before it grows")
    names = sorted(int(found[1]) for name in store.list("parts") if (found := _RECORD.fullmatch(name)))
    tasks = len(names)
    if names != list(range(tasks)):
        raise CorpusError(f"{store.uri}/parts lacks records of shards: run `brickyard repair` before it grows")
    commits = _commits(store, tasks)
    within = {q.key for commit in commits for q in commit.part.quarantined}
    former = before.get("grown") or {"sources": [], "was": []}
    sources = [*former["sources"], *before["config"]["sources"]]
    was = {"corpus": corpus.manifest["digest"], "fingerprint": corpus.fingerprint, "scenes": len(corpus)}
    return {
        "tasks": tasks,
        "signed": _signed(commits),
        "config": {name: before["config"].get(name) for name in _SAME},
        "sources": [source for place, source in enumerate(sources) if source not in sources[:place]],
        "code": code,
        "missing": [entry for entry in corpus.manifest["quarantined"] if entry["key"] not in within],
        "retry": retry,
        "was": [*former["was"], was],
    }


def _commits(store: Store, tasks: int) -> list[Commit]:
    """The records of all former parts; whether their shards are whole is seen elsewhere."""
    commits = read_commits(store, tasks, need_shard=False)
    if None in commits:
        place = f"{store.uri}/{part_name(commits.index(None))}"
        raise CorpusError(f"{place} is damaged or gone: a corpus that has grown needs it; restore it from a copy")
    return [commit for commit in commits if commit is not None]


def _signed(commits: Sequence[Commit]) -> str:
    return xxhash.xxh3_64_hexdigest("".join(commit.build for commit in commits).encode())


def _refuse_other_settings(store: Store, grown: Mapping[str, Any], plan: Plan) -> None:
    now = plan.fingerprint["config"]
    lines = differences(grown["config"], {name: now.get(name) for name in _SAME}, "config")
    for source in grown["sources"]:
        others = [other for other in now["sources"] if other["dataset"] == source["dataset"]]
        if others and source["options"] not in [other["options"] for other in others]:
            lines += differences(source["options"], others[0]["options"], f"options of {source['dataset']}")
    if lines:
        raise CorpusError(
            f"{store.uri} was built otherwise; what is added must be made as the rest. What differs:\n  "
            + "\n  ".join(lines)
            + "\nRestore the former settings, or build into another folder."
        )


def _refuse_other_code(store: Store, before: Mapping[str, Any], plan: Plan, *, accept: bool) -> None:
    """New scenes of a dataset must be made by the code of its former ones, unless the difference is accepted."""
    now = plan.fingerprint["code"]
    new = {refs[0].dataset for refs in plan.tasks[len(plan.kept) :]}
    changed = sorted(name for name in new if before.get(name) not in (None, now[name]))
    if changed and not accept:
        lines = code_differences(*({name: code[name] for name in changed} for code in (before, now)))
        raise CorpusError(
            f"{store.uri}: other code made its former scenes. What differs:\n  " + "\n  ".join(lines) + "\n"
            f"`{FLAG} --accept-code` adds scenes made by the new one; the manifest says which."
        )


def _after(store: Store, plan: Plan, grown: Mapping[str, Any]) -> Plan:
    """The plan with the former parts before it; its own tasks are of scenes that are in none of them."""
    tasks = grown["tasks"]
    commits = _commits(store, tasks)
    if _signed(commits) != grown["signed"]:
        raise CorpusError(f"{store.uri}/parts are not those it has grown from: restore them from a copy")
    now = inputs(plan.refs)
    refs = {ref.key: ref for ref in plan.refs}
    known: dict[str, str] = {}
    built: dict[str, str] = {}
    kept = []
    names = [part_name(task).removeprefix("parts/") for task in range(tasks)]
    records = side_by_side(partial(read_inputs, store), names)
    for commit, (former, lost) in zip(commits, records, strict=True):
        if commit.part.scenes and not former:
            raise CorpusError(f"{store.uri}/{part_name(commit.part.task)} is of a version whose corpora cannot grow")
        same = {key: digest for key, digest in former.items() if now.get(key) == digest}
        kept.append(tuple(refs[key] for key in same))
        built |= {key: digest for key, digest in former.items() if key not in lost}
        known |= same if not grown["retry"] else {}
    known |= built
    shards = plan.fingerprint["config"]["shards"]
    fresh = group([ref for ref in plan.refs if ref.key not in known], shards["target_mib"] << 20, shards["max_scenes"])
    sources = {source["dataset"] for source in plan.fingerprint["config"]["sources"]}
    taken = now.keys() | {item.key for item in plan.missing}
    missing = [Quarantined(**entry) for entry in grown["missing"] if entry["key"] not in taken]
    return replace(
        plan,
        tasks=(*kept, *fresh),
        kept=tuple(commit.build for commit in commits),
        missing=(*plan.missing, *missing),
        notices=(*plan.notices, *_stay(built, now, sources)),
        fingerprint={**plan.fingerprint, "grown": dict(grown)},
    )


def _stay(built: Mapping[str, str], now: Mapping[str, str], sources: set[str]) -> Iterator[Quarantined]:
    """What is told of scenes that are in the corpus and are not, or otherwise, in the raw data as planned now."""
    absent = Counter(key.partition("/")[0] for key in built if key.partition("/")[0] not in sources)
    for dataset, scenes in sorted(absent.items()):
        yield Quarantined(dataset, f"its {scenes:,} scenes stay as they were built: it is no source of the recipe now")
    for key, digest in built.items():
        if key.partition("/")[0] in sources and now.get(key) != digest:
            why = "have changed" if key in now else "are not planned any more"
            yield Quarantined(key, f"stays as it was built: its raw files {why}")
