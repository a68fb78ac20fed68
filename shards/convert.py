"""A corpus in another container: the same scenes, byte for byte, in other files.

Each shard becomes one shard, through the commit protocol of a build: killed, it is run again and goes on. Converting
back gives the very files one started from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.containers import ContainerName
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import HEADER, EncodedScene, SceneHeader
from brickyard.shards.errors import CorpusError
from brickyard.shards.index import DESCRIPTORS, FIGURES, METADATA
from brickyard.shards.lock import only_writer
from brickyard.shards.parts import read_part
from brickyard.shards.scene import Identity
from brickyard.shards.storage import Store

Progress = Callable[[int, int], None]

_ABOUT = ("name", "config", "code", "notices")


def convert(
    corpus: Corpus, out: Store, container: ContainerName, *, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Write `corpus` to `out` in the given container; returns the new manifest.

    Raises:
        CorpusError: `out` holds something else, or another process writes there.
        CorruptDataError: a blob of the corpus is damaged; nothing damaged is ever copied.
    """
    fingerprint = {"converted_from": corpus.manifest["digest"], "container": container}
    build = fingerprint_digest(fingerprint)
    about = {name: corpus.manifest[name] for name in _ABOUT if name in corpus.manifest}
    about |= {"converted_from": corpus.manifest["digest"]}
    with only_writer(out):
        start_build(out, fingerprint)
        shards = rows_by_shard(corpus)
        for done, (task, rows) in enumerate(shards):
            progress(done, len(shards))
            if read_part(out, task, build) is None:
                commit_task(out, task, build, [stored_scene(corpus, row) for row in rows], [], container=container)
        progress(len(shards), len(shards))
        tasks = [task for task, _ in shards]  # there is no shard of a task that lost all its scenes
        return finish_build(out, tasks, build, corpus.quarantine, about)


def stored_scene(corpus: Corpus, row: int) -> EncodedScene:
    """A scene as it was encoded, its blobs verified but not decoded."""
    places = corpus.addresses(row)
    blobs = {name: bytes(corpus.read_blob(row, name, place)) for name, place in places.items()}
    return encoded_scene(blobs, summary_of(corpus, row))


def encoded_scene(blobs: dict[str, bytes], summary: dict[str, Any]) -> EncodedScene:
    """A scene from its verified blobs, the header among them."""
    identity = SceneHeader(blobs[HEADER]).identity
    rest = {name: blob for name, blob in blobs.items() if name != HEADER}
    return EncodedScene(identity=identity, header=blobs[HEADER], blobs=rest, summary=summary)


def summary_of(corpus: Corpus, row: int) -> dict[str, Any]:
    """The columns of the index that are no part of a scene's identity, as `encode_scene` made them."""
    return summary_entries(corpus.index.slice(row, 1).to_pylist()[0])


def summary_entries(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Of a row of the index, as `summary_of`."""
    mine = [name for name in METADATA.names if name != "key" and name not in Identity.__dataclass_fields__]
    mine.append(FIGURES.name)
    mine += [field.name for field in DESCRIPTORS if entry.get(field.name) is not None]
    return {name: entry[name] for name in mine}


def rows_by_shard(corpus: Corpus) -> list[tuple[int, Sequence[int]]]:
    """(number of the shard, its rows) in order; the number is the one in its name, and some may be left out."""
    found: dict[str, list[int]] = {}
    for row in range(len(corpus)):
        found.setdefault(corpus.shard(row), []).append(row)
    numbered: dict[int, list[int]] = {}
    for name, rows in found.items():
        number = name.removeprefix("shards/").partition("-")[0]
        if not number.isdecimal() or len(number) > 9 or int(number) in numbered:
            raise CorpusError(f"{corpus.store.uri} has a shard {name!r}, whose name begins with no number of its own")
        numbered[int(number)] = rows
    return sorted(numbered.items())
