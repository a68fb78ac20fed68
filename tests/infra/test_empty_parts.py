"""A survey that is no rectangle: the squares of its grid without points are no scenes and no errors."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np

from brickyard.infra import cli
from brickyard.shards.corpus import Corpus


def test_empty_squares_are_passed_over(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    las = laspy.LasData(laspy.LasHeader(version="1.2", point_format=0))
    las.header.scales = [0.01] * 3
    las.x, las.y, las.z = np.linspace(0, 100, 400), np.linspace(0, 100, 400), np.zeros(400)
    las.write(str(raw / "strip.las"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: strip\nsources:\n  - dataset: pointfiles\n    root: {raw}\n    options: {{tile_m: 25.0}}\n"
    )
    out = tmp_path / "corpus"
    build = ["build", str(recipe), "--out", str(out), "--in-process"]
    assert cli.main(build) == 0
    corpus = Corpus.open(str(out))
    assert corpus.manifest["scenes"] < 16 and not corpus.manifest["quarantined"]
    assert sum(entry["n_points"] for entry in corpus.manifest["totals"].values()) == 400
    digest = corpus.manifest["digest"]
    assert cli.main(build) == 0 and Corpus.open(str(out)).manifest["digest"] == digest
    assert cli.main(["verify", str(out), "--deep"]) == 0
