"""Surfaces: of a room known exactly, cut to what views see, measured, and written for other programs."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from brickyard.evaluate.posed_views import read_posed_view
from brickyard.evaluate.protocols.reconstruction import PROTOCOL, ReconstructionConfig
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.surfaces import (
    Surface,
    seen_points,
    seen_surface,
    surface_errors,
    surface_of,
    surface_ply,
    surface_points,
)
from brickyard.shards.stream import Stream
from brickyard.train.rendering.network import RenderingConfig
from brickyard.train.rendering.rays import Frame
from brickyard.train.rendering.renderer import Filled
from brickyard.train.rendering.volume import Grid
from tests.train.objectives.test_ponder import SMALL
from tests.train.posed_rooms import METRES, PLACE, corpus_of, posed_room
from tests.train.rendering.solids import distance_to

SQUARE = Surface(
    vertices=np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), faces=np.array([[0, 1, 2], [0, 2, 3]])
)


def exact(cells: int) -> Surface:
    """The surface of the exact room, from a renderer that knows it."""
    grid = Grid(low=(-0.55,) * 3, high=(0.55,) * 3, shape=(4, 4, 4))
    folded = SimpleNamespace(distances=lambda rows, grid, points: distance_to(points))
    field = SimpleNamespace(folded=lambda: folded)
    renderer: Any = SimpleNamespace(grid=grid, config=SimpleNamespace(range=None), field=field)
    frame = Frame(origin=torch.tensor(PLACE).float()[None], scale=torch.full((1, 3), 1 / METRES))
    return surface_of(renderer, Filled(volume=torch.zeros(1, 2, 4, 4, 4), frame=frame), cells)


def test_the_surface_of_an_exact_field_is_exact(tmp_path: Path) -> None:
    surface = exact(60)
    off = distance_to(torch.from_numpy((surface.vertices - PLACE) / METRES)).abs() * METRES
    assert float(off.mean()) < 0.01 and float(off.max()) < 0.06
    corpus = corpus_of(tmp_path, [posed_room(views=6, count=20_000)])
    sample: Any = next(iter(Stream(corpus, ["points/*", "views/*"], batch=1, threads=1)))[0]
    views = [read_posed_view(sample, number, 24) for number in range(6)]
    real = sample["points/xyz"].dequantise().astype(np.float64)
    cut = seen_surface(surface, views)
    assert 0 < len(cut.faces) < len(surface.faces) and cut.faces.max() == len(cut.vertices) - 1
    assert seen_points(cut.vertices, views).all() and 0.2 < seen_points(real, views).mean() < 1
    errors = surface_errors(surface_points(cut, 20_000), real[seen_points(real, views)], 0.05)
    assert errors["recall"] > 0.9 and errors["completeness"] < 0.03  # edges of what is seen fray


def test_a_field_without_a_surface_has_none() -> None:
    torch.manual_seed(0)
    network = RenderingConfig(student=SMALL.student, renderer=SMALL.renderer).build().eval()
    with torch.no_grad():
        network.renderer.field.sdf.layers[-1].bias[0] += 100  # type: ignore[index, operator]
    filled = Filled(
        volume=torch.zeros(1, 16, *SMALL.renderer.cells), frame=Frame(origin=torch.zeros(1, 3), scale=torch.ones(1, 3))
    )
    surface = surface_of(network.renderer, filled, 10)
    assert not len(surface.faces) and not len(surface_points(surface, 5))
    none = surface_errors(np.empty((0, 3)), np.zeros((3, 3)), 0.05)
    assert none["f_score"] == 0 and np.isnan(none["accuracy"])


def test_errors_are_distances_and_shares() -> None:
    found = np.array([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0]])
    real = np.array([[0.0, 0, 0.02], [1, 0, 0.04], [5, 0, 1.0]])
    errors = surface_errors(found, real, 0.05)
    assert errors["precision"] == 0.5 and errors["recall"] == pytest.approx(2 / 3)
    assert errors["f_score"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert errors["completeness"] == pytest.approx((0.02 + 0.04 + 1) / 3)


def test_points_are_spread_evenly_over_the_area() -> None:
    points = surface_points(SQUARE, 20_000)
    assert np.abs(points[:, 2]).max() == 0 and points.min() >= 0 and points[:, :2].max() <= 1
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=4, range=[[0, 1], [0, 1]])
    assert np.abs(counts / 20_000 - 1 / 16).max() < 0.01


def test_other_programs_read_the_surface() -> None:
    read: Any = trimesh.load(io.BytesIO(surface_ply(SQUARE)), file_type="ply", process=False)
    np.testing.assert_array_equal(read.vertices, SQUARE.vertices)
    np.testing.assert_array_equal(read.faces, SQUARE.faces)
    assert read.area == pytest.approx(1)


def test_the_protocol_measures_and_keeps_surfaces(tmp_path: Path) -> None:
    torch.manual_seed(0)
    corpus = corpus_of(tmp_path, [posed_room(views=3, split="val")])
    network = RenderingConfig(student=SMALL.student, renderer=SMALL.renderer).build()
    measured = PROTOCOL.run(Subject(network, corpus), ReconstructionConfig(cells=12, points=100))
    assert measured.scenes == (0, 1) and 0 <= measured.metrics["f_score"] <= 1 and network.training
    assert list(measured.files) == ["solids-room-000-surface.ply"]
    with pytest.raises(ValueError, match="near must be positive"):
        ReconstructionConfig(near=0)
