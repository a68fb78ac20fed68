"""A protocol and a network of a third party: PSNR of something that is no student, in every table and on the page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.evaluate.protocols.protocol import Measured, Protocol, Published
from brickyard.evaluate.records import read_results
from brickyard.evaluate.splits import SceneConfig, val_rows
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import Column
from brickyard.infra import reference
from brickyard.infra.cli import main
from brickyard.shards.corpus import Corpus
from brickyard.train.students.base import Exported, ExportedConfig
from brickyard.train.students.export import export_student
from tests.evaluate.rooms import room_corpus

RECIPE = """
name: rooms
evaluate:
  linear_probe: {taxonomy: scannet20, dataset: scannet, threads: 1}
  protocols: [painting, painting-dark]
  settings:
    painting-dark: {exposure: 0.25}
"""


@dataclass(frozen=True, kw_only=True)
class PainterConfig(ExportedConfig):
    kind: ClassVar[str] = "painter"
    start: float = 0.9

    def build(self, device: torch.device | str = "cpu") -> Painter:
        return Painter(self, device)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        return cls(start=float(table["start"]))


class Painter(Exported):
    """It paints every point in one colour; what training would find is the mean."""

    def __init__(self, config: PainterConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.config = config
        self.colour = nn.Parameter(torch.full((3,), config.start, device=device))

    def paint(self, points: int) -> torch.Tensor:
        return self.colour.detach().expand(points, 3)


@dataclass(frozen=True, kw_only=True)
class PaintingConfig(SceneConfig):
    """How bright the real colours are shown; `exposure` is a factor."""

    exposure: float = 1.0


class Painting(Protocol[PaintingConfig]):
    config = PaintingConfig
    needs = Painter
    columns = (
        Column(metric="psnr", title="PSNR dB", digits=2),
        Column(metric="error", title="error", digits=3, less_is_better=True),
    )

    def __init__(self) -> None:
        self.presets = {"painting-dark": PaintingConfig(exposure=0.5)}

    def run(self, subject: Subject, config: PaintingConfig) -> Measured:
        rows = val_rows(subject.corpus, config)
        assert isinstance(subject.network, Painter)
        squares = []
        for row in rows.tolist():
            points = subject.corpus.scene(row).points
            assert points is not None and points.color is not None
            painted = subject.network.paint(len(points.color)).numpy()
            squares.append(np.square(painted - config.exposure * points.color / 255).ravel())
        error = float(np.concatenate(squares).mean())
        return Measured(metrics={"psnr": -10 * math.log10(error), "error": error}, scenes=(0, len(rows)))

    def published(self, name: str, config: PaintingConfig, scenes: tuple[int, int]) -> Published:
        return Published(source="published (Painters)", values={"psnr": 31.0})


PROTOCOL = Painting()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A corpus, a recipe, a run that has exported a painter, and the plugin installed."""
    installed = tmp_path / "plugin" / "painting-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: painting\nVersion: 1.0\n")
    protocol, student = f"painting = {__name__}:PROTOCOL", f"painter = {__name__}:PainterConfig"
    lines = ["[brickyard.protocols]", protocol, "[brickyard.students]", student, ""]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    corpus = room_corpus(tmp_path / "corpus", train=1, val=2, points=120)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    final = tmp_path / "run" / "final"
    final.mkdir(parents=True)
    painter = PainterConfig().build()
    colours = [corpus.scene(int(row)).points.color for row in corpus.select(split="val")]  # type: ignore[union-attr]
    with torch.no_grad():
        painter.colour.copy_(torch.from_numpy(np.concatenate(colours).mean(0) / 255))  # type: ignore[arg-type]
    export_student(painter, final)
    config = {"train": {"seed": 7}, "objective": {"name": "painting", "student": {}}, "corpus": "abc"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    yield tmp_path


def evaluate(root: Path) -> int:
    return main(["evaluate", str(root / "recipe.yaml"), "--run", str(root / "run"), "--corpus", str(root / "corpus")])


def expected(root: Path, exposure: float, colour: float | None) -> float:
    """PSNR by another way: of the mean colour, the mean square is the variance about it."""
    corpus = Corpus.open(root / "corpus")
    scenes = [corpus.scene(int(row)).points for row in corpus.select(split="val")]
    colours = np.concatenate([points.color for points in scenes if points is not None])  # type: ignore[misc]
    mean = colours.mean(0) / 255 if colour is None else colour
    return -10 * math.log10(((mean - exposure * colours / 255) ** 2).mean())


def test_its_number_stands_in_the_table_and_on_the_page(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(root) == 0
    printed = capsys.readouterr().out
    plain, dark = read_results(root / "run")
    assert (plain["protocol"], dark["protocol"], dark["settings"]["exposure"]) == ("painting", "painting-dark", 0.25)
    assert list(plain["results"]) == ["random", "pretrained"] and (plain["train_scenes"], plain["val_scenes"]) == (0, 2)
    assert plain["settings"] == {
        "dataset": "scannet",
        "val_split": "val",
        "val_scenes": None,
        "threads": 1,
        "exposure": 1.0,
    }
    ours, base = (plain["results"][init]["psnr"] for init in ("pretrained", "random"))
    assert ours == pytest.approx(expected(root, 1.0, None), abs=1e-4)
    assert base == pytest.approx(expected(root, 1.0, 0.9), abs=1e-4) and base < ours
    assert plain["fingerprint"] != dark["fingerprint"]
    line = next(line for line in printed.splitlines() if line.startswith("painting, PSNR dB"))
    assert f"{base:.2f}" in line and f"{ours:.2f}" in line and "31.00, published (Painters)" in line
    assert any(line.startswith("painting, error ↓") for line in printed.splitlines())

    assert main(["show", str(root / "run"), "--out", str(root / "page.html")]) == 0
    page = (root / "page.html").read_text()
    assert "painting-dark, PSNR dB" in page and f"{ours:.2f}" in page and "published (Painters)" in page
    capsys.readouterr()
    assert main(["runs", str(root / "run")]) == 0
    assert f"{ours:.2f}" in capsys.readouterr().out


def test_the_page_needs_no_plugin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(root) == 0
    monkeypatch.undo()
    assert main(["show", str(root / "run"), "--out", str(root / "page.html")]) == 0
    assert "painting-dark, PSNR dB" in (root / "page.html").read_text()


@pytest.mark.parametrize(
    ("protocols", "said"),
    [
        ("[painting, knn]", "protocol 'knn' judges a Student, and a 'painter' is none"),
        ('["painting@5%"]', "no data-efficient split"),
        ("[paintings]", "nearest: painting,"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_work(
    root: Path, capsys: pytest.CaptureFixture[str], protocols: str, said: str
) -> None:
    (root / "recipe.yaml").write_text(f"name: rooms\nevaluate: {{protocols: {protocols}}}\n")
    assert evaluate(root) == 2
    assert said in capsys.readouterr().err
    assert read_results(root / "run") == []


def test_the_reference_knows_our_own_alone(root: Path) -> None:
    assert "knn" in reference.protocols() and "painting" not in reference.protocols()


def test_a_column_that_was_not_measured_is_a_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Painting, "columns", (Column(metric="ssim", title="SSIM"),))
    assert evaluate(root) == 1
    assert "protocol 'painting' has a column 'ssim', but measured psnr, error" in capsys.readouterr().err
