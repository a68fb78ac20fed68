"""`brickyard features`: pictures of what a run's student sees in scenes, and of where it sees the same again."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brickyard.evaluate.records import FEATURES, FEATURES_MANIFEST
from brickyard.infra.verbs.text import table
from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import write_document
from brickyard.shards.errors import BrickyardError

if TYPE_CHECKING:
    from brickyard.train.students.base import Exported, Student


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    corpus = Corpus.open(args.corpus)
    rows = [corpus.row(key) for key in args.scene]
    out = args.out or args.run / FEATURES
    result = draw_features(partial(finished_student, args.run), corpus, rows, out, query=args.query)
    if not args.json:
        entries = result["scenes"] + (result["query"] or {"scenes": []})["scenes"]
        print(f"{out}: {sum(len(entry['pictures']) for entry in entries)} pictures, {len(rows)} point clouds")
        if result["query"]:
            matches = [match for entry in result["query"]["scenes"] for match in entry["matches"]]
            matches.sort(key=lambda match: -float(match["similarity"]))
            cells = [[m["scene"], str(m["point"]), f"{m['similarity']:.3f}"] for m in matches]
            print(table(["most similar to the query", "point", "cosine"], cells))
    return result | {"out": str(out)}, 0


def draw_features(
    load: Callable[[str], Exported], corpus: Corpus, rows: list[int], out: Path, *, query: int | None = None
) -> dict[str, Any]:
    """Write pictures, point clouds and features.json for a student; raises `BrickyardError` for another network.

    Args:
        load: gives it, on a device.
    """
    import torch

    from brickyard.evaluate.pictures import seen_scenes, write_pictures, write_query
    from brickyard.train.students.base import Student

    student = load("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(student, Student):
        raise BrickyardError(f"there are no pictures of a {student.config.kind!r}: it does not encode points")
    scenes = list(seen_scenes(student.eval(), corpus, rows))
    result: dict[str, Any] = {
        "scenes": write_pictures(scenes, out),
        "query": None if query is None else write_query(scenes, query, out),
    }
    write_document(out / FEATURES_MANIFEST, result, indent=1)
    return result


def finished_student(run_folder: Path, device: Any) -> Student:
    """`finished` of a run whose network encodes clouds; raises `BrickyardError` for any other, too."""
    from brickyard.train.students.export import load_student

    return load_student(_final(run_folder), device)


def finished(run_folder: Path, device: Any) -> Exported:
    """The network that a run has exported; raises `BrickyardError` where it has not come so far."""
    from brickyard.train.students.export import load_exported

    return load_exported(_final(run_folder), device)


def beside(run_folder: Path, device: Any) -> list[Exported]:
    """What a run has exported beside its network."""
    from brickyard.train.students.export import load_companions

    return list(load_companions(_final(run_folder), device).values())


def _final(run_folder: Path) -> Path:
    if not (run_folder / "final").is_dir():
        raise BrickyardError(f"{run_folder} has no finished training (no final/): run `brickyard train` first")
    return run_folder / "final"
