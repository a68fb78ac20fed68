"""The commit protocol: how a corpus comes to be, so that a crash at any moment costs at most one shard's work.

| power fails ...                    | on disk                                   | the rerun                           |
|------------------------------------|-------------------------------------------|-------------------------------------|
| before anything                    | nothing                                   | starts                              |
| after build.json                   | the fingerprint                           | continues if it is the same build   |
| while a shard is written           | a temporary file                          | removes it, does the shard again    |
| after a shard, before its part     | a shard nobody knows                      | writes the same shard again         |
| after a part                       | a committed shard                         | skips it                            |
| before manifest.json               | everything but a corpus; readers refuse   | writes index and manifest           |
| after manifest.json                | the corpus                                | finds nothing to do                 |

Shard names end in the digest of their content; equal inputs give equal files, so writing one twice is harmless. All
crash points, of layers, repairs and exports too, with a test each, are in docs/recovery.md.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pyarrow as pa
import xxhash

from brickyard.shards.atomic import TEMPORARY
from brickyard.shards.containers import CONTAINERS, ContainerName
from brickyard.shards.corpus import INDEX, MANIFEST, MANIFEST_FORMAT, Corpus, manifest_digest, read_manifest
from brickyard.shards.documents import MAX_BYTES, document_bytes, read_document
from brickyard.shards.encode import FORMAT_VERSION, EncodedScene
from brickyard.shards.errors import CorpusError
from brickyard.shards.index import SCHEMA, Quarantined, index_rows, write_index
from brickyard.shards.lock import LOCK
from brickyard.shards.parts import Part, part_name, read_part, side_by_side
from brickyard.shards.quarantine import MOVED, printable, put_lists
from brickyard.shards.storage import Store, digest64

BUILD = "build.json"
OUR_SHARD = re.compile(r"(\d{5,})-[0-9a-f]{16}\.(parquet|tar)")
"""What a build may delete in shards/: only names that it gives."""
LISTS = ("quarantined", "notices")
"""Lists of a manifest, which lie in files of their own where they are long."""


class OtherBuild(CorpusError):
    """A build with another fingerprint was begun in the folder."""


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """16 hex digits that stand for a fingerprint (configuration, code, inputs)."""
    return xxhash.xxh3_64_hexdigest(json.dumps(fingerprint, sort_keys=True).encode())


def fingerprint_bytes(fingerprint: Mapping[str, Any]) -> bytes:
    """What stands in build.json; raises `CorpusError` for what cannot be stored."""
    try:
        return document_bytes(fingerprint, indent=1, sort=True).strip()
    except ValueError as problem:
        raise CorpusError(f"the configuration of this build cannot be stored: {problem}") from problem


def start_build(store: Store, fingerprint: Mapping[str, Any]) -> None:
    """Begin or continue a build. Raises `CorpusError` with the differences if another build was begun here."""
    store.refuse_links()
    text = fingerprint_bytes(fingerprint)
    if not store.exists(BUILD) and BUILD not in (there := store.list()):  # another run may have just written it
        if any(name != LOCK and not name.startswith(TEMPORARY) for name in there):
            raise CorpusError(f"{store.uri} is not empty and was not begun by a build: choose another folder")
        store.write(BUILD, text)
    _remove_temporaries(store)
    before = read_document(store.read(BUILD, most=MAX_BYTES), f"{store.uri}/{BUILD}", hint="the build is damaged")
    if before != (after := read_document(text, BUILD)):
        changes = "\n  ".join(differences(before, after))
        raise OtherBuild(
            f"{store.uri} was begun by a different build; continuing would mix the two. What differs:\n  {changes}\n"
            "Build into another folder, or restore the former recipe, data and version."
        )


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """What changed between two JSON values, one line a leaf, at most 20 lines."""
    lines: list[str] = []
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            lines += differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        lines.append(f"{path}: was {json.dumps(before)[:80]}, is {json.dumps(after)[:80]}")
    return lines if len(lines) <= 20 else [*lines[:20], f"... and {len(lines) - 20} more"]


def commit_task(
    store: Store,
    task: int,
    build: str,
    scenes: Sequence[EncodedScene],
    quarantined: Sequence[Quarantined],
    *,
    container: ContainerName = "parquet",
    inputs: Mapping[str, str] | None = None,
) -> Part:
    """Write the shard of a task, then its part. After this returns, the task is done for good.

    `inputs`, key -> digest of every scene of the task, built or quarantined, are kept in the part (`read_inputs`).
    Raises `CorpusError` for what could not be read again.
    """
    store.refuse_links()
    name, data, digest, rows = None, b"", None, []
    if scenes:
        suffix, write_shard = CONTAINERS[container]
        buffer, addresses = write_shard(scenes, task)
        data, digest = buffer, xxhash.xxh3_128_hexdigest(memoryview(buffer))
        name = f"shards/{task:05d}-{digest[:16]}.{suffix}"
        store.write(name, data)
        rows = index_rows(name, scenes, addresses)
    if (other := read_part(store, task, build)) is not None:
        return other[0]  # a worker that was thought lost has done it; what is committed stays
    part = Part(task, name, len(memoryview(data)), digest, len(scenes), tuple(printable(quarantined)))
    lists = put_lists(store.write, {"quarantined": part.quarantined}, part_name(task).removesuffix(".parquet") + "-")
    note = {"build": build, "part": asdict(replace(part, quarantined=())) | lists}
    note |= {} if inputs is None else {"inputs": dict(inputs)}
    store.write(part_name(task), write_index(pa.Table.from_pylist(rows, schema=SCHEMA), note))
    return part


def finish_build(
    store: Store,
    tasks: int | Sequence[int],
    build: str,
    missing: Sequence[Quarantined],
    about: Mapping[str, Any],
    *,
    parts_of: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write index and manifest from the parts; returns the manifest, all its lists in it. Raises `CorpusError` if a
    part is not there, or if what it would write could not be read again.

    Args:
        tasks: the numbers of the tasks, or how many there are from 0 on; their parts must be committed.
        build: digest of the fingerprint.
        parts_of: what the part of each task is signed with, where that is not `build`.
        missing: scenes that were never planned because their files are not there.
        about: further entries of the manifest (recipe, versions).
    """
    store.refuse_links()
    parts: list[Part] = []
    tables: list[pa.Table] = []
    numbers = range(tasks) if isinstance(tasks, int) else tasks
    signed = [build] * len(numbers) if parts_of is None else parts_of
    for task, record in zip(numbers, side_by_side(partial(read_part, store), numbers, signed), strict=True):
        if record is None:
            raise CorpusError(f"{store.uri}: task {task} is not committed; run the build again")
        parts.append(record[0])
        tables.append(record[1])
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    keys = Counter(table.column("key").to_pylist())
    if twice := [key for key, count in keys.items() if count > 1]:
        raise CorpusError(f"{store.uri}: scene {twice[0]} was built twice; a source gives two scenes one identity")
    index = write_index(table, {"build": build})
    manifest = _manifest(build, parts, table, about) | {"index_digest": f"{digest64(index):016x}"}
    lost = [*missing, *(q for part in parts for q in part.quarantined)]
    # of what a grown corpus had lost, it may have built some, and tried others once more
    lists = {"quarantined": [q for q in {q.key: q for q in lost}.values() if q.key not in keys]}
    if "notices" in about:
        lists["notices"] = [Quarantined(**entry) for entry in about["notices"]]
    lists = {name: sorted(printable(found), key=lambda q: q.key) for name, found in lists.items()}
    _refuse_another(store, build)
    _write_manifest(store, manifest, lists, index)
    _remove_former(store, manifest, store.list("shards"))
    return manifest | {name: [{"key": q.key, "reason": q.reason} for q in found] for name, found in lists.items()}


def _refuse_another(store: Store, build: str) -> None:
    """On an object store nothing keeps two builds from beginning in one folder at the same moment; the one whose
    `build.json` was overwritten ends here."""
    if not store.exists(BUILD):
        return
    begun = read_document(store.read(BUILD, most=MAX_BYTES), f"{store.uri}/{BUILD}", hint="the build is damaged")
    if fingerprint_digest(begun) != build:
        raise CorpusError(f"{store.uri}: a different build has begun here since; build into another folder")


def _write_manifest(store: Store, manifest: dict[str, Any], lists: dict[str, list[Quarantined]], index: Any) -> None:
    """Index, long lists, manifest; nothing is written that readers would refuse."""
    files: dict[str, Any] = {INDEX: index}
    manifest |= put_lists(files.__setitem__, lists)
    if MOVED in manifest:
        manifest["format"] = MANIFEST_FORMAT
    manifest["digest"] = manifest_digest(manifest)
    try:
        text = document_bytes(manifest, indent=1, sort=True).strip()
        read_manifest(text, MANIFEST)
    except (ValueError, CorpusError) as problem:
        raise CorpusError(f"{store.uri}: its {MANIFEST} could not be read again: {problem}") from problem
    if store.exists(MANIFEST) and store.read(MANIFEST, most=MAX_BYTES) != text:
        store.delete(MANIFEST)  # it would not fit what is written now
    for name, data in files.items():
        store.write(name, data)
    store.write(MANIFEST, text)


def _manifest(build: str, parts: Sequence[Part], table: pa.Table, about: Mapping[str, Any]) -> dict[str, Any]:
    totals: dict[str, dict[str, int]] = {}
    licences: dict[str, set[str]] = {}
    for row in table.select(["dataset", "split", "licence", "n_points", "n_views", "n_pairs"]).to_pylist():
        entry = totals.setdefault(
            f"{row['dataset']}/{row['split']}", {"scenes": 0, "n_points": 0, "n_views": 0, "n_pairs": 0}
        )
        entry["scenes"] += 1
        for name in ("n_points", "n_views", "n_pairs"):
            entry[name] += row[name]
        licences.setdefault(row["licence"], set()).add(row["dataset"])
    return {
        "format": FORMAT_VERSION,
        "fingerprint": build,
        "scenes": table.num_rows,
        "totals": totals,
        "licences": {licence: sorted(datasets) for licence, datasets in licences.items()},
        "shards": [
            {"name": p.shard, "bytes": p.bytes, "digest": p.digest, "scenes": p.scenes}
            for p in parts
            if p.shard is not None
        ],
        **about,
    }


def finished(store: Store, build: str) -> Corpus | None:
    """The finished corpus of this very build, if the folder holds it with all its shards; their sizes are looked at.
    What its last step may have left undone, when it was interrupted, is done."""
    if not store.exists(MANIFEST):
        return None
    try:
        corpus = Corpus.open(store)
    except CorpusError:
        return None  # damaged: it is written again from the parts
    sizes = store.sizes("shards")
    whole = all(sizes.get(s["name"].removeprefix("shards/")) == s["bytes"] for s in corpus.manifest["shards"])
    if corpus.fingerprint != build or not whole:
        return None
    _remove_former(store, corpus.manifest, sizes)
    return corpus


def _remove_former(store: Store, manifest: Mapping[str, Any], shards: Iterable[str]) -> None:
    """Delete what a build before has left and the manifest does not know: shards, long lists."""
    known = {shard["name"] for shard in manifest["shards"]}
    for name in shards:
        if OUR_SHARD.fullmatch(name) and f"shards/{name}" not in known:
            store.delete(f"shards/{name}")
    files = {entry["file"] for entry in manifest.get(MOVED, {}).values()}
    for name in (f"{name}.parquet" for name in LISTS):
        if name not in files and store.exists(name):
            store.delete(name)


def _remove_temporaries(store: Store) -> None:
    for folder in ("", "shards/", "parts/"):
        for name in store.list(folder.rstrip("/")):
            if name.startswith(TEMPORARY) and not name.endswith("/"):
                store.delete_abandoned(folder + name)
