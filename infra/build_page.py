"""The page of a build: a timeline of its workers, what each stage cost by dataset, memory, slow scenes, refusals."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

from brickyard.evaluate.show.chart import COLOURS
from brickyard.evaluate.show.html import Html, cards, count, page, size, table, tag
from brickyard.infra.events import Event
from brickyard.infra.story import Run, Story, per_dataset, refused, slowest, stages, workers
from brickyard.infra.verbs.text import duration
from brickyard.shards.reasons import grouped

_WIDTH, _LEFT, _ROW = 1200, 170, 16
MAX_WORKERS = 64
"""Rows of the timeline."""
_MAX_BARS = 8000
_SLOWEST = 15
_ORDER = ("read", "normals", "superpixels", "correspondences", "encode", "write")
_GIB = 1 << 30


def build_page(story: Story, name: str, *, price: float | None = None) -> bytes:
    """The page, in UTF-8.

    Args:
        price: what a core costs for an hour, in any currency.
    """
    tasks = story.tasks
    seconds = sum(float(task["seconds"]) for task in tasks)
    figures = [
        (count(sum(int(task["scenes"]) for task in tasks)), "scenes made"),
        (count(len(tasks)), "shards made"),
        (size(sum(int(task["bytes_in"]) for task in tasks)), "raw"),
        (size(sum(int(task["bytes_out"]) for task in tasks)), "stored"),
        (duration(seconds), "of one core"),
        (duration(sum(run.seconds for run in story.runs)), f"in {len(story.runs)} runs"),
        (count(len(refused(tasks))), "quarantined"),
    ]
    if price is not None:
        figures.append((f"{seconds / 3600 * price:,.2f}", f"at {price:g} a core-hour"))
    head = tag("header", tag("p", "Build", class_="eyebrow"), tag("h1", name), cards(figures))
    foot = tag("footer", "Written by brickyard; this file loads nothing from anywhere.")
    sections = [tag("h2", "Runs"), _runs(story.runs)]
    for number, run in enumerate(story.runs):
        if workers(run.tasks):
            sections += [tag("h2", f"Workers of run {number + 1}"), timeline(run)]
    sections += [tag("h2", "Datasets"), _datasets(tasks)]
    sections += [tag("h2", "Stages, seconds of one core"), _stages(tasks, price)]
    sections += [tag("h2", "Slowest scenes"), _slowest(tasks)]
    sections += [tag("h2", "Quarantined"), _refused(tasks)]
    return page(name, head, *sections, foot)


def _runs(runs: Sequence[Run]) -> Html:
    rows = []
    for number, run in enumerate(runs):
        began = datetime.fromtimestamp(run.began, UTC).strftime("%Y-%m-%d %H:%M:%S")
        busy = sum(float(task["seconds"]) for task in run.tasks)
        share = f"{busy / run.seconds:.2f}"
        state = f"{run.state}: {run.reason}" if run.reason else run.state
        rows.append([str(number + 1), began, duration(run.seconds), state, count(run.scenes_done), share])
    head = ("run", "began (UTC)", "took", "state", "scenes", "busy workers, mean")
    return table(head, rows, numbers=(2, 4, 5))


def timeline(run: Run) -> Html:
    """A row for each worker, a bar for each task, from the first event of the run to the last."""
    rows = workers(run.tasks)
    shown = list(rows.items())[:MAX_WORKERS]
    start = min(run.began, *(float(task["began"]) for _, tasks in shown for task in tasks))
    end = max(run.last, *(float(task["ended"]) for _, tasks in shown for task in tasks))
    scale = (_WIDTH - _LEFT - 10) / max(end - start, 1e-3)
    datasets = sorted({str(task["dataset"]) for task in run.tasks})
    height = _ROW * len(shown) + 26
    parts: list[Html] = []
    for row, (who, tasks) in enumerate(shown):
        y = 4 + row * _ROW
        parts.append(tag("text", who, x=_LEFT - 8, y=y + 11, text_anchor="end"))
        for task in tasks[: _MAX_BARS // len(shown)]:
            x = _LEFT + (float(task["began"]) - start) * scale
            width = max(0.6, (float(task["ended"]) - float(task["began"])) * scale)
            words = f"shard {task['task']} ({task['dataset']}): {task['scenes']} scenes, {task['seconds']:.1f} s"
            fill = COLOURS[datasets.index(str(task["dataset"])) % len(COLOURS)]
            shade = 1.0 if zlib.crc32(str(task["task"]).encode()) % 2 else 0.78
            bar = tag("rect", tag("title", words), x=f"{x:.1f}", y=y, width=f"{width:.1f}", height=_ROW - 3,
                      fill=fill, opacity=shade)  # fmt: skip
            parts.append(bar)
    for tick in range(6):
        x = _LEFT + (_WIDTH - _LEFT - 10) * tick / 5
        label = duration((end - start) * tick / 5)
        parts.append(tag("text", label, x=f"{x:.0f}", y=height - 4, text_anchor="middle" if tick < 5 else "end"))
    svg = tag("svg", parts, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label="workers over time")
    legend = [
        tag("span", tag("i", style=f"background:{COLOURS[i % len(COLOURS)]}"), name) for i, name in enumerate(datasets)
    ]
    if len(rows) > len(shown):
        legend.append(tag("span", f"{len(shown)} of {len(rows)} workers are drawn"))
    return tag("div", tag("div", svg, class_="chart"), tag("p", legend, class_="legend", style="margin-top:8px"))


def _datasets(tasks: Sequence[Event]) -> Html:
    declared = {
        name: max(int(task.get("memory_declared", 0)) for task in tasks if task["dataset"] == name)
        for name in per_dataset(tasks)
    }
    rows = [
        [
            name, count(found["scenes"]), count(found["quarantined"]), count(found["tasks"]), size(found["bytes_in"]),
            size(found["bytes_out"]), duration(found["seconds"]), f"{declared[name] / _GIB:.2f} GiB",
            f"{found['memory_bytes'] / _GIB:.2f} GiB",
        ]
        for name, found in per_dataset(tasks).items()
    ]  # fmt: skip
    head = ("dataset", "scenes", "quarantined", "shards", "raw", "stored", "core time", "memory declared", "most held")
    return table(head, rows, numbers=range(1, 9))


def _stages(tasks: Sequence[Event], price: float | None) -> Html:
    found = stages(tasks)
    names = [name for name in _ORDER if any(name in each for each in found.values())]
    names += sorted({name for each in found.values() for name in each} - set(names))
    rows = []
    for dataset, each in found.items():
        total = sum(each.values())
        shares = [f"{each.get(name, 0.0):,.1f} ({each.get(name, 0.0) / total:.0%})" if total else "-" for name in names]
        rows.append([dataset, *shares, *([] if price is None else [f"{total / 3600 * price:,.2f}"])])
    head = ["dataset", *names, *([] if price is None else ["money"])]
    return table(head, rows, numbers=range(1, len(head)))


def _slowest(tasks: Sequence[Event]) -> Html:
    return table(("scene", "took"), [[key, duration(took)] for key, took in slowest(tasks, _SLOWEST)], numbers=(1,))


def _refused(tasks: Sequence[Event]) -> Html:
    entries = refused(tasks)
    if not entries:
        return tag("p", "No scene was refused.", class_="soft")
    return tag("div", [tag("p", group.line("scenes"), class_="note") for group in grouped(
        (entry["key"], entry["reason"]) for entry in entries
    )])  # fmt: skip
