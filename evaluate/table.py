"""Results as a table for people: what a protocol's columns say, applied to what its entries hold.

    protocol                  random  raw inputs  pretrained  published by others  fingerprint
    scannet-linear, mIoU %      30.1        44.0        72.1  72.5, published ...  0c3f5a7e9b21

An entry carries its columns with it, so that a page shows the numbers of a protocol that is not installed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

INITS = ("random", "raw", "pretrained")
"""Whose numbers stand side by side, in the order of the table: of the network as it was before training, of the raw
inputs without a network, of the network that is judged."""

_TITLES = {"random": "random", "raw": "raw inputs", "pretrained": "pretrained"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric that stands in the table.

    Attributes:
        metric: its name among the metrics of a result, such as "psnr".
        title: with its unit, such as "PSNR dB".
        percent: whether it is a share that is shown in percent.
        digits: after the point; None shows one of percentages and of numbers from ten on, two of others.
        less_is_better: as of an error; the title gets an arrow.
    """

    metric: str
    title: str
    percent: bool = False
    digits: int | None = None
    less_is_better: bool = False

    @property
    def head(self) -> str:
        """The title as it is shown."""
        return f"{self.title} ↓" if self.less_is_better else self.title

    def cell(self, value: float | None) -> str:
        """A value as it is shown."""
        if value is None:
            return "-"
        short = 1 if self.percent or abs(value) >= 10 else 2
        return f"{100 * value if self.percent else value:.{short if self.digits is None else self.digits}f}"


_FIRST_COLUMNS = (
    Column(metric="miou", title="mIoU %", percent=True),
    Column(metric="height_r2", title="height R²"),
    Column(metric="normal_r2", title="normal R²"),
    Column(metric="normal_angle", title="normal angle °", less_is_better=True),
)
"""Of entries that older versions wrote, which carry none."""


def columns_of(entry: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns of an entry, of those for which it has a number."""
    carried = entry.get("columns")
    columns = _FIRST_COLUMNS if carried is None else tuple(map(_column, carried))
    results = entry["results"].values()
    return tuple(column for column in columns if any(result.get(column.metric) is not None for result in results))


def _column(carried: Mapping[str, Any]) -> Column:
    return Column(**{spec.name: carried[spec.name] for spec in fields(Column) if spec.name in carried})


def columns_document(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Columns as an entry carries them."""
    return [asdict(column) for column in columns]


def result_table(entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of text: one row per protocol and column, our numbers, then the published one.

    Entries of several corpora say which one is theirs.
    """
    several = len({entry.get("corpus") for entry in entries}) > 1
    rows = []
    for entry in entries:
        name = f"{entry['protocol']} on {str(entry.get('corpus'))[:8]}" if several else entry["protocol"]
        for column in columns_of(entry):
            cells = [column.cell(entry["results"].get(init, {}).get(column.metric)) for init in INITS]
            other = entry["published"].get(column.metric)
            number = "-" if other is None else f"{column.cell(other)}, {entry['published']['source']}"
            rows.append([f"{name}, {column.head}", *cells, number, entry["fingerprint"]])
    return ["protocol", *(_TITLES[init] for init in INITS), "published by others", "fingerprint"], rows


def side_by_side(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The pretrained network's numbers of several runs, each given by its entries: one row for every protocol, corpus,
    fingerprint and column, `values` in the order of the runs, None where a run has none; `cells` as they are shown."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for place, entries in enumerate(runs):
        for entry in entries:
            for column in columns_of(entry):
                key = (entry["protocol"], entry["fingerprint"], entry.get("corpus"), column.metric)
                names = dict(zip(("protocol", "fingerprint", "corpus", "metric"), key, strict=True))
                blank = {"title": column.head, "values": [None] * len(runs), "cells": ["-"] * len(runs)}
                row = rows.setdefault(key, names | blank)
                row["values"][place] = entry["results"].get("pretrained", {}).get(column.metric)
                row["cells"][place] = column.cell(row["values"][place])
    return list(rows.values())


def class_table(entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of text: IoU of every class in percent, in the mean over entries of one protocol (of several runs),
    and the mean IoU with the deviation over the entries."""
    inits = [init for init in INITS if all(init in entry["results"] for entry in entries)]
    first = entries[0]["results"]["pretrained"]["iou"]
    rows = [[name, *(_mean(entries, init, name) for init in inits)] for name, iou in first.items() if iou is not None]
    rows.append(["mean IoU", *(_spread(entries, init) for init in inits)])
    return [f"{entries[0]['protocol'].replace('_', ' ')}, IoU %", *(_TITLES[init] for init in inits)], rows


def _mean(entries: Sequence[Mapping[str, Any]], init: str, name: str) -> str:
    values = [entry["results"][init]["iou"].get(name) or 0.0 for entry in entries]
    return f"{100 * sum(values) / len(values):.1f}"


def _spread(entries: Sequence[Mapping[str, Any]], init: str) -> str:
    found = [entry["results"][init]["miou"] for entry in entries]
    values = [100 * value for value in found if value is not None]
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.1f} ± {deviation:.1f}"
