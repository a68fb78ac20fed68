"""Metrics of a build for Prometheus, through Ray: it gathers them on every node and offers them to a scraper.

They are counted where the build's driver runs; `infra/cluster/grafana.json` is a board of them.
"""

from __future__ import annotations

from typing import Any

from brickyard.infra.events import Event

PREFIX = "brickyard"
COUNTERS = {
    "scenes": "scenes that were built",
    "quarantined": "scenes that were refused",
    "shards": "shards that were committed",
    "bytes_in": "raw bytes that were read",
    "bytes_out": "bytes of shards that were written",
    "core_seconds": "seconds of work",
}
STAGE, MEMORY = "stage_seconds", "task_memory_bytes"


class Metrics:
    """Counters by dataset; needs a connection to Ray."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        tags = ("dataset",)
        self._counters = {name: Counter(f"{PREFIX}_{name}", words, tags) for name, words in COUNTERS.items()}
        self._stages = Counter(f"{PREFIX}_{STAGE}", "seconds of work by stage", ("dataset", "stage"))
        self._memory = Gauge(f"{PREFIX}_{MEMORY}", "the most that the last task held", tags)

    def count(self, task: Event) -> None:
        """A "task" event of the log."""
        tags = {"dataset": str(task["dataset"])}
        values: dict[str, Any] = {
            "scenes": task["scenes"],
            "quarantined": len(task.get("quarantined", ())),
            "shards": 1,
            "bytes_in": task["bytes_in"],
            "bytes_out": task["bytes_out"],
            "core_seconds": task["seconds"],
        }
        for name, value in values.items():
            if value > 0:  # Ray refuses to count nothing
                self._counters[name].inc(value, tags)
        for stage, seconds in dict(task.get("stages", {})).items():
            if seconds > 0:
                self._stages.inc(seconds, {**tags, "stage": str(stage)})
        self._memory.set(int(task.get("memory_bytes", 0)), tags)
