"""The geometric shortcut: how well do features tell height and normals, next to what they tell of semantics?

Sonata's diagnosis (Wu et al., CVPR 2025, arXiv 2503.16429) is that networks on points solve a pretext task by geometry
that lies open in the coordinates, so that features hold height and surface direction and no meaning. This measures the
first half of that: linear regression of both from frozen features, fitted on the training scenes, scored on the
validation scenes. A high score is no fault in itself (raw inputs with a height and a normal among them score 1 and 0
degrees), it is one beside a low mean IoU.

The regression is a ridge on standardised features, solved in float64 from sums over voxels: one pass over the cached
features, C^2 numbers, exact. Normals are compared as lines, since many datasets' estimated normals have no consistent
side: the angle is at most 90 degrees, and 60 in the median between directions drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from brickyard.evaluate.features import Encoder
from brickyard.evaluate.protocols.protocol import Measured, StudentProtocol
from brickyard.evaluate.splits import DataConfig, train_rows, val_rows
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import Column
from brickyard.shards.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class ShortcutConfig(DataConfig):
    """The regression; labels are not used.

    Attributes:
        ridge: added to the diagonal of the features' correlation matrix.
        height_range: metres above the floor that count; beyond lie ceilings of halls, and outliers.
    """

    ridge: float = 1e-4
    height_range: tuple[float, float] = (-0.5, 10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ridge < 0 or self.height_range[0] >= self.height_range[1]:
            raise ValueError("ridge must not be negative, height_range must be (lower, upper)")


@dataclass(frozen=True, kw_only=True)
class ShortcutResult:
    """Scores over the voxels of the validation scenes.

    Attributes:
        height_r2: share of the variance of the height that is predicted; negative where the mean is a better guess.
        height_error: median of the absolute error, metres.
        normal_r2: mean of the three coordinates' shares, or None where the corpus has no normals.
        normal_angle: median angle between predicted and true normal as lines, degrees, or None.
        scenes: training and validation scenes.
    """

    height_r2: float
    height_error: float
    normal_r2: float | None
    normal_angle: float | None
    scenes: tuple[int, int]


def shortcut_check(encoder: Encoder, config: ShortcutConfig) -> ShortcutResult:
    """Fit and score; the encoder must have been made with `targets`.

    Raises:
        RecipeError: no scene in a split, or none with a point in the range of heights.
    """
    rows, held_out = train_rows(encoder.corpus, config), val_rows(encoder.corpus, config)
    height, normal = Ridge(config.ridge), Ridge(config.ridge)
    for features, targets, normals in _voxels(encoder, rows, config):
        height.add(features, targets)
        if normals is not None:
            known = normals.square().sum(1) > 0.25  # a zero is a point without a normal
            normal.add(features[known], normals[known])
    if not height.count:
        raise RecipeError(f"no point of split {config.train_split!r} lies {config.height_range} m above the floor")
    truth, guess, normal_truth, normal_guess = [], [], [], []
    for features, targets, normals in _voxels(encoder, held_out, config):
        truth.append(targets.double().cpu())
        guess.append(height.predict(features).cpu())
        if normals is not None and normal.count:
            known = normals.square().sum(1) > 0.25
            normal_truth.append(normals[known].double().cpu())
            normal_guess.append(normal.predict(features[known]).cpu())
    heights, guessed = torch.cat(truth), torch.cat(guess)
    normal_r2 = angle = None
    if normal_truth and sum(map(len, normal_truth)):
        lines, directions = torch.cat(normal_truth), torch.cat(normal_guess)
        normal_r2 = r_squared(lines, directions)
        angle = median_angle(lines, directions)
    return ShortcutResult(
        height_r2=r_squared(heights, guessed),
        height_error=float((heights - guessed).abs().median()),
        normal_r2=normal_r2,
        normal_angle=angle,
        scenes=(len(rows), len(held_out)),
    )


class Ridge:
    """Linear regression with an intercept from sums that are added up, in float64.

    Features and targets are counted from the first rows' means, so that sums of squares do not cancel.
    """

    def __init__(self, ridge: float) -> None:
        self._ridge, self.count = ridge, 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Rows (T, C) and targets (T, D)."""
        if not len(features):
            return
        x, y = features.double(), targets.double()
        if not self.count:
            self._origin = x.mean(0), y.mean(0)
            self._xx, self._xy = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1], y.shape[1])
            self._x, self._y = torch.zeros_like(self._origin[0]), torch.zeros_like(self._origin[1])
        x, y = x - self._origin[0], y - self._origin[1]
        self.count += len(x)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._weights: Tensor | None = None

    def predict(self, features: Tensor) -> Tensor:
        """float64 (T, D)."""
        mean_x, mean_y = self._x / self.count, self._y / self.count
        if self._weights is None:
            covariance = self._xx / self.count - torch.outer(mean_x, mean_x)
            cross = self._xy / self.count - torch.outer(mean_x, mean_y)
            deviation = covariance.diagonal().clamp(min=0).sqrt().clamp(min=1e-9)
            correlation = covariance / torch.outer(deviation, deviation)
            correlation += self._ridge * torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
            # a least-squares solver that also takes a singular matrix (channels that are copies, no ridge)
            solved = torch.linalg.pinv(correlation, hermitian=True) @ (cross / deviation[:, None])
            self._weights = solved / deviation[:, None]
        return (features.double() - self._origin[0] - mean_x) @ self._weights + mean_y + self._origin[1]


def r_squared(truth: Tensor, guess: Tensor) -> float:
    """1 - squared error / variance, mean over the columns of (T, D) that vary; 0 where none does."""
    variance = (truth - truth.mean(0)).square().sum(0)
    varies = variance > 1e-12
    error = (truth - guess).square().sum(0)
    return float((1 - error[varies] / variance[varies]).mean()) if bool(varies.any()) else 0.0


def median_angle(truth: Tensor, guess: Tensor) -> float:
    """Median angle in degrees, 0..90, between the lines along vectors (T, 3)."""
    cosine = functional.cosine_similarity(truth, guess, dim=1).abs().clamp(max=1)
    return float(torch.rad2deg(torch.arccos(cosine)).median())


def _voxels(
    encoder: Encoder, rows: NDArray[np.int64], config: ShortcutConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """(features, heights (T, 1), normals (T, 3)) of the voxels of each scene, by their representatives."""
    low, high = config.height_range
    for scene in encoder.scenes(rows):
        assert scene.height is not None, "the encoder was made without targets"
        chosen = scene.rows.representative
        height = scene.height[chosen]
        within = (height >= low) & (height <= high)
        normal = None if scene.normal is None else scene.normal[chosen][within]
        yield scene.rows.features[within], height[within][:, None], normal


class GeometricShortcut(StudentProtocol[ShortcutConfig]):
    """See the module's text."""

    config = ShortcutConfig
    reads_features = True
    columns = (
        Column(metric="height_r2", title="height R²"),
        Column(metric="normal_r2", title="normal R²"),
        Column(metric="normal_angle", title="normal angle °", less_is_better=True),
    )

    def run(self, subject: Subject, config: ShortcutConfig) -> Measured:
        result = shortcut_check(subject.encoder(config), config)
        names = ("height_r2", "height_error", "normal_r2", "normal_angle")
        return Measured(metrics={name: getattr(result, name) for name in names}, scenes=result.scenes)


PROTOCOL = GeometricShortcut()
