"""Every row of the tables in docs/recovery.md: the power fails there, and disk, reader and rerun are as it says."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from brickyard.shards.errors import CorpusError
from tests import kill_scenarios
from tests.faults import faults
from tests.kill_matrix import Scenario, tree

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recovery.md"
HERE = "test_crash_points.py::test_crash_point"

POINTS = {
    "build 1": ("build", "replace", "build.json"),
    "build 2": ("build", "mkdir", "shards"),
    "build 3": ("build", "replace", "shards/*"),
    "build 4": ("build", "replace", "parts/*"),
    "build 5": ("build", "replace", "shards/*"),
    "build 6": ("build", "replace", "index.parquet"),
    "build 7": ("build", "replace", "manifest.json"),
    "build 8": ("build", "unlink", "build.lock"),
    "losses 1": ("build that loses scenes", "replace", "parts/00001.parquet"),
    "losses 2": ("build that loses scenes", "replace", "manifest.json"),
    "mend 1": ("--retry-quarantined", "delete", "manifest.json"),
    "mend 2": ("--retry-quarantined", "replace", "build.json"),
    "mend 3": ("--retry-quarantined", "delete", "parts/*"),
    "mend 4": ("--retry-quarantined", "replace", "shards/00001-*"),
    "mend 5": ("--retry-quarantined", "delete", "shards/*"),
    "grow 1": ("--grow", "replace", "build.json"),
    "grow 2": ("--grow", "replace", "shards/00002-*"),
    "grow 3": ("--grow", "delete", "manifest.json"),
    "grow 4": ("--grow", "replace", "index.parquet"),
    "accept 1": ("--accept-code", "replace", "build.json"),
    "accept 2": ("--accept-code", "replace", "shards/00001-*"),
    "repair 1": ("repair", "replace", "shards/*"),
    "repair 2": ("repair", "replace", "index.parquet"),
    "layer 1": ("layer", "replace", "layers/heights/build.json"),
    "layer 2": ("layer", "replace", "layers/heights/manifest.json"),
    "convert 1": ("convert", "replace", "shards/00001-*"),
    "select 1": ("selection", "replace", "chosen.parquet"),
    "export 1": ("export ply", "replace", "train/*"),
    "export 2": ("export ply", "replace", "export.json"),
    "gc 1": ("gc", "delete", "quarantined.parquet"),
}
"""Row -> the scenario of the kill matrix, and the operation that is not done any more."""

SECOND = {"build 5", "export 1", "export 2"}
"""Rows about the second operation of that kind, not the first."""


def rows() -> dict[str, list[str]]:
    """The cells of all rows of the page, by the first cell."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row for row in cells if row[0] not in ("", "what")}


ROWS = rows()
CRASHES = {name: row for name, row in ROWS.items() if len(row) == 6}


OURS = re.compile(r"/(parts|train)/[^.]")
"""Commit records and exported scenes."""


class PowerFailure(BaseException):
    """Nothing that changes a file is done from now on."""


def power_fails(at: str) -> Callable[[str, str], None]:
    """What to call before each operation."""
    _, wanted, pattern = POINTS[at]
    left = 2 if at in SECOND else 1

    def before(operation: str, path: str) -> None:
        nonlocal left
        if left and operation == wanted and fnmatchcase(inside(path), pattern):
            left -= 1
        if not left:
            raise PowerFailure

    return before


def inside(path: str) -> str:
    """In the corpus, which is a folder in the place that is watched; a selection lies in the place itself."""
    return path.partition("/")[2] or path


def files(place: str) -> set[str]:
    return {inside(name) for name in tree(place) if not name.endswith("build.lock")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("crash-points")
    kill_scenarios.make_material(home)
    return home


@pytest.mark.parametrize("name", CRASHES)
def test_crash_point(home: Path, name: str) -> None:
    _, _, disk, reader, again, test = CRASHES[name]
    assert test == f"`{HERE}[{name}]`"
    scenario = kill_scenarios.LOCAL[POINTS[name][0]](home)
    whole, place = (str(home / name.replace(" ", "-")) + end for end in ("-whole", ""))
    scenario.prepare(place)
    scenario.prepare(whole)
    former = seen(scenario, whole)
    scenario.act(whole)
    with faults(place) as state, pytest.raises(PowerFailure):
        state.before = power_fails(name)
        scenario.act(place)
    patterns = re.findall(r"`([^`]+)`", disk)
    assert not [file for file in files(place) if not any(fnmatchcase(file, p) for p in patterns)], "not in the table"
    assert not [p for p in patterns if not any(fnmatchcase(file, p) for file in files(place))], "not on the disk"
    if refusal := re.search(r'(?:refused:|finds no) "([^"]+)"', reader):
        with pytest.raises(CorpusError, match=refusal[1]):
            scenario.look(place)
        assert not reader.startswith("sees the corpus") or kill_scenarios.look(place)
    else:
        wanted = {"sees the corpus": scenario.look(whole), "sees the damaged corpus": "damaged"}
        assert scenario.look(place) == wanted.get(reader, former), reader
    made = {path: path.stat().st_mtime_ns for path in Path(place).rglob("*") if OURS.search(str(path))}
    if "without the flag it names" in again:
        with pytest.raises(CorpusError, match=r"What differs|was begun with other raw data"):
            kill_scenarios.build(place)
    (kill_scenarios.build if "also without the flag" in again else scenario.act)(place)
    assert tree(place) == tree(whole)
    if "keeps" in again:
        assert made and {path: path.stat().st_mtime_ns for path in made} == made, "made again"


def seen(scenario: Scenario, place: str) -> str | None:
    try:
        return scenario.look(place)
    except CorpusError:
        return None


def test_every_point_is_a_row() -> None:
    assert CRASHES.keys() == POINTS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_every_row_names_a_test_that_is_there(name: str) -> None:
    file, _, rest = ROWS[name][-1].strip("`").partition("::")
    (path,) = (ROOT / "tests").rglob(file)
    functions = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    assert rest.partition("[")[0] in functions
