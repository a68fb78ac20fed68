"""Tables of the real release: every name of an object in it has a class, and files are z up."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from brickyard.ingest.hm3d.names import BUILDING, split_of
from brickyard.ingest.hm3d.semantics import classes
from brickyard.shards.scene import UNLABELLED

pytestmark = pytest.mark.real


def test_every_name_of_the_annotated_buildings_is_known(samples: Path) -> None:
    """1,624 names of 142,646 objects."""
    with zipfile.ZipFile(samples / "hm3d/statistics/HM3DSem-v0.2.zip") as archive:
        lines = archive.read("HM3D_CountsOfObjectTypes.csv").decode().splitlines()[1:]
    counts = [(name.strip(), int(count)) for name, _, count in (line.rpartition(";") for line in lines)]
    assert len(counts) == 1624 and sum(count for _, count in counts) == 142_646
    unknown = [name for name, _ in counts if name not in classes()]
    labelled = sum(count for name, count in counts if classes().get(name, UNLABELLED) != UNLABELLED)
    assert unknown == [] and labelled > 0.9 * 142_646


def test_buildings_and_their_splits(samples: Path) -> None:
    with (samples / "hm3d/metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 900 and all(BUILDING.fullmatch(row["scene"]) for row in rows)
    assert all(split_of(row["scene"]) == row["split"] for row in rows)


def test_files_are_z_up(samples: Path) -> None:
    data = (samples / "hm3d/example/hm3d-example-semantic-configs-v0.2.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        texts = [archive.extractfile(m) for m in archive.getmembers() if m.name.endswith("scene_dataset_config.json")]
        tables = [json.loads(text.read()) for text in texts if text is not None]
    found = [table["stages"]["default_attributes"] for table in tables]
    assert found and all(entry["up"] == [0, 0, 1] and entry["front"] == [0, 1, 0] for entry in found)
