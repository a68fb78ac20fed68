"""The run page: curves, ticks, bars, and a verdict that knows the seeds' spread."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brickyard.evaluate.records import probe_of, read_results
from brickyard.evaluate.show import Curve, Probe, ProbeRun, RunSummary, join_probes, read_curve, run_page
from brickyard.evaluate.show.chart import Line, line_chart, running_mean
from brickyard.evaluate.show.chart import _Axis as Axis
from brickyard.evaluate.show.run import initialisations, miou, verdict
from brickyard.shards.errors import BrickyardError


def make_probe(pretrained: list[float], random: list[float]) -> Probe:
    runs = [
        ProbeRun(name=f"{init} seed {i}", init=init, miou=value, iou=(value, math.nan))
        for init, values in (("pretrained", pretrained), ("random", random))
        for i, value in enumerate(values)
    ]
    return Probe(classes=("car <b>", "bus"), runs=tuple(runs))


def make_curve(name: str = "seed 0", steps: int = 50) -> Curve:
    at = range(10, 10 * steps + 1, 10)
    nothing = tuple(math.nan for _ in at)
    return Curve(
        name=name, step=tuple(at), loss=tuple(8 - i / 100 for i in at), learning_rate=nothing, wait_share=nothing
    )


def test_page_shows_runs_and_is_self_contained(tmp_path: Path) -> None:
    summary = RunSummary(
        name="a & b",
        curves=(make_curve(), make_curve("</svg><script>")),
        probe=make_probe([0.5, 0.52], [0.3, 0.31]),
        facts=(("objective", "slidr"),),
    )
    run_page(summary, tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "<script" not in page and not re.search(r"https?:|src=|href=|url\(", page)
    for words in (
        "a &amp; b",
        "objective slidr",
        "seed 0: 3<",
        "51.0 ± 1.4",
        "car &lt;b&gt;",
        "does not occur",
        "+20.5",
    ):
        assert words in page
    assert page.count("Nothing was logged.") == 2


@pytest.mark.parametrize("summary", [RunSummary(name="empty"), RunSummary(name="x", curves=(make_curve(steps=1),))])
def test_short_runs_have_a_page(tmp_path: Path, summary: RunSummary) -> None:
    run_page(summary, tmp_path / "run.html")
    assert "</html>" in (tmp_path / "run.html").read_text()


def test_verdict_asks_for_seeds() -> None:
    assert "more than twice" in verdict(make_probe([0.5, 0.52, 0.51], [0.3, 0.31, 0.3]))
    assert "not more than twice" in verdict(make_probe([0.5, 0.3, 0.4], [0.3, 0.45, 0.38]))
    assert "chance" in verdict(make_probe([0.5], [0.3]))
    assert "nothing to compare" in verdict(make_probe([0.5], []))
    assert initialisations(make_probe([0.5], [0.3])) == ["random", "pretrained"]
    mean, spread, number = miou(make_probe([0.5, 0.7], []), "pretrained")
    assert (round(mean, 9), round(spread, 6), number) == (0.6, 0.141421, 2)


def test_a_line_ends_where_its_last_value_is() -> None:
    line = Line(name="a", steps=np.array([0.0, 50, 100]), values=np.array([0.0, math.nan, 1.0]))
    chart = line_chart("t", [line], smooth=False, percent=True)
    found = re.search(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)" class="line"', chart)
    assert found is not None
    x0, y0, x1, y1 = map(float, found.groups())
    ticks = {label: float(y) - 4 for y, label in re.findall(r'y="([\d.]+)" text-anchor="end">(\d+%)<', chart)}
    assert (x0, x1) == (64, 1184) and y0 == pytest.approx(ticks["0%"], abs=0.1)
    assert y1 == pytest.approx(ticks["100%"], abs=0.1)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 10))
@example(low=879609.9999999999, width=1e-06, wanted=3)
def test_ticks_are_few_round_and_inside(low: float, width: float, wanted: int) -> None:
    axis = Axis(low, low + width, 0, 100)
    ticks = axis.ticks(wanted)
    assert 1 <= len(ticks) <= wanted + 1
    grain = 100 * float(np.spacing(abs(low) + width)) / width  # what the last bit of a tick is worth on the axis
    assert all(-0.01 - 2 * grain <= axis(tick) <= 100.01 + 2 * grain for tick in ticks)


def test_running_mean_is_centred() -> None:
    ramp = np.arange(400.0)
    np.testing.assert_allclose(running_mean(ramp), ramp)
    noise = np.random.default_rng(0).normal(size=400)
    assert running_mean(noise).std() < 0.4 and len(running_mean(np.array([3.0]))) == 1


def test_curves_are_read_from_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 2.5, "lr": 0.1, "data_wait": 0.25}\n{"step": 2, "loss": null}\n{"step": 3, "lo'
    )
    curve = read_curve(tmp_path, "a")
    assert curve.step == (1, 2) and curve.loss[0] == 2.5 and curve.wait_share[0] == 0.25
    assert math.isnan(curve.loss[1]) and math.isnan(curve.learning_rate[1])
    path.write_text('{"step": 1}\n[3]\n')
    with pytest.raises(BrickyardError, match=r"metrics.jsonl line 2"):
        read_curve(tmp_path, "a")


def test_probes_of_several_runs_are_one_table(tmp_path: Path) -> None:
    sides = {"pretrained": {"miou": 0.4, "iou": {"a": 0.4}}, "random": {"miou": None, "iou": {"a": 0.2, "b": None}}}
    (tmp_path / "probe.json").write_text(json.dumps({"run": "runs/x", "seed": 3, **sides}))
    result = probe_of(read_results(tmp_path))
    assert result is not None
    joined = join_probes([result])
    assert joined.classes == ("a", "b") and [run.init for run in joined.runs] == ["random", "pretrained"]
    assert joined.runs[1].name == "x seed 3" and math.isnan(joined.runs[1].iou[1]) and math.isnan(joined.runs[0].miou)
