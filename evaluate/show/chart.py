"""Charts as inline SVG: lines over steps, and bars per class. Ticks are round; colours follow the page's theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.show.html import Content, Html, tag

COLOURS = tuple(f"var(--s{i})" for i in range(6))
_WIDTH, _HEIGHT = 1200, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 34
_MAX_DRAWN = 800


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series: steps and values are equally long, values that are not finite are gaps."""

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One value and its spread (minimum, maximum over runs) per group; NaN where a group has none."""

    name: str
    colour: str
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def line_chart(
    title: str, lines: Sequence[Line], *, smooth: bool = True, percent: bool = False, over: str = "step"
) -> Html:
    """Lines over steps (or what `over` names): raw values faint, their running mean strong, the last value named in
    the legend."""
    finite = [np.isfinite(line.values) for line in lines]
    values = np.concatenate([line.values[keep] for line, keep in zip(lines, finite, strict=True)])
    steps = np.concatenate([line.steps[keep] for line, keep in zip(lines, finite, strict=True)])
    if not len(values):
        return tag("p", "Nothing was logged.", class_="soft")
    low, high = _value_range(values, percent)
    across = _Axis(float(steps.min()), float(steps.max()), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts = _grid(across, up, percent, over)
    legend = []
    for number, (line, keep) in enumerate(zip(lines, finite, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        x, y = line.steps[keep], line.values[keep]
        if not len(y):
            continue
        mean = running_mean(y) if smooth else y
        if smooth:
            parts.append(tag("path", d=_path(across, up, x, y), class_="raw", stroke=colour))
        parts.append(tag("path", d=_path(across, up, x, mean), class_="line", stroke=colour))
        legend.append(_entry(colour, f"{line.name}: {_figure(float(mean[-1]), percent)}"))
    svg = tag("svg", parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title)
    return tag("div", tag("div", svg, class_="chart"), tag("p", legend, class_="legend", style="margin-top:8px"))


def running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a window centred on each value, a twentieth of the curve wide and narrower towards the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    reach = np.minimum(len(values) // 40, np.minimum(place, len(values) - 1 - place))
    return np.asarray((total[place + reach + 1] - total[place - reach]) / (2 * reach + 1))


def bar_chart(title: str, groups: Sequence[str], series: Sequence[Bars]) -> Html:
    """Horizontal bars of 0..1, one row per group, with whiskers from the least to the greatest run."""
    left, right, bar = 190, 70, 13
    row = bar * len(series) + 14
    height = row * len(groups) + 40
    across = _Axis(0.0, 1.0, left, _WIDTH - right)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts: list[Content] = [tag("path", d=f"M{across(t):.1f} 8V{height - 28}", class_="grid") for t in ticks]
    parts += [tag("text", f"{t:.0%}", x=across(t), y=height - 10, text_anchor="middle") for t in ticks]
    for place, group in enumerate(groups):
        top = 12 + place * row
        middle = top + bar * len(series) / 2
        parts.append(tag("text", group, x=left - 12, y=middle + 4, text_anchor="end", class_="name"))
        for number, bars in enumerate(series):
            parts.append(_bar(across, bars, place, top + number * bar, bar - 2))
    legend = [_entry(bars.colour, bars.name) for bars in series]
    svg = tag("svg", parts, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=title)
    return tag("div", tag("div", svg, class_="chart"), tag("p", legend, class_="legend", style="margin-top:8px"))


class _Axis:
    """Value -> SVG coordinate."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high if high > low else low + 1
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, wanted: int) -> list[float]:
        """Round values (1, 2, 2.5 or 5 times a power of ten) that split the axis into about `wanted` parts."""
        rough = (self.high - self.low) / wanted
        power = 10 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _value_range(values: NDArray[np.float64], percent: bool) -> tuple[float, float]:
    """What the y axis covers: everything but the topmost percent, so that one spike does not flatten a curve."""
    if percent:
        return 0.0, max(0.1, min(1.0, float(values.max()) * 1.1))
    low, high = float(values.min()), float(np.percentile(values, 99))
    high = max(high, float(np.median(values)))
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-9)
    return (0.0 if 0 <= low < 0.3 * high else low - margin), high + margin


def _grid(across: _Axis, up: _Axis, percent: bool, over: str) -> list[Html]:
    parts = []
    for tick in up.ticks(5):
        y = up(tick)
        parts.append(tag("path", d=f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}", class_="grid"))
        parts.append(tag("text", _figure(tick, percent), x=_LEFT - 8, y=f"{y + 4:.1f}", text_anchor="end"))
    for tick in across.ticks(8):
        parts.append(tag("text", f"{tick:g}", x=f"{across(tick):.1f}", y=_HEIGHT - 12, text_anchor="middle"))
    parts.append(tag("text", over, x=_WIDTH - _RIGHT, y=_HEIGHT - 1, text_anchor="end"))
    return parts


def _path(across: _Axis, up: _Axis, steps: NDArray[np.float64], values: NDArray[np.float64]) -> str:
    """SVG path of a series, thinned to _MAX_DRAWN points and kept inside the chart."""
    every = max(1, len(steps) // _MAX_DRAWN)
    chosen = np.union1d(np.arange(0, len(steps), every), [len(steps) - 1])
    inside = np.clip(values[chosen], up.low, up.high)
    return "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in zip(steps[chosen], inside, strict=True))


def _bar(across: _Axis, bars: Bars, place: int, y: float, thick: float) -> list[Html]:
    value, low, high = bars.values[place], bars.low[place], bars.high[place]
    if not math.isfinite(value):
        return [tag("text", "does not occur", x=across(0) + 6, y=y + thick - 1)]
    clipped = min(max(value, 0.0), 1.0)
    width = max(across(clipped) - across(0), 1.0)
    shape = tag("rect", x=across(0), y=y, width=f"{width:.1f}", height=thick, rx=2, fill=bars.colour)
    end = across(clipped)
    whisker: list[Html] = []
    if high > low:
        middle = y + thick / 2
        path = f"M{across(low):.1f} {middle}H{across(high):.1f}"
        whisker = [tag("path", d=path, stroke="currentColor", stroke_width=1.5, opacity=0.75)]
        end = across(high)
    return [shape, *whisker, tag("text", f"{value * 100:.1f}", x=f"{end + 6:.1f}", y=y + thick - 1)]


def _entry(colour: str, words: str) -> Html:
    return tag("span", tag("i", style=f"background:{colour}"), words)


def _figure(value: float, percent: bool) -> str:
    return f"{value:.3g}" if not percent else f"{value:.0%}"
