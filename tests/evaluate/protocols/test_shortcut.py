"""Height and normals by linear regression: against numpy, from what knows them and from what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from brickyard.evaluate.features import Encoder, RawStudent, floor_of, random_student
from brickyard.evaluate.protocols.shortcut import Ridge, ShortcutConfig, median_angle, r_squared, shortcut_check
from brickyard.train.students.point import PointStudent, PointStudentConfig
from tests.evaluate.rooms import room_corpus

CONFIG = ShortcutConfig(taxonomy="scannet20", threads=1)
TINY = PointStudentConfig(network="tiny", size=0.05)


def test_the_regression_is_least_squares_whatever_the_scale() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)) * (1e-3, 1, 1e3, 1, 1) + (0, 1e3, 0, 5, 0)
    y = np.stack([x[:, 0] * 3 + x[:, 4], np.sin(x[:, 3])], 1) + 7
    model = Ridge(0.0)
    for part in np.array_split(np.arange(200), 7):
        model.add(torch.from_numpy(x[part]), torch.from_numpy(y[part]))
    design = np.c_[x, np.ones(200)]
    expected = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(model.predict(torch.from_numpy(x)).numpy(), expected, rtol=1e-6, atol=1e-6)
    copies = Ridge(1e-4)  # a singular matrix is no obstacle
    copies.add(torch.from_numpy(np.c_[x, x]), torch.from_numpy(y))
    assert np.isfinite(copies.predict(torch.from_numpy(np.c_[x, x])).numpy()).all()


def test_r_squared_is_the_textbooks() -> None:
    truth = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert r_squared(truth, truth) == 1
    assert r_squared(truth, truth.mean().expand(4, 1)) == 0
    assert r_squared(truth, 5 - truth) == pytest.approx(1 - 20 / 5)


def test_angles_are_between_lines() -> None:
    up, half = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 3.0, 3.0]])
    assert median_angle(up, -up) == pytest.approx(0, abs=1e-3)
    assert median_angle(up, half) == median_angle(up, -half) == pytest.approx(45)
    generator = torch.Generator().manual_seed(0)
    blind = [torch.randn(20_000, 3, generator=generator) for _ in range(2)]
    assert median_angle(*blind) == pytest.approx(60, abs=1)


def test_raw_inputs_know_all_and_colours_little(tmp_path: Path) -> None:
    corpus, like = room_corpus(tmp_path), PointStudent(TINY)

    def check(inputs: tuple[str, ...]) -> object:
        return shortcut_check(Encoder(RawStudent(like, inputs), corpus, "scannet20", targets=True), CONFIG)  # type: ignore[arg-type]

    everything = check(("height", "color", "normal"))
    assert everything.height_r2 > 0.999 and everything.height_error < 0.01  # type: ignore[attr-defined]
    assert everything.normal_r2 > 0.999 and everything.normal_angle < 1  # type: ignore[attr-defined]
    assert everything.scenes == (4, 2)  # type: ignore[attr-defined]
    colour = check(("color",))
    assert colour.height_r2 < 0.8 and colour.normal_r2 < 0.9  # type: ignore[attr-defined]
    network = shortcut_check(Encoder(random_student(TINY, 0).eval(), corpus, "scannet20", targets=True), CONFIG)
    assert colour.height_r2 < network.height_r2 <= 1  # type: ignore[attr-defined]


def test_without_normals_there_is_no_angle(tmp_path: Path) -> None:
    corpus = room_corpus(tmp_path, train=1, val=1, points=200, normals=False)
    like = PointStudent(PointStudentConfig(network="tiny", inputs=("xyz", "color"), size=0.05))
    result = shortcut_check(Encoder(RawStudent(like, ("height",)), corpus, "scannet20", targets=True), CONFIG)
    assert result.normal_r2 is None and result.normal_angle is None and result.height_r2 > 0.99


def test_the_floor_is_not_the_lowest_outlier() -> None:
    xyz = torch.zeros(1000, 3)
    xyz[0, 2] = -5
    assert floor_of(xyz) == 0
