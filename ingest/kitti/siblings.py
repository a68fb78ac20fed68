"""What a whole sequence lacks that its siblings have: a folder that was not downloaded, or is lost, as a notice.

A single file that is not there is counted in its scene. A folder that is not there at all looks as if it had never been
wanted, unless another sequence of the split has one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeAlias

from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.storage import Store

Items: TypeAlias = Iterator[SceneRef | Missing]


def tell_lacks(plan: Callable[[Store, Any], Items]) -> Callable[[Store, Any], Items]:
    """The plan, and after its items a `Notice` for each sequence and each role of `SceneRef.files` that it lacks."""

    @wraps(plan)
    def told(store: Store, options: Any) -> Items:
        return _tell(plan(store, options))

    return told


def _tell(items: Items) -> Items:
    scenes: Counter[tuple[str, str, str]] = Counter()
    roles: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for item in items:
        if isinstance(item, SceneRef):
            key = item.dataset, item.split, item.sequence
            scenes[key] += 1
            roles[key] |= item.files.keys()
        yield item
    for (dataset, split, sequence), mine in roles.items():
        siblings = [of for (_, other, _), of in roles.items() if other == split]
        for role in sorted(set().union(*siblings) - mine):
            count = scenes[dataset, split, sequence]
            reason = f"none of its {count:,} scenes has {role}, which other sequences of its split have"
            yield Notice(dataset=dataset, scene_id=sequence, reason=reason)
