"""What differs between two corpora, at the level of scenes and fields, from their indices alone.

Equal blobs have equal digests, so no shard is read; containers and the division into shards do not matter. A field
differs where its stored bytes do, and that is also so when only its compression does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brickyard.shards.corpus import Corpus
from brickyard.shards.index import METADATA

_NOT_COMPARED = {"key", "raw_bytes"}


@dataclass(frozen=True)
class Difference:
    """Two corpora compared.

    Attributes:
        only_first, only_second: keys of scenes that the other one has not.
        changed: key -> what differs: names of fields ("points/xyz"), with "+" or "-" before those that only the second
            or only the first has, and of columns of the index ("split").
        same: scenes equal in all of it.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    same: int

    @property
    def equal(self) -> bool:
        return not (self.only_first or self.only_second or self.changed)


def diff(first: Corpus, second: Corpus) -> Difference:
    """Compare two corpora; O(scenes * fields) in time, the two indices in memory."""
    other = {key: row for row, key in enumerate(second.keys)}
    columns = [name for name in METADATA.names if name not in _NOT_COMPARED]
    one, two = (corpus.index.select(columns).to_pylist() for corpus in (first, second))
    changed: dict[str, tuple[str, ...]] = {}
    only_first = []
    for row, key in enumerate(first.keys):
        if key not in other:
            only_first.append(key)
            continue
        a, b = one[row], two[other[key]]
        names = [name for name in columns if a[name] != b[name]] + _fields(first, row, second, other[key])
        if names:
            changed[key] = tuple(names)
    mine = set(first.keys)
    only_second = tuple(key for key in second.keys if key not in mine)
    return Difference(tuple(only_first), only_second, changed, len(first) - len(only_first) - len(changed))


def _fields(first: Corpus, row: int, second: Corpus, other: int) -> list[str]:
    a, b = first.addresses(row), second.addresses(other)
    found = []
    for name in dict.fromkeys([*a, *b]):
        if name not in b or name not in a:
            found.append(f"-{name}" if name in a else f"+{name}")
        elif (a[name].length, a[name].digest) != (b[name].length, b[name].digest):
            found.append(name)
    return found
