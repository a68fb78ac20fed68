"""Zips read in place: what `zipfile` writes is found again, huge ones are no matter, lies are refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.zips import Member, VolumeError, list_members, read_member
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

NAME = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="/\\"), min_size=1, max_size=30)
FILES = st.dictionaries(NAME, st.binary(max_size=3000), max_size=12)


def files(root: Path) -> RawFiles:
    ref = SceneRef(dataset="structured3d", scene_id="a", split="none", sequence="a", root=str(root), files={})
    return RawFiles(ref)


def write(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = comment
    return path


def listed(path: Path) -> dict[str, Member]:
    return dict(list_members(Store(path.parent), path.name))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), st.binary(max_size=40))
def test_all_that_zipfile_writes_is_found(
    tmp_path: Path, members: dict[str, bytes], method: int, comment: bytes
) -> None:
    path = write(tmp_path / "any.zip", members, method, comment)
    found = listed(path)
    assert list(found) == list(members)
    raw = files(tmp_path)
    for name, data in members.items():
        assert read_member(raw, "any.zip", found[name], name, 1 << 20) == data
        raw.store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_is_more_than_an_error(tmp_path: Path, data: st.DataObject) -> None:
    whole = write(tmp_path / "whole.zip", {f"scene_00001/{k}.png": bytes(range(200)) for k in range(3)}).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 40))
    changed = whole[:place] + data.draw(st.binary(max_size=40)) + whole[place + length :]
    (tmp_path / "changed.zip").write_bytes(changed)
    raw = files(tmp_path)
    try:
        for name, member in listed(tmp_path / "changed.zip").items():
            assert len(read_member(raw, "changed.zip", member, name, 1 << 20)) == member.size
    except (VolumeError, RawDataError) as problem:
        assert str(problem)
    finally:
        raw.store.close()


def test_a_volume_beyond_four_gigabytes(tmp_path: Path) -> None:
    """A sparse file: its members lie where 32 bits do not reach."""
    path = tmp_path / "huge.zip"
    with path.open("wb") as stream:
        stream.seek(5 << 30)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("Structured3D/scene_00001/a.txt", b"1 2 3" * 50)
            with archive.open("Structured3D/scene_00001/b.txt", "w", force_zip64=True) as member:
                member.write(b"late")
    found = listed(path)
    assert min(member.offset for member in found.values()) >= 5 << 30
    assert path.stat().st_blocks * 512 < 1 << 20
    raw = files(tmp_path)
    assert (
        read_member(raw, "huge.zip", found["Structured3D/scene_00001/a.txt"], "scene_00001/a.txt", 999) == b"1 2 3" * 50
    )
    assert read_member(raw, "huge.zip", found["Structured3D/scene_00001/b.txt"], "scene_00001/b.txt", 999) == b"late"


def test_sizes_that_32_bits_do_not_hold_come_from_the_extra_field(tmp_path: Path) -> None:
    member = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 8, 0, 0, 7, *[0xFFFFFFFF] * 2, 1, 32, 0, 0, 0, 0, 0xFFFFFFFF
    )
    extra = struct.pack("<HHI", 0x5455, 4, 9) + struct.pack("<HHQQ", 1, 16, 1 << 33, 1 << 32)
    entry = member + b"a" + extra
    assert len(extra) == 8 + 20
    fixed = entry.replace(struct.pack("<H", 32), struct.pack("<H", len(extra)), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(fixed), 0, 0)
    (tmp_path / "a.zip").write_bytes(fixed + end)
    with pytest.raises(VolumeError, match="entry 0 of its directory lacks its 64-bit numbers"):
        listed(tmp_path / "a.zip")
    extra = struct.pack("<HHI", 0x5455, 4, 9) + struct.pack("<HHQQQ", 1, 24, 1 << 33, 1 << 32, 1 << 34)
    fixed = (member + b"a" + extra).replace(struct.pack("<H", 32), struct.pack("<H", len(extra)), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(fixed), 0, 0)
    (tmp_path / "a.zip").write_bytes(fixed + end)
    assert listed(tmp_path / "a.zip") == {"a": Member(1 << 34, 1 << 32, 1 << 33, 7, 8)}


def _cut(data: bytes) -> bytes:
    return data[: len(data) - 10]


def _split(data: bytes) -> bytes:
    place = data.rfind(b"PK\5\6")
    return data[: place + 4] + struct.pack("<H", 3) + data[place + 6 :]


def _encrypted(data: bytes) -> bytes:
    place = data.rfind(b"PK\1\2")
    return data[: place + 8] + struct.pack("<H", 1) + data[place + 10 :]


def _lost_page(data: bytes) -> bytes:
    return data[:20] + data[40:]


def _too_many(data: bytes) -> bytes:
    place = data.rfind(b"PK\5\6")
    return data[: place + 8] + struct.pack("<2H", 60000, 60000) + data[place + 12 :]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_cut, "its end is cut off"),
        (_split, "one part of a zip that was split"),
        (_encrypted, "entry 2 is encrypted"),
        (_lost_page, "bytes are missing or too many"),
        (_too_many, "60000 entries"),
        (lambda data: b"", "it is no zip"),
        (lambda data: data.replace(b"PK\1\2", b"PK\1\3", 1), "damaged at entry 0 of 3"),
    ],
)
def test_directories_that_cannot_be_read(tmp_path: Path, damage: object, problem: str) -> None:
    path = write(tmp_path / "a.zip", {f"{k}.txt": b"0123456789" * 9 for k in range(3)})
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(VolumeError, match=problem):
        listed(path)


def test_members_that_are_not_what_the_directory_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"scene_00001/a.txt": b"0123456789" * 9, "scene_00001/b.txt": b"b" * 99})
    found = listed(path)
    member, other = found["scene_00001/a.txt"], found["scene_00001/b.txt"]

    def read(member: Member, name: str = "scene_00001/a.txt", limit: int = 1000) -> bytes:
        raw = files(tmp_path)
        try:
            return read_member(raw, "a.zip", member, name, limit)
        finally:
            raw.store.close()

    assert read(member) == b"0123456789" * 9
    with pytest.raises(RawDataError, match=r"a.zip at byte \d+: scene_00001/a.txt: another member is here: .*b.txt"):
        read(other)
    with pytest.raises(RawDataError, match="the checksum is wrong"):
        read(member._replace(crc=zlib.crc32(b"")))
    with pytest.raises(RawDataError, match="the checksum is wrong"):
        read(member._replace(size=50))
    with pytest.raises(RawDataError, match="declares 90 bytes"):
        read(member, limit=80)
    with pytest.raises(RawDataError, match="compression method 14"):
        read(member._replace(method=14))
    with pytest.raises(RawDataError, match="there is no header of a member here"):
        read(member._replace(offset=3))
    with pytest.raises(RawDataError, match="ends after"):
        read(member._replace(offset=1 << 40))


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(50 << 20))
    (tmp_path / "a.zip").write_bytes(stream.getvalue())
    member = listed(tmp_path / "a.zip")["a.png"]
    with pytest.raises(RawDataError, match="the checksum is wrong"):
        read_member(files(tmp_path), "a.zip", member._replace(size=1000), "a.png", 1 << 20)
