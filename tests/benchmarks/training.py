"""How long a training run on the processor waits for its data: the demo's recipe, all steps, the first one included.

The stream's threads and the training share the cores, so this is the hard case: there is no accelerator that computes
while they decode. Simulates the demo's world, builds its corpus in this process, trains, and reads `metrics.jsonl`.

python -m tests.benchmarks.training [--steps 60]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from brickyard.train.running.metrics import read_metrics
from tests.benchmarks.report import append, arguments, table

RECIPE = Path(__file__).parents[2] / "infra" / "recipes" / "demo.yaml"
COLUMNS = {
    "steps": "s steps", "waited_seconds": ".3f s waited", "seconds": ".1f s in steps", "share": ".2% waiting",
    "longest_ms": ".1f ms longest wait", "step_ms": ".0f ms a step, median",
}  # fmt: skip


def brickyard(*words: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "brickyard.infra.cli", *map(str, words)], check=True, stdout=subprocess.DEVNULL
    )


def run(*, steps: int = 60, dry: bool = False) -> list[dict[str, Any]]:
    """Train, print how long it waited, append the record."""
    with tempfile.TemporaryDirectory(prefix="brickyard-training-") as place:
        folder = Path(place)
        recipe = yaml.safe_load(RECIPE.read_text())
        recipe["sources"] = [s for s in recipe["sources"] if s["dataset"] == recipe["train"]["dataset"]]
        recipe["train"] |= {"steps": steps, "log_every": 1, "checkpoint_every": steps}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        brickyard("simulate", "--out", folder / "raw", "--datasets", recipe["train"]["dataset"])
        brickyard("build", folder / "recipe.yaml", "--out", folder / "corpus", "--in-process")
        brickyard("train", folder / "recipe.yaml", "--corpus", folder / "corpus", "--out", folder / "run")
        lines = read_metrics(folder / "run")
    batch = recipe["train"]["batch"]
    seconds = [batch / line["scenes_per_second"] for line in lines]
    waited = [line["data_wait"] * took for line, took in zip(lines, seconds, strict=True)]
    rows = []
    for name, start in (("all", 0), ("after the first", 1)):
        took, idle = seconds[start:], waited[start:]
        rows.append({
            "steps": f"{name} ({len(took)})", "waited_seconds": sum(idle), "seconds": sum(took),
            "share": sum(idle) / sum(took), "longest_ms": 1000 * max(idle),
            "step_ms": 1000 * sorted(took)[len(took) // 2],
        })  # fmt: skip
    table(f"training on the processor: {RECIPE.name}, batches of {batch}", rows, COLUMNS)
    if not dry:
        append("training", {"steps": steps, "recipe": RECIPE.name, "batch": batch}, rows)
    return rows


if __name__ == "__main__":
    run(**vars(arguments(__doc__, steps=60).parse_args()))
