"""What readers make of damaged files: our formats and others, the same kinds of damage, counted.

python -m tests.benchmarks.corruption              the table, in about ten minutes; peers get environments of their own
python -m tests.benchmarks.corruption --every 1    every kind of damage at every byte of our own formats (hours)

Every format holds the same eight scenes in two files or more. Payload is what the arrays' values are stored in,
structure what the format has around them (headers, offsets, padding), index what says where things are (a footer, an
index file, a manifest). See `tests.damage` for the kinds of damage and the classes of outcomes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import damage
from tests.benchmarks import damaged
from tests.benchmarks.damaged import ARRAYS, FORMATS, SCENES, Format
from tests.benchmarks.peers import PINS, interpreter
from tests.benchmarks.report import append, environment, table
from tests.damage import Case, Outcome, Region

RESULTS = ("detected", "harmless", "wrong", "lost", "crash", "slow", "large")
PARTS = ("payload", "structure", "index")
COLUMNS = {"format": "s format", "part": "s where", "cases": "d cases"} | {name: f"d {name}" for name in RESULTS}


def peer_python(peer: str | None) -> str:
    """The interpreter of a peer's environment, ours for None; raises OSError if it cannot be made."""
    if peer is None:
        return sys.executable
    python, problem = interpreter(peer)
    if problem:
        raise OSError(problem)
    return python


def write(form: Format, folder: Path, python: str) -> None:
    folder.mkdir()
    command = [python, "-m", "tests.benchmarks.damaged", form.write, str(folder)]
    done = subprocess.run(command, cwd=damage.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1])


def regions(path: Path, root: Path) -> Iterator[Region]:
    """Payload, structure and index of a file of any of the formats."""
    data = path.read_bytes()
    if path.suffix == ".json" or path.name == "index.parquet":
        yield Region("index", 0, len(data))
        return
    ends = len(data)
    if (root / "manifest.json").exists():  # ours: nobody needs a shard's footer to find a blob
        ranges = _blobs(root, path.relative_to(root).as_posix())
    elif path.suffix == ".parquet":
        ranges, ends = _pages(data), len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        yield Region("index", ends, len(data))
    else:
        ranges = _arrays(data)
    done = 0
    for start, end in sorted(ranges):
        yield Region("structure", done, start)
        yield Region("payload", start, end)
        done = end
    yield Region("structure", done, ends)


def _blobs(root: Path, shard: str) -> list[tuple[int, int]]:
    from brickyard.shards.corpus import Corpus

    corpus = Corpus.open(root)
    places = [p for row in range(len(corpus)) if corpus.shard(row) == shard for p in corpus.addresses(row).values()]
    return [(place.offset, place.offset + place.length) for place in places]


def _pages(data: bytes) -> list[tuple[int, int]]:
    """Column chunks without the first 30 bytes, which are the page header or most of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(pa.BufferReader(data))
    ranges = []
    for group in range(metadata.num_row_groups):
        for column in map(metadata.row_group(group).column, range(metadata.num_columns)):
            start = min(p for p in (column.dictionary_page_offset, column.data_page_offset) if p)
            ranges.append((start + 30, start + column.total_compressed_size))
    return ranges


def _arrays(data: bytes) -> list[tuple[int, int]]:
    """Where the values of the scenes stand as they are."""
    values = (damaged.scene(number)[name].tobytes() for number in range(SCENES) for name in ARRAYS)
    return [(at, at + len(value)) for value in values if (at := data.find(value)) >= 0]


def draw(folder: Path, places: int, seed: int = 0) -> list[Case]:
    """So many cases of every kind for payload, structure and index, at files, regions and bytes drawn by the seed."""
    found: dict[str, list[tuple[str, Region]]] = {part: [] for part in PARTS}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for region in regions(path, folder):
            if region.end > region.start:
                found[region.part].append((path.relative_to(folder).as_posix(), region))
    rng, cases = random.Random(seed), []
    for part, choices in found.items():
        for kind in damage.KINDS if choices else ():
            for _ in range(places):
                name, region = rng.choice(choices)
                cases.append(Case(name, part, kind, region.start, region.end, rng.randrange(region.start, region.end)))
    return cases


def every(folder: Path, step: int) -> list[Case]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return [
        case
        for path in files
        for case in damage.every_case(path.relative_to(folder).as_posix(), regions(path, folder), step)
    ]


def rows(name: str, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row for each part."""
    found = []
    for part in PARTS:
        counts = Counter(o.result for o in outcomes if o.case.part == part)
        if counts:
            found.append({"format": name, "part": part, "cases": counts.total()} | {r: counts[r] for r in RESULTS})
    return found


def run(places: int, step: int, only: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(rows of the table, format -> why it is missing)."""
    found: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for form in FORMATS:
        if only not in form.name or (step and form.peer is not None) or (step and "Brickyard" not in form.name):
            continue
        with tempfile.TemporaryDirectory(prefix="brickyard-corruption-") as place:
            folder = Path(place) / "data"
            try:
                python = peer_python(form.peer)
                write(form, folder, python)
                cases = every(folder, step) if step else draw(folder, places)
                outcomes = damage.run(
                    f"tests.benchmarks.damaged:{form.read}", folder, cases, python=python, batch=form.batch,
                    imports=form.imports,
                )  # fmt: skip
            except (OSError, RuntimeError) as problem:
                missing[form.name] = str(problem)[-300:]
                print(f"{form.name}: left out: {missing[form.name]}", flush=True)
                continue
        found += rows(form.name, outcomes)
        slowest = max(outcome.seconds for outcome in outcomes)
        print(f"{form.name}: {len(outcomes)} cases, the slowest {slowest:.2f} s", flush=True)
    return found, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=10, help="cases of each kind and part (default 10)")
    parser.add_argument("--every", type=int, default=0, help="instead: every kind at every n-th byte, ours only")
    parser.add_argument("--only", default="", help="formats whose name contains this")
    parser.add_argument("--dry", action="store_true", help="print, but append nothing to the results")
    options = parser.parse_args()
    found, missing = run(options.places, options.every, options.only)
    table("Damaged files, and what came of reading them", found, COLUMNS)
    if not options.dry:
        settings = {"places": options.places, "every": options.every, "peers": PINS, "missing": missing}
        print(f"\nappended to {append('corruption', settings, found)}")
    print(json.dumps(environment()["versions"]))


if __name__ == "__main__":
    main()
