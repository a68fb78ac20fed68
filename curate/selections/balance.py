"""Balance: how often each scene is seen, so that neither the largest dataset nor the commonest street is all one sees.

A group (dataset or domain) of n scenes gets a share proportional to n^temperature: 1 leaves the mixture as it is, 0
gives every group the same. Within that, a scene's rarity is 1 over how many others look like it: a kernel density of
the embeddings among a sample of 512, as wide as the median distance. The effective number of scenes,
(sum w)^2 / sum w^2, says what a weighting costs in variety of visits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.selections.candidates import Candidates, Rows

_SAMPLE, _BLOCK = 512, 8192


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """How often scenes are seen.

    Attributes:
        over: what is balanced: "dataset" or "domain".
        temperature: 1 leaves the mixture as it is, 0 gives all groups the same.
        rarity: exponent of a scene's rarity, 0 for none; needs embeddings, scenes without one have a rarity of 1.
        most: no scene gets more than so many times the mean weight; nor less than one over that.
    """

    over: Literal["dataset", "domain"] = "dataset"
    temperature: float = 0.5
    rarity: float = 0.0
    most: float = 8.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 1 or self.rarity < 0 or not 1 <= self.most <= 1000:
            raise ValueError("temperature lies in 0..1, rarity is not negative, most in 1..1000")


def balance(scenes: Candidates, config: BalanceConfig) -> None:
    """Weight what is in; the mean weight stays what it was. Raises `CorpusError` for rarity without embeddings."""
    rows = scenes.alive
    if not len(rows):
        return
    names, before = scenes.text(config.over)[rows], scenes.weight[rows]
    weight = before.copy()
    if config.rarity > 0:
        weight *= rarity(scenes, rows) ** config.rarity
    for name in sorted(set(names)):
        mine = names == name
        weight[mine] *= before[mine].sum() ** config.temperature / weight[mine].sum()
    scenes.weight[rows] = weight = limited(weight, before.mean(), config.most)
    for row in rows.tolist():
        scenes.reason[row] = "balance"
    scenes.notes += _composition(names, before, weight, config.over)


def limited(weight: NDArray[np.float64], mean: float, most: float) -> NDArray[np.float64]:
    """The weights times a factor, then limited to `mean` / most .. `mean` * most: the factor with which their mean is
    `mean` all the same, by bisection."""
    low, high = mean / most / weight.max(), mean * most / weight.min()
    for _ in range(60):
        factor = float(np.sqrt(low * high))
        if np.clip(weight * factor, mean / most, mean * most).mean() < mean:
            low = factor
        else:
            high = factor
    return np.asarray(np.clip(weight * high, mean / most, mean * most))


def rarity(scenes: Candidates, rows: Rows) -> NDArray[np.float64]:
    """float64 (R,): one over how many others look like each, of mean 1 over what is known."""
    vectors, known = scenes.unit_vectors("embedding")
    there = rows[known[rows]]
    sample = vectors[there[np.linspace(0, len(there) - 1, min(_SAMPLE, len(there))).astype(int)]]
    few = sample[:: max(1, len(sample) // 256)]
    width = max(float(np.median(1 - few @ few.T)), 1e-6)
    density = np.empty(len(rows))
    for begin in range(0, len(rows), _BLOCK):
        apart = np.maximum(1 - vectors[rows[begin : begin + _BLOCK]] @ sample.T, 0)
        density[begin : begin + _BLOCK] = np.exp(-apart / width).mean(axis=1)
    mine = known[rows]
    return np.where(mine, density[mine].mean() / density, 1.0)


def effective(weight: NDArray[np.float64]) -> float:
    """The effective number of scenes of a weighting."""
    return float(weight.sum() ** 2 / np.square(weight).sum()) if weight.any() else 0.0


def _composition(
    names: NDArray[np.object_], before: NDArray[np.float64], after: NDArray[np.float64], over: str
) -> list[str]:
    lines = [f"balance: effective number of scenes {effective(before):.0f} before, {effective(after):.0f} after"]
    for name in sorted(set(names)):
        mine = names == name
        shares = (100 * weight[mine].sum() / weight.sum() for weight in (before, after))
        lines.append("balance: {} {}: {:.1f} % before, {:.1f} % after".format(over, name, *shares))
    return lines
