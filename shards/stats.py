"""What a corpus holds and where its bytes go, from its index alone."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from brickyard.shards.corpus import INDEX, Corpus
from brickyard.shards.documents import Every, read_document
from brickyard.shards.reasons import kind

_ITEMS = {"views/*/pairs": "n_pairs", "views/*/pair_depth": "n_pairs"}
_COUNTS = ("n_points", "n_views", "n_pairs", "raw_bytes")


@dataclass(frozen=True)
class Stats:
    """Sums over a corpus.

    Attributes:
        parts: "dataset/split" -> {"scenes", "n_points", "n_views", "n_pairs", "raw_bytes", "bytes"}.
        fields: field, with * for the number of a view -> {"blobs", "bytes", "items"}; items are the points (or pairs)
            of the scenes that have the field, 0 for fields that are per image.
        dropped: what readers left out, and how often.
        quarantined: kind of reason (see `shards.reasons.kind`) -> scenes.
    """

    parts: dict[str, dict[str, int]]
    fields: dict[str, dict[str, int]]
    dropped: dict[str, int]
    quarantined: dict[str, int]


def stats(corpus: Corpus) -> Stats:
    """Count; O(scenes * fields)."""
    parts: dict[str, dict[str, int]] = {}
    fields: dict[str, dict[str, int]] = {}
    dropped: Counter[str] = Counter()
    rows: list[dict[str, Any]] = corpus.index.select(["key", "dataset", "split", "dropped", *_COUNTS]).to_pylist()
    for number, row in enumerate(rows):
        part = parts.setdefault(f"{row['dataset']}/{row['split']}", dict.fromkeys(("scenes", *_COUNTS, "bytes"), 0))
        part["scenes"] += 1
        for name in _COUNTS:
            part[name] += row[name]
        met = set()
        for field, place in corpus.addresses(number).items():
            name = re.sub(r"/\d+/", "/*/", field)
            entry = fields.setdefault(name, {"blobs": 0, "bytes": 0, "items": 0})
            if name not in met:
                met.add(name)
                entry["items"] += row[_ITEMS[name]] if name in _ITEMS else row["n_points"] * name.startswith("points/")
            entry["blobs"] += 1
            entry["bytes"] += place.length
            part["bytes"] += place.length
        where = f"{corpus.store.uri}/{INDEX}: what scene {row['key']} dropped"
        dropped.update(read_document(row["dropped"], where, Every(int)))
    reasons = Counter(kind(entry.key, entry.reason) for entry in corpus.quarantine)
    return Stats(parts, dict(sorted(fields.items())), dict(sorted(dropped.items())), dict(reasons.most_common()))
