"""The blobs of a scene in few requests: from the cache, and the rest by ranges that span neighbours.

A scene has 10-40 blobs that lie side by side in its shard; asked for one by one from a store 20 ms away they would cost
0.2-0.8 s. Wanted blobs with less than 64 KiB of unwanted bytes between them are therefore one range, of at most 8 MiB
(or one blob). Each blob is verified on its own, whether it comes from the store or from the cache; one that is not what
was written is left out, so that whoever wants it asks the store for it alone, and learns what is wrong.

Memory of a call: the sum of its ranges (a scene's wanted bytes plus at most 64 KiB for each gap), and what the store
needs for the requests under way (see `shards.storage`). Blobs are views into their range: keeping one keeps the range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brickyard.shards.cache import Cache
from brickyard.shards.codecs import Allocate
from brickyard.shards.index import Address
from brickyard.shards.storage import Store, digest64

GAP = 64 << 10
"""At 50-100 MB/s a connection, reading so much more costs 1 ms; another request costs 10-100 ms."""

LONGEST = 8 << 20


def coalesce(places: Sequence[Address], gap: int = GAP, longest: int = LONGEST) -> list[list[Address]]:
    """Groups of blobs, by offset, that are to be read with one range each."""
    groups: list[list[Address]] = []
    begin = end = 0
    for place in sorted(places, key=lambda p: (p.offset, p.length)):
        after = place.offset + place.length
        if groups and place.offset - end <= gap and max(end, after) - begin <= longest:
            groups[-1].append(place)
            end = max(end, after)
        else:
            groups.append([place])
            begin, end = place.offset, after
    return groups


def fetch(
    store: Store, cache: Cache | None, shard: str, places: Mapping[str, Address], allocate: Allocate
) -> dict[str, memoryview]:
    """Field -> verified bytes, of those blobs of one scene that could be had whole.

    Raises:
        OSError: the store does not answer.
    """
    found: dict[str, memoryview] = {}
    missing: dict[Address, list[str]] = {}
    for field, place in places.items():
        if place.length <= 0 or place.offset < 0:
            continue
        if cache is not None and (blob := from_cache(cache, shard, place, allocate)) is not None:
            found[field] = blob
        else:
            missing.setdefault(place, []).append(field)
    size = (store.size(shard) or 0) if missing else 0
    groups = coalesce([place for place in missing if place.offset + place.length <= size])
    ranges = []
    for group in groups:
        begin = group[0].offset
        ranges.append((begin, allocate(max(place.offset + place.length for place in group) - begin)))
    counts = store.read_ranges(shard, ranges)
    for group, (begin, memory), count in zip(groups, ranges, counts, strict=True):
        for place in group:
            start = place.offset - begin
            blob = memory[start : start + place.length]
            if start + place.length <= count and digest64(blob) == place.digest:
                found |= dict.fromkeys(missing[place], blob)
                if cache is not None:
                    cache.put(shard, place, blob)
    return found


def from_cache(cache: Cache, shard: str, place: Address, allocate: Allocate) -> memoryview | None:
    """The verified bytes of a blob, or None where the cache has not got them whole; damaged ones are deleted."""
    if not cache.has(shard, place):
        return None
    memory = allocate(place.length)
    if not cache.get(shard, place, memory):
        return None
    if digest64(memory) != place.digest:
        cache.drop(shard, place)
        return None
    return memory
