"""What interrupted work has left in a folder and nothing refers to: found, and on request deleted.

| what | who leaves it | the next run of the same command |
|---|---|---|
| `.partial-*`, anywhere | a writer that was killed | removes it, or takes it over |
| a shard without a commit record | a task that ended before its record was written | writes it again |
| `parts/NNNNN-quarantined.parquet` of no record | the same, with a long list of lost scenes | writes it again |
| `quarantined.parquet` or `notices.parquet` of no manifest | a build that lost more scenes before | removes it |

So nothing here has to be deleted; it is for folders in which the command is not run again. What a manifest or a commit
record names is never touched, whatever it looks like, nor a file under a name that no build gives. Selections name
scenes, whose shards the manifest names. Where a manifest or a record cannot be read, nothing is known, and nothing is
deleted that it may have named.

On a disk the lock of the folder is held meanwhile, and a temporary file that is being written is left alone. An object
store has no locks, and no temporary files; there a shard counts as left behind when it is a day old, by the store's own
clock. Parts of an upload that was cut off are not to be seen through its interface and cost money all the same: have
the bucket drop them (AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from brickyard.shards.atomic import TEMPORARY
from brickyard.shards.build import BUILD, LISTS, OUR_SHARD
from brickyard.shards.corpus import MANIFEST, read_manifest
from brickyard.shards.documents import MAX_BYTES
from brickyard.shards.errors import CorpusError
from brickyard.shards.export.folder import RECORD
from brickyard.shards.layers import layer_names
from brickyard.shards.lock import only_writer
from brickyard.shards.parts import read_names, side_by_side
from brickyard.shards.quarantine import MOVED
from brickyard.shards.storage import Store

DAY_S = 86_400.0
_OUR_RECORD = re.compile(r"\d{5,}\.parquet")
_OUR_LIST = re.compile(r"(\d{5,})-[a-z]+\.parquet")
_CLOCK = "gc.probe"
"""A file that is written to learn what time it is in an object store."""


@dataclass(frozen=True)
class Orphan:
    """A file that nothing refers to.

    Attributes:
        name: in the folder.
        bytes: its size.
        why: what it is.
    """

    name: str
    bytes: int
    why: str


def collect(store: Store, *, delete: bool = False, older_s: float = DAY_S) -> list[Orphan]:
    """The orphans of a corpus, of an unfinished build or of an export, those of its layers included.

    Args:
        delete: them, too.
        older_s: in an object store, leave what is younger than so many seconds.

    Raises:
        CorpusError: the folder is none of ours, another process writes there, or its manifest is damaged.
        OSError: a folder cannot be listed.
    """
    store.refuse_links()
    if not any(store.exists(name) for name in (BUILD, MANIFEST, RECORD)):
        raise CorpusError(f"{store.uri} holds no corpus, no build and no export: nothing is looked for there")
    found = [orphan for orphan in _temporaries(store) if not delete or store.delete_abandoned(orphan.name)]
    for name in ["", *(f"layers/{name}/" for name in layer_names(store))]:
        inside = store.below(name.rstrip("/")) if name else store
        if not inside.exists(BUILD) and not inside.exists(MANIFEST):
            continue  # an export has no records, and each of its files is complete by itself
        with only_writer(inside):
            unnamed = _settled(inside, list(_unnamed(inside)), older_s)
            for orphan in unnamed if delete else ():
                inside.delete(orphan.name)
        found += [Orphan(name + orphan.name, orphan.bytes, orphan.why) for orphan in unnamed]
    return found


def _temporaries(store: Store) -> Iterator[Orphan]:
    for name in store.walk():
        if name.rpartition("/")[2].startswith(TEMPORARY):
            yield Orphan(name, store.size(name) or 0, "a file that was not written to its end")


def _unnamed(store: Store) -> Iterator[Orphan]:
    """Files under names that builds give, which neither the manifest nor a commit record knows."""
    known, unreadable = _known(store)
    for name in LISTS:
        if (size := store.size(f"{name}.parquet")) is not None and f"{name}.parquet" not in known:
            yield Orphan(f"{name}.parquet", size, "a list that the manifest does not name")
    for folder, ours, why in (
        ("parts", _OUR_LIST, "a list that no commit record names"),
        ("shards", OUR_SHARD, "a shard without a commit record"),
    ):
        for name, size in sorted(store.sizes(folder).items()):
            match = ours.fullmatch(name)
            if match and match[1] not in unreadable and f"{folder}/{name}" not in known:
                yield Orphan(f"{folder}/{name}", size, why)


def _known(store: Store) -> tuple[set[str], set[str]]:
    """(files that are named, numbers of the commit records that cannot be read)."""
    known: set[str] = set()
    if store.exists(MANIFEST):
        manifest = read_manifest(store.read(MANIFEST, most=MAX_BYTES), f"{store.uri}/{MANIFEST}")
        known |= {shard["name"] for shard in manifest["shards"]}
        known |= {entry["file"] for entry in manifest.get(MOVED, {}).values()}
    records = [name for name in store.list("parts") if _OUR_RECORD.fullmatch(name)]
    named = dict(zip(records, side_by_side(partial(read_names, store), records), strict=True))
    known |= {file for files in named.values() for file in files or ()}
    return known, {name.removesuffix(".parquet") for name, files in named.items() if files is None}


def _settled(store: Store, found: list[Orphan], older_s: float) -> list[Orphan]:
    """Those that no running build may be about to name."""
    if store.local or not found or older_s <= 0:
        return found
    store.write(_CLOCK, b"")
    try:
        return [orphan for orphan in found if store.age(orphan.name, _CLOCK) >= older_s]
    finally:
        store.delete(_CLOCK)
