"""The table reader: equal to `json.load` for whatever a table holds, bounded in memory, and telling where damage is."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.ingest.nuscenes_toy as toy
from brickyard.ingest.nuscenes import SOURCE, tables
from brickyard.ingest.nuscenes.index import Index
from brickyard.ingest.nuscenes.tables import scan
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store
from tests.ingest.nuscenes_scale import OPTIONS, VERSION, NamesOnly, write_tables
from tests.ingest.nuscenes_toy import edit, planned, write_dataset


def rows_of(root: Path, text: bytes) -> list[dict[str, Any]]:
    (root / "t.json").write_bytes(text)
    found: list[dict[str, Any]] = []
    scan(Store(root), "t.json", found.append)
    return found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=6),
    indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans(), block=st.integers(1, 40),
)  # fmt: skip
def test_any_table_is_read_as_json_reads_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, ascii_only: bool, block: int
) -> None:
    """Blocks of a few bytes: rows, numbers, escapes and letters of several bytes are cut everywhere."""
    root = tmp_path_factory.mktemp("json")
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK_BYTES", block)
        try:
            data = text.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which no file can hold
            return
        assert rows_of(root, data) == json.loads(data)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (b"", 1, "expected a list of rows"),
        (b"{}", 1, "expected a list of rows"),
        (b'[\n{"a": 1},\n{"b" 2}\n]', 3, "Expecting ':' delimiter"),
        (b'[\n{"a": 1},\n{"b": "x', 3, "Unterminated string"),
        (b'[\n{"a": 1},\n', 3, "expected a row"),
        (b'[\n{"a": 1}\n', 3, "expected a comma or the end"),
        (b'[\n{"a": 1}\n{"a": 2}]', 3, "expected a comma or the end"),
        (b'[\n{"a": 1},\n7]', 3, "expected a row"),
        (b'[\n{"a": 1}\n]\n[]', 4, "more text after the list"),
        (b'[\n{"a": 1},\n{"b": "\xff"}]', 3, "no UTF-8"),
        (b'[\n{"a": ' + b"[" * 20_000, 2, "recursion"),
        (b'[\n{"a": ' + b"1" * 5_000 + b"}]", 2, "no valid JSON"),
    ],
)
def test_damage_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, line: int, problem: str
) -> None:
    for block in (7, 1 << 20):
        monkeypatch.setattr(tables, "BLOCK_BYTES", block)
        with pytest.raises(RawDataError, match=problem) as error:
            rows_of(tmp_path, text)
        assert (error.value.path, error.value.line) == ("t.json", line)


def test_a_row_that_never_ends_is_given_up(tmp_path: Path) -> None:
    read = Store.read_range
    count = 0

    def counted(self: Store, name: str, offset: int, length: int) -> bytes:
        nonlocal count
        count += length
        return read(self, name, offset, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "read_range", counted)
        with pytest.raises(RawDataError, match="Unterminated string"):
            rows_of(tmp_path, b'[{"a": "' + b"x" * (6 << 20))
    assert count <= 3 << 20


@pytest.mark.parametrize(
    ("table", "change", "problem"),
    [
        ("sample_data", {"timestamp": "noon"}, r"sample_data.json line 2: .*noon is no time"),
        ("sample_data", {"timestamp": 2**60}, r"sample_data.json line 2: .*is no time"),
        ("sample_data", {"width": 2**40}, r"sample_data.json line 2: the row cannot be used"),
        ("sample_data", {"token": 7}, r"sample_data.json line 2: .*expected a token"),
        ("sample_data", {"filename": None}, r"sample_data.json line 2: .*filename is no text"),
        ("sample_data", {"sample_token": "s7"}, r"sample_data.json line 2: .*is in no row of sample.json"),
        ("sample_data", {"calibrated_sensor_token": "x"}, r"line 2: .*is in no row of calibrated_sensor.json"),
        ("sample_data", {"token": "CAM_FRONT0"}, r"sample_data.json: two rows have the same token"),
        ("ego_pose", {"token": "eCAM_FRONT0"}, r"ego_pose.json: two rows have the same token"),
        ("ego_pose", {"rotation": [1, 0, 0, "0"]}, r"ego_pose.json line 2: the row cannot be used"),
        ("calibrated_sensor", {"sensor_token": "x"}, r"line 2: .*its sensor_token is in no row of sensor.json"),
        ("scene", {"name": 61}, r"scene.json line 2: .*name is no text"),
        ("lidarseg", {"filename": 3}, r"lidarseg.json line 2: .*must be text"),
    ],
)
def test_rows_that_cannot_be_used_are_told_with_their_line(
    tmp_path: Path, table: str, change: dict[str, Any], problem: str
) -> None:
    write_dataset(tmp_path)
    edit(tmp_path, table, lambda rows: rows[0].update(change))
    assert re.search(problem, told(tmp_path, table))
    edit(tmp_path, table, lambda rows: rows[0].pop(next(iter(change))))
    assert f"{table}.json line 2: the row has no field '{next(iter(change))}'" in told(tmp_path, table)


def told(root: Path, table: str) -> str:
    """What a plan says of a table: the reason of its `Missing`, or the error where it can do nothing with it."""
    try:
        return next(item.reason for item in planned(root) if item.key == f"nuscenes/{toy.VERSION}/{table}.json")  # type: ignore[union-attr]
    except RawDataError as problem:
        return str(problem)


def damaged(root: Path, table: str, where: str) -> None:
    """A block of zeros over the row that has this text, and what is around it."""
    file = root / toy.VERSION / f"{table}.json"
    data = bytearray(file.read_bytes())
    place = data.index(where.encode())
    data[place - 2 : place + 20] = bytes(22)
    file.write_bytes(data)


def test_a_damaged_row_costs_what_needs_it(tmp_path: Path) -> None:
    """A pose of one image, a row of another, the labels of one keyframe, the poses of one sweep: the rest stays."""
    write_dataset(tmp_path, keyframes=3)
    whole = {item.key: item for item in planned(tmp_path)}
    damaged(tmp_path, "ego_pose", "eCAM_FRONT0")
    damaged(tmp_path, "sample_data", '"token": "CAM_FRONT1"')
    damaged(tmp_path, "lidarseg", "LIDAR_TOP2")
    items = {item.key: item for item in planned(tmp_path)}
    tables = [f"nuscenes/{toy.VERSION}/{table}.json" for table in ("sample_data", "ego_pose", "lidarseg")]
    assert list(items) == [*tables, *whole]
    for table in tables:
        lost = items[table]
        assert isinstance(lost, Missing) and re.search(r"json line \d+: no valid JSON", lost.reason)
    scenes = [item for item in items.values() if isinstance(item, SceneRef)]
    assert [scene.details["dropped"] for scene in scenes] == [
        {"image CAM_FRONT without a pose": 1}, {"image CAM_FRONT in no row of sample_data.json": 1},
        {"missing lidarseg": 1},
    ]  # fmt: skip
    for scene in scenes:
        lasting = {role: path for role, path in scene.files.items() if role != "CAM_FRONT"}
        expected = whole[scene.key]
        assert isinstance(expected, SceneRef)
        assert lasting.items() <= expected.files.items() and SOURCE.read(scene).points is not None


def test_a_scene_whose_row_is_lost_is_told_and_costs_no_other(tmp_path: Path) -> None:
    write_dataset(tmp_path, keyframes=2)
    damaged(tmp_path, "sample", '"token": "s1"')
    *lost, first, second = planned(tmp_path)
    tables = [f"{toy.VERSION}/{table}.json" for table in ("sample", "sample_data")]
    assert [item.scene_id for item in lost] == tables, "and the rows that belong to it"
    assert isinstance(first, SceneRef)
    assert isinstance(second, Missing) and "is in no row of sample.json" in second.reason


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone", "bad row"])
def test_without_its_meaning_a_label_is_none(tmp_path: Path, damage: str) -> None:
    """One lost row of category.json may be any class, so no label is taken; points and images stay."""
    write_dataset(tmp_path, keyframes=2)
    file = tmp_path / toy.VERSION / "category.json"
    if damage == "gone":
        file.unlink()
    elif damage == "bad row":
        edit(tmp_path, "category", lambda rows: rows[3].update(index="two"))
    else:
        data = file.read_bytes()
        file.write_bytes(data[:1000] if damage == "cut" else data[:1000] + bytes(512) + data[1512:])
    lost, *scenes = planned(tmp_path)
    assert isinstance(lost, Missing) and lost.scene_id == f"{toy.VERSION}/category.json"
    assert len(scenes) == 2
    for scene in scenes:
        assert isinstance(scene, SceneRef)
        reasons = {f"{kind} without a usable category.json": 1 for kind in ("lidarseg", "panoptic")}
        assert scene.details["dropped"] == reasons
        points = SOURCE.read(scene).points
        assert points is not None and not points.semantic


def test_rows_after_the_damage_are_read(tmp_path: Path) -> None:
    text = b'[{"a": 1}, {"a": \0\0\0\0\0\0\0\0, {"a": 3}\0\0, {"a": 4}, {"b": 5}, {"a": 6}, {"a": '
    (tmp_path / "table.json").write_bytes(text)
    rows: list[Any] = []
    lost = tables.Lost()
    tables.scan(Store(tmp_path), "table.json", lambda row: rows.append(row["a"]), lost)
    assert rows == [1, 3, 4, 6] and lost.places == 4
    assert "table.json line 1: no valid JSON" in lost.reason() and "in 3 more places" in lost.reason()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One percent of trainval: 25,000 rows each of sample_data and ego_pose, 19 MB of text."""
    root = tmp_path_factory.mktemp("large")
    assert write_tables(root, 0.01) == 25_368
    return root


def test_planning_keeps_less_than_a_tenth_of_the_text(large: Path) -> None:
    """Columns, not rows: all images of six cameras and all sweeps, in 150 bytes a file and some blocks of text."""
    text = sum(file.stat().st_size for file in (large / VERSION).iterdir())
    tracemalloc.start()
    index = Index(Store(large), VERSION, lambda channel, is_key: "RADAR" not in channel)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 8 * (391 + 6 * 235)
    assert kept < 150 * len(index) < text / 8
    assert peak < kept + 20 * tables.BLOCK_BYTES


@pytest.mark.parametrize("what", list(OPTIONS))
def test_every_scene_of_large_tables_is_planned(large: Path, what: str) -> None:
    refs = list(SOURCE.plan(NamesOnly(large, 0.01), OPTIONS[what]))
    assert all(isinstance(ref, SceneRef) and not ref.details["dropped"] for ref in refs)
    assert len(refs) == (8 * 6 * 3 if what == "clips" else 8 * 40)
    files = sum(len(ref.files) for ref in refs if isinstance(ref, SceneRef))
    sweeps = 8 * 39 * 9
    assert files == {"keyframes": 8 * 40 * 7, "sweeps": 8 * 40 * 7 + sweeps, "clips": 8 * 6 * 235}[what]
