"""What is no document is refused in one sentence, whatever it is; what is written can be read."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.documents import Every, Maybe, document_bytes, read_document, read_file, write_document
from brickyard.shards.errors import BrickyardError, CorpusError, RecipeError

SHAPE = {
    "step": int,
    "losses": [float],
    "name": (str, None),
    "best": Maybe({"score": float}),
    "totals": Every({"scenes": int}),
    "about": object,
}
GOOD: dict[str, Any] = {"step": 3, "losses": [1, 0.5], "name": None, "totals": {"a": {"scenes": 1}}, "about": [None]}

WRONG: dict[str, tuple[Any, str]] = {
    "a list": ([1], "is a list where an object belongs"),
    "an entry too few": ({k: v for k, v in GOOD.items() if k != "step"}, 'has no entry "step"'),
    "text for a number": (GOOD | {"step": "3"}, '"step" is a string where a whole number belongs'),
    "a float for an integer": (GOOD | {"step": 3.5}, '"step" is a number where a whole number belongs'),
    "true for a number": (GOOD | {"step": True}, '"step" is true or false where a whole number belongs'),
    "inside a list": (GOOD | {"losses": [0.5, None]}, r'"losses\[1\]" is null where a number belongs'),
    "inside any object": (GOOD | {"totals": {"b": {"scenes": []}}}, '"totals.b.scenes" is a list where a whole'),
    "none of two": (GOOD | {"name": 5}, '"name" is a whole number where a string or null belongs'),
    "an optional one": (GOOD | {"best": {"score": {}}}, '"best.score" is an object where a number belongs'),
}

TEXTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "a zeroed block": (bytes(4096), "holds only blanks or zeros"),
    "cut": (b'{"a": 1,\n "b"', "is not JSON at line 2 column 5"),
    "two": (b"{}{}", "is not JSON at line 1 column 3"),
    "latin-1": (b'{"a": "\xe4"}', "is not UTF-8 text at byte 7"),
    "nan": (b'{"a": NaN}', "holds NaN"),
    "infinity": (b'{"a": -Infinity}', "holds -Infinity"),
    "a float beyond floats": (b'{"a": 1e999}', "number that is out of range"),
    "an integer of a million digits": (b'{"a": ' + b"9" * 10**6 + b"}", "more than 64 bits"),
    "2^64": (b'{"a": 18446744073709551616}', "more than 64 bits"),
    "one key twice": (b'{"a": {"b": 1, "b": 2}}', 'the entry "b" twice'),
    "65 levels": (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64 levels"),
    "a million levels": (b"[" * 10**6, "deeper than 64 levels"),
    "half a character": (rb'{"a": "\ud800"}', "half of a character"),
    "too much": (b" " * 4096 + b"{}", "has more than 4000 bytes"),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", WRONG)
def test_a_document_of_another_shape_is_refused(what: str) -> None:
    value, text = WRONG[what]
    with pytest.raises(CorpusError, match=rf"^a/b\.json .*{text}.*: train again$"):
        read_document(json.dumps(value), "a/b.json", SHAPE, hint="train again")


@pytest.mark.parametrize("what", TEXTS)
def test_what_is_no_document_is_refused(what: str) -> None:
    data, text = TEXTS[what]
    with pytest.raises(RecipeError, match=text):
        read_document(data, "x", most=4000 if what == "too much" else 10**7, error=RecipeError)


def test_a_good_one_comes_back_with_the_entries_nobody_asked_for(tmp_path: Path) -> None:
    assert read_document(json.dumps(GOOD | {"new": 1}), "x", SHAPE) == GOOD | {"new": 1}
    write_document(tmp_path / "deep" / "x.json", GOOD)
    assert read_file(tmp_path / "deep" / "x.json", SHAPE) == GOOD
    assert names(tmp_path / "deep") == ["x.json"]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is not there: train first"):
        read_file(tmp_path / "x.json", hint="train first")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(CorpusError, match="is not there"):
            read_file(tmp_path / name)
    with (tmp_path / "endless").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorpusError, match="more than 67108864 bytes"):
        read_file(tmp_path / "endless")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES))
def test_what_is_written_can_be_read(value: dict[str, Any]) -> None:
    try:
        data = document_bytes(value)
    except ValueError:
        return  # NaN, 2^64, ...: refused when it is written
    assert read_document(data, "x") == value


@given(st.binary() | st.text(alphabet='{}[]",:0123456789.eE+-\\untrfalsd ').map(str.encode))
def test_no_bytes_bring_anything_but_a_document_or_a_sentence(data: bytes) -> None:
    try:
        assert isinstance(read_document(data, "x", {"a": int}), dict)
    except BrickyardError as problem:
        assert str(problem).startswith("x ")


@given(VALUES, VALUES)
def test_any_value_has_a_shape_or_a_sentence(first: Any, second: Any) -> None:
    try:
        read_document(json.dumps({"step": first, "losses": second}), "x", SHAPE)
    except CorpusError as problem:
        assert str(problem).startswith("x ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64, "\ud800"])
def test_what_could_not_be_read_is_not_written(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "x.json"
    write_document(path, {"a": 1})
    with pytest.raises(ValueError, match=r"reader|compliant"):
        write_document(path, {"a": value})
    assert read_file(path) == {"a": 1}
    assert names(tmp_path) == ["x.json"]


def test_a_write_that_fails_leaves_the_former_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_document(path, {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_document(path, {"a": 2})
    assert read_file(path) == {"a": 1}
    assert names(tmp_path) == ["x.json"]


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".partial-x.json").write_text("half of something longer than what is written now")
    write_document(tmp_path / "x.json", {"a": 1}, indent=None)
    assert (tmp_path / "x.json").read_bytes() == b'{"a": 1}'
    assert names(tmp_path) == ["x.json"]


def test_a_link_under_the_temporary_name_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    for link in (os.symlink, os.link):
        (folder / ".partial-x.json").unlink(missing_ok=True)
        link(victim, folder / ".partial-x.json")
        write_document(folder / "x.json", {"a": 1})
        assert victim.read_text() == "precious"
        assert read_file(folder / "x.json") == {"a": 1}


def test_many_writers_of_one_file_leave_one_of_theirs(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            write_document(tmp_path / "x.json", {"a": [number] * 1000})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = read_file(tmp_path / "x.json", {"a": [int]})["a"]
    assert len(values) == 1000
    assert len(set(values)) == 1
    assert names(tmp_path) == ["x.json"]
