"""A forecast told: as a table, and as a page with busy cores over time and the time against the number of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.evaluate.show.chart import Line, line_chart
from brickyard.evaluate.show.html import cards, count, page, table, tag
from brickyard.infra.estimate import Rates
from brickyard.infra.forecast import ClusterConfig, Forecast, Work, forecast, knee
from brickyard.infra.plan import Plan, task_memory
from brickyard.infra.verbs.text import duration
from brickyard.infra.verbs.text import table as text_table
from brickyard.shards.errors import RecipeError
from brickyard.shards.storage import Store

_MAX_KNEE_TASKS = 300_000
"""With more tasks, one cluster is simulated, not a row of them."""


def simulate(
    plan: Plan, rates: Rates, cluster: ClusterConfig, *, times: int = 1, page: Path | None = None
) -> dict[str, Any]:
    """Forecast a plan on a cluster; raises `RecipeError` where the costs of a dataset are not known.

    Args:
        times: so many of every task. page: an HTML file that is written.
    """
    tasks = works(plan, rates) * times
    found = forecast(tasks, cluster)
    several = knee(tasks, cluster) if len(tasks) <= _MAX_KNEE_TASKS else []
    scenes = len(plan.refs) * times
    if page is not None:
        store = Store(page.absolute().parent)
        store.write(page.name, _page(found, several, cluster, scenes))
        store.close()
    return {
        "scenes": scenes,
        "tasks": len(tasks),
        "nodes": cluster.nodes,
        **_figures(found),
        "knee": [{"nodes": nodes, **_figures(one)} for nodes, one in several],
    }


def works(plan: Plan, rates: Rates) -> list[Work]:
    """What each task of a plan takes; raises `RecipeError`."""
    unknown = sorted({refs[0].dataset for refs in plan.tasks} - rates.keys())
    if unknown:
        raise RecipeError(
            f"nothing is known of what {', '.join(unknown)} costs: allow samples, or give --rates with a corpus or a"
            " plan that holds scenes of it"
        )
    found = []
    for refs in plan.tasks:
        size, rate = sum(ref.bytes_estimate for ref in refs), rates[refs[0].dataset]
        found.append(
            Work(rate["seconds"] * size, size, rate["bytes_out"] * size, task_memory(size, rate.get("memory")))
        )
    return found


def _figures(found: Forecast) -> dict[str, Any]:
    return {
        "seconds": found.seconds,
        "core_seconds": found.core_seconds,
        "node_hours": found.node_seconds / 3600,
        "most_nodes": found.most_nodes,
        "money": found.money,
        "bottleneck": found.bottleneck,
        "waits": found.waits,
        "lost_tasks": found.lost_tasks,
        "copies": found.copies,
    }


def print_simulated(found: Mapping[str, Any]) -> None:
    """The table."""
    money = "" if found["money"] is None else f", money {found['money']:,.0f}"
    print(
        f"\nsimulated: {found['scenes']:,} scenes in {found['tasks']:,} tasks on {found['most_nodes']} nodes:"
        f" {duration(found['seconds'])}, {found['node_hours']:,.1f} node hours{money}; most of the cores' time:"
        f" {found['bottleneck']}"
    )
    if found["knee"]:
        rows = [
            [str(row["nodes"]), duration(row["seconds"]), f"{row['node_hours']:,.1f}", _money(row), row["bottleneck"]]
            for row in found["knee"]
        ]
        print(text_table(["nodes", "takes", "node hours", "money", "most time"], rows))


def _money(row: Mapping[str, Any]) -> str:
    return "-" if row["money"] is None else f"{row['money']:,.0f}"


def _page(found: Forecast, several: list[tuple[int, Forecast]], cluster: ClusterConfig, scenes: int) -> bytes:
    figures = [
        (count(scenes), "scenes"), (duration(found.seconds), "from start to end"),
        (count(found.most_nodes), f"nodes of {cluster.cores} cores"),
        (f"{found.node_seconds / 3600:,.1f}", "node hours"),
        (count(found.lost_tasks), "tasks lost with nodes"), (count(found.copies), "stragglers copied"),
    ]  # fmt: skip
    if found.money is not None:
        figures.append((f"{found.money:,.0f}", "money"))
    times, busy = (np.array(values, np.float64) for values in zip(*(found.busy or ((0.0, 0),)), strict=True))
    sections = [tag("h2", "Busy cores, over hours")]
    line = Line(name="busy cores", steps=times / 3600, values=busy)
    sections.append(line_chart("Busy cores", [line], smooth=False, over="hours"))
    total = sum(found.waits.values()) or 1.0
    rows = [[name, duration(seconds), f"{seconds / total:.1%}"] for name, seconds in found.waits.items()]
    sections += [tag("h2", "Where the cores' time goes"), table(("", "core time", "share"), rows, numbers=(1, 2))]
    if several:
        nodes = np.array([nodes for nodes, _ in several], np.float64)
        hours = np.array([one.seconds / 3600 for _, one in several])
        ideal = Line(name="hours, if cores were all", steps=np.log2(nodes), values=hours[0] / nodes)
        real = Line(name="hours", steps=np.log2(nodes), values=hours)
        sections += [tag("h2", "Hours, over the number of nodes (doublings of one)")]
        sections.append(line_chart("Hours", [real, ideal], smooth=False, over="doublings"))
    head = tag(
        "header", tag("p", "Forecast", class_="eyebrow"), tag("h1", "A build that was simulated"), cards(figures)
    )
    foot = tag("footer", "Written by brickyard; this file loads nothing from anywhere.")
    return page("Forecast", head, *sections, foot)
