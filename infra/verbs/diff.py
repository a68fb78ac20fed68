"""`brickyard diff`: what differs between two corpora, or between two selections (names that end in .parquet)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from brickyard.infra.verbs.select import selection_place
from brickyard.shards.corpus import Corpus
from brickyard.shards.diff import diff
from brickyard.shards.selection import Selection, read_selection
from brickyard.shards.selection_diff import diff_selections
from brickyard.shards.storage import Store

_SHOWN = 20


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    return (_selections if str(args.first).endswith(".parquet") else _corpora)(args)


def _corpora(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    found = diff(Corpus.open(args.first), Corpus.open(args.second))
    if not args.json:
        _show(found.only_first, found.only_second, [f"{k}: {', '.join(names)}" for k, names in found.changed.items()])
        print(
            f"{found.same} scenes are equal, {len(found.changed)} differ, {len(found.only_first)} are only in "
            f"{args.first}, {len(found.only_second)} only in {args.second}"
        )
    result = {
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
        "changed": {key: list(names) for key, names in found.changed.items()},
        "same": found.same,
    }
    return result, 0 if found.equal else 1


def _selections(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    found = diff_selections(_read(args.first), _read(args.second))
    if not args.json:
        _show(found.only_first, found.only_second, [f"{k}: {a:g} -> {b:g}" for k, (a, b) in found.reweighted.items()])
        print(
            f"{found.same} scenes have the same weight, {len(found.reweighted)} another, {len(found.only_first)} are "
            f"only in {args.first}, {len(found.only_second)} only in {args.second}"
        )
        if found.made:
            print(f"made otherwise: {', '.join(found.made)}")
    result = {
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
        "reweighted": {key: list(weights) for key, weights in found.reweighted.items()},
        "same": found.same,
        "made": list(found.made),
    }
    return result, 0 if found.equal else 1


def _read(place: str) -> Selection:
    folder, name = selection_place(place)
    return read_selection(Store(folder), name)


def _show(first: Sequence[str], second: Sequence[str], changed: Sequence[str]) -> None:
    lines = [f"- {key}" for key in first] + [f"+ {key}" for key in second] + [f"~ {text}" for text in changed]
    for line in lines[:_SHOWN]:
        print(line)
    if len(lines) > _SHOWN:
        print(f"... and {len(lines) - _SHOWN} more (all of them with --json)")
