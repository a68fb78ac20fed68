"""What does it take to plan the corpus of 140,000 rooms? The recipe of the project, over the listings of all releases.

Listings are written (`brickyard simulate --listings`), then planned by the command in a process of its own.

python -m tests.benchmarks.planning [--share 1] [--dry]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from brickyard.ingest.simulate.listings import LISTINGS, write_listings
from tests.benchmarks.report import append, table

RECIPE = Path(__file__).parents[2] / "infra/recipes/corpus-140k.yaml"
MEASURED = """
import json, resource, sys, time
from brickyard.infra.cli import main
begin = time.perf_counter()
code = main(["plan", *sys.argv[1:], "--samples", "0", "--json"])
usage = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))  # not the parent's
taken = {"seconds": time.perf_counter() - begin, "processor": usage.ru_utime + usage.ru_stime, "kib": peak}
print(json.dumps(taken), file=sys.stderr)
sys.exit(code)
"""
COLUMNS = {
    "dataset": "s dataset", "listed": ",d scenes listed", "scenes": ",d scenes planned", "shards": ",d shards",
    "written": ".1f s to list", "seconds": ".1f s to plan", "processor": ".1f processor-s to plan", "mib": ",.0f MiB",
}  # fmt: skip


def measured(raw: Path, share: float) -> list[dict[str, Any]]:
    """A row for each dataset, and one for the plan of all; see `COLUMNS`."""
    rows: list[dict[str, Any]] = []
    for name in LISTINGS:
        begin = time.perf_counter()
        listed = write_listings(raw, datasets=[name], share=share)[name]["scenes"]
        rows.append({"dataset": name, "listed": listed, "written": time.perf_counter() - begin})
    environment = os.environ | {name.upper(): str(raw / name) for name in LISTINGS}
    found, taken = planned(environment)
    for row, known in zip(rows, found["datasets"], strict=True):  # the recipe has them in the same order
        row["scenes"] = known["scenes"]
    whole = {"dataset": "all", "listed": sum(r["listed"] for r in rows), "written": sum(r["written"] for r in rows)}
    return [*rows, whole | {"scenes": found["scenes"], "shards": found["shards"]} | taken]


def planned(environment: dict[str, str]) -> tuple[dict[str, Any], dict[str, float]]:
    """(what the command prints, seconds and memory that it took)."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(RECIPE)], env=environment, capture_output=True, text=True, check=True
    )
    taken = json.loads(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout), {**taken, "mib": taken["kib"] / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the scenes of each release")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), options.share)
    table("Planning the corpus of Sonata", rows, COLUMNS)
    if not options.dry:
        append("planning", {"share": options.share}, rows)


if __name__ == "__main__":
    main()
