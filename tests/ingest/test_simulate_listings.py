"""Listings of whole releases: every source plans them, with the published numbers of scenes and splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from brickyard.infra.cli import main
from brickyard.infra.plan import make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.ingest.simulate.listings import LISTINGS, write_listings
from brickyard.shards.errors import RecipeError
from tests.benchmarks import planning


@pytest.fixture(scope="module")
def share() -> float:
    return 0.01


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, share: float) -> Path:
    folder = tmp_path_factory.mktemp("listings")
    write_listings(folder, share=share)
    return folder


def test_the_recipe_of_the_corpus_plans_them(raw: Path, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LISTINGS:
        monkeypatch.setenv(name.upper(), str(raw / name))
    recipe, folder = load_recipe(planning.RECIPE, [])
    plan = make_plan(recipe, folder)
    assert not plan.missing
    found = Counter((ref.key.partition("/")[0], ref.split) for ref in plan.refs)
    for name, source in zip(LISTINGS, recipe.sources, strict=True):
        for split, scenes in source.expected.items():
            if name in ("s3dis", "scannetpp", "hm3d", "ase"):  # shared out by area; chunks; the largest; by digests
                continue
            wanted = round(scenes * share)
            assert abs(found[name, split] - wanted) <= 0.2 * wanted + 2, (name, split)
    assert sum(scenes for (name, _), scenes in found.items() if name == "ase") == 1000
    assert {split for name, split in found if name == "s3dis"} == {"train", "val"}
    assert all(ref.points_estimate > 0 and ref.bytes_estimate > 0 for ref in plan.refs)


def test_they_take_no_room(raw: Path) -> None:
    files = [path.stat() for path in raw.rglob("*") if path.is_file()]
    apparent, real = sum(f.st_size for f in files), sum(512 * f.st_blocks for f in files)
    assert apparent > 100 << 30 and real < 64 << 20


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "listed")
    assert main(["simulate", "--out", out, "--datasets", "s3dis,ase", "--listings", "0.001"]) == 0
    assert "ase: 100 scenes, 21" in (text := capsys.readouterr().out) and "GiB of holes" in text
    assert (
        sorted(path.name for path in Path(out).iterdir()) == ["ase", "s3dis"] and (Path(out) / "ase/LICENSE").exists()
    )
    assert main(["simulate", "--out", out, "--datasets", "kitti", "--listings"]) == 2
    assert main(["simulate", "--out", out, "--datasets", "ase", "--listings", "2"]) == 2
    assert main(["simulate", "--out", out, "--listings", "--config", "sizes.yaml"]) == 2
    with pytest.raises(RecipeError, match="no listing of 'kitti'"):
        write_listings(tmp_path, datasets=["kitti"])


def test_the_benchmark_runs(tmp_path: Path) -> None:
    rows = planning.measured(tmp_path, 0.001)
    assert [row["dataset"] for row in rows] == [*LISTINGS, "all"]
    assert rows[-1]["scenes"] == sum(row["scenes"] for row in rows[:-1]) > 100
    assert rows[-1]["mib"] < 2048
