"""The run page: how training went, whether it waited for data, and what the pretrained weights are worth.

The last question is answered against the same network with random weights, over all seeds given: a difference smaller
than the spread of the seeds is no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from brickyard.evaluate.show.chart import COLOURS, Bars, Line, bar_chart, line_chart
from brickyard.evaluate.show.html import Html, cards, chips, count, page, table, tag
from brickyard.evaluate.show.raster import Moving, data_uri
from brickyard.evaluate.show.summary import Curve, FeatureScene, Probe, ProbeRun, RunSummary
from brickyard.shards.storage import Store
from brickyard.train.running.metrics import WATCHED

_INIT_COLOURS = {"random": "var(--muted)", "pretrained": COLOURS[0]}


def run_page(run: RunSummary, out: Path) -> None:
    """Write the page of one or more runs; the file appears only when it is whole."""
    content = [
        tag("header", tag("p", "Training", class_="eyebrow"), tag("h1", run.name)),
        chips(f"{name} {value}" for name, value in run.facts) if run.facts else None,
        cards(_figures(run)),
        _curves(run.curves),
        _probe(run.probe) if run.probe is not None else None,
        _results(run),
        *(_scenes(f"Pictures of {name}", scenes, "") for name, scenes in run.pictures),
        _scenes("Features", run.features, run.features_note),
        tag("footer", "Written by brickyard; this file loads nothing from anywhere."),
    ]
    store = Store(out.absolute().parent)
    store.write(out.name, page(run.name, *content))
    store.close()


def _figures(run: RunSummary) -> list[tuple[str, str]]:
    figures = []
    if run.curves:
        figures.append((count(len(run.curves)), "run" if len(run.curves) == 1 else "runs"))
        figures.append((count(max((c.step[-1] for c in run.curves if c.step), default=0)), "steps"))
        waits = np.concatenate([np.asarray(c.wait_share, np.float64) for c in run.curves])
        if np.isfinite(waits).any():
            figures.append((f"{np.nanmean(waits):.1%}", "of the time waiting for data"))
    if run.probe is not None:
        for init in initialisations(run.probe):
            mean, spread, _ = miou(run.probe, init)
            figures.append((f"{mean * 100:.1f}" + (f" ± {spread * 100:.1f}" if spread else ""), f"mIoU, {init}"))
    return figures


def _curves(curves: Sequence[Curve]) -> Html | None:
    if not curves:
        return None

    def lines(values: Callable[[Curve], Sequence[float]]) -> list[Line]:
        return [
            Line(name=c.name, steps=np.array(c.step, np.float64), values=np.array(values(c), np.float64))
            for c in curves
        ]

    return tag(
        "div",
        tag("h2", "Loss"),
        line_chart("Loss", lines(lambda c: c.loss)),
        tag("h2", "Share of time waiting for data"),
        line_chart("Data wait", lines(lambda c: c.wait_share), percent=True),
        tag("h2", "Learning rate"),
        line_chart("Learning rate", lines(lambda c: c.learning_rate), smooth=False),
        [_watched(curves, name) for name in dict.fromkeys(name for c in curves for name in c.watched)],
    )


def _watched(curves: Sequence[Curve], name: str) -> Html:
    """What was measured while training went on."""
    lines = [
        Line(name=c.name, steps=np.array(c.watched[name][0], np.float64), values=np.array(c.watched[name][1]))
        for c in curves
        if name in c.watched
    ]
    title = f"While training: {name.removeprefix(WATCHED)}"
    return tag("div", tag("h2", title), line_chart(title, lines, smooth=False))


def _probe(probe: Probe) -> Html:
    inits = initialisations(probe)
    series = []
    for init in inits:
        runs = np.array([run.iou for run in _of(probe, init)], np.float64).reshape(-1, len(probe.classes))
        present = np.isfinite(runs).any(axis=0)
        low, mean, high = (
            [float(f(runs[:, i])) if present[i] else np.nan for i in range(len(probe.classes))]
            for f in (np.nanmin, np.nanmean, np.nanmax)
        )
        colour = _INIT_COLOURS.get(init, COLOURS[1])
        name = f"{init} ({len(runs)} {'run' if len(runs) == 1 else 'runs'}; whiskers: least to greatest)"
        series.append(Bars(name=name, colour=colour, values=mean, low=low, high=high))
    rows = [(run.name, run.init, f"{run.miou * 100:.2f}") for init in inits for run in _of(probe, init)]
    return tag(
        "div",
        tag("h2", "What the weights are worth"),
        tag("p", verdict(probe)),
        bar_chart("IoU per class", probe.classes, series),
        tag("h2", "Probes"),
        table(("Run", "Initialisation", "mIoU"), rows, numbers=(2,)),
    )


def _results(run: RunSummary) -> Html | None:
    if not run.results:
        return None
    tables = [
        tag("div", tag("h3", name) if len(run.results) > 1 else None, table(head, rows, numbers=(1, 2, 3)))
        for name, head, rows in run.results
    ]
    note = (
        "Numbers with equal fingerprints were measured the same way. What others have published is marked as such and"
        " stands only beside the same protocol on the same data."
    )
    return tag("div", tag("h2", "Protocols"), tables, tag("p", note, class_="soft"))


def _scenes(title: str, scenes: Sequence[FeatureScene], note: str) -> Html | None:
    """Each scene's pictures side by side."""
    if not scenes:
        return None
    sections = []
    for scene in scenes:
        figures = []
        for caption, picture in scene.pictures:
            height, width = (picture.height, picture.width) if isinstance(picture, Moving) else picture.shape[:2]
            image = tag("img", src=data_uri(picture), alt=caption, width=width, height=height)
            figures.append(tag("figure", tag("div", image, class_="stack"), tag("figcaption", caption)))
        sections += [tag("h3", scene.key), tag("p", scene.title, class_="soft"), tag("div", figures, class_="row")]
    return tag("div", tag("h2", title), tag("p", note, class_="soft") if note else None, sections)


def verdict(probe: Probe) -> str:
    """The comparison in one sentence, and whether the seeds' spread allows it."""
    inits = initialisations(probe)
    if "pretrained" not in inits or "random" not in inits:
        return "There is nothing to compare: both pretrained and random runs are needed."
    (mean, spread, n), (base, base_spread, m) = miou(probe, "pretrained"), miou(probe, "random")
    gain = (mean - base) * 100
    words = f"Pretrained weights give {mean * 100:.1f} mIoU, random ones {base * 100:.1f}: {gain:+.1f} points."
    if min(n, m) < 2:
        return f"{words} With one seed a side, nobody knows how much of it is chance."
    noise = 100 * float(np.hypot(spread / np.sqrt(n), base_spread / np.sqrt(m)))
    clear = "more" if abs(gain) > 2 * noise else "not more"
    return f"{words} That is {clear} than twice the standard error of the difference ({noise:.1f} points)."


def miou(probe: Probe, init: str) -> tuple[float, float, int]:
    """(mean, sample standard deviation, number) over the runs of one initialisation."""
    values = np.array([run.miou for run in _of(probe, init)], np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0, len(values)


def initialisations(probe: Probe) -> list[str]:
    """Those that occur, the baseline first."""
    return sorted({run.init for run in probe.runs}, key=lambda init: (init != "random", init))


def _of(probe: Probe, init: str) -> list[ProbeRun]:
    return [run for run in probe.runs if run.init == init]
