"""What the documentation says was measured is what the records say."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from tests.benchmarks import comparison, loader_picture

ROOT = Path(__file__).parents[1]


def test_the_pages_are_what_the_newest_records_give() -> None:
    changed = comparison.differing(comparison.records())
    assert not changed, f"{', '.join(changed)}: run `python -m tests.benchmarks.comparison`"


def test_the_picture_is_what_the_newest_record_gives(tmp_path: Path) -> None:
    loader_picture.draw(comparison.records()["loader"][-1]["rows"], tmp_path / "loader.svg")
    assert (tmp_path / "loader.svg").read_bytes() == loader_picture.OUT.read_bytes()


@pytest.mark.parametrize("name", ["loader", "corruption", "features", "remote", "training", "readers", "encoding"])
def test_another_measurement_is_another_page(name: str) -> None:
    """The test above notices a record that changed: numbers of the last record are moved, the page is to move, too."""
    found = copy.deepcopy(comparison.records())
    for row in found[name][-1]["rows"]:
        for key, value in row.items():
            row[key] = 3 * value + 1 if isinstance(value, int | float) else value
            row[key] = "perhaps" if value in ("yes", "no") else row[key]
    assert comparison.differing(found)


def test_a_page_without_its_marks_is_noticed() -> None:
    with pytest.raises(ValueError, match="'loader' stands 0 times"):
        comparison.render("no marks", {"loader": lambda found: ""}, {})


def test_records_name_no_machine_and_no_folder() -> None:
    for path in (ROOT / "tests" / "benchmarks" / "results").glob("*.json"):
        assert not re.search(r"/(tmp|work|root|home|usr)/|localhost", path.read_text()), path.name
        assert all(record["date"] and record["commit"] for record in json.loads(path.read_text()))
