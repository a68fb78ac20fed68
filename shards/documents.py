"""The one door through which every JSON of ours is read, checked and written.

Manifests, states and reports lie on disks and in stores where anything can happen to them. So nobody calls `json.loads`
on a file: `read_document` gives an object of the shape one asked for, or one sentence that says where it is wrong. A
shape is written as the value would look:

    {"step": int, "losses": [float], "name": (str, None), "best": Maybe({"score": float}), "totals": Every(int)}

Types stand for values (`float` takes whole numbers too, no number takes true or false), `[x]` for a list of x, a tuple
for alternatives, `OneOf` for some texts, `object` for anything. Entries that a shape does not name are let through, so
newer writers are read. What JSON permits and we never write is refused everywhere: NaN and infinities, numbers beyond
64 bits, one key twice, nesting deeper than 64 levels, halves of characters.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brickyard.shards.atomic import write_whole
from brickyard.shards.errors import CorpusError

MAX_DEPTH = 64
MAX_BYTES = 64 << 20
"""What a document may have unless its reader says otherwise; `write_document` writes none that is larger."""

_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", type(None): "null",
          dict: "an object", list: "a list"}  # fmt: skip
_EXACT: dict[type, set[type]] = {int: {int}, float: {int, float}, str: {str}, bool: {bool}, dict: {dict}}
"""For a shape that is a plain type: the types of values that need no further look."""
_MAX_INTEGER = 2**64


@dataclass(frozen=True)
class Maybe:
    """In a shape: an entry that need not be there. If it is, it has this shape."""

    shape: Any


@dataclass(frozen=True)
class Every:
    """In a shape: an object with any keys, whose values all have this shape."""

    shape: Any


@dataclass(frozen=True)
class OneOf:
    """In a shape: one of some texts."""

    values: tuple[str, ...]


class _Wrong(Exception):
    """Why a text is no document."""


def read_document(
    data: bytes | bytearray | memoryview | str,
    place: str | os.PathLike[str],
    shape: Mapping[str, Any] | Every | None = None,
    *,
    most: int = MAX_BYTES,
    error: Callable[[str], Exception] = CorpusError,
    hint: str | None = None,
) -> dict[str, Any]:
    """The object that a JSON text holds.

    Args:
        data: the bytes of a file (UTF-8), or text.
        place: what is read, as the error names it ("runs/a/config.json", "metrics.jsonl line 3").
        shape: what the object must have; None asks for any object.
        most: bytes (characters of a text) it may have.
        error: makes the exception from a sentence.
        hint: what to do next.

    Raises:
        CorpusError: or what `error` makes, naming place and entry, what is there and what belongs there.
    """
    try:
        value = _parse(data, most)
    except _Wrong as problem:
        raise error(f"{os.fspath(place)} {problem}" + (f": {hint}" if hint else "")) from None
    check_document(value, place, {} if shape is None else shape, error=error, hint=hint)
    found: dict[str, Any] = value
    return found


def check_document(
    value: Any,
    place: str | os.PathLike[str],
    shape: Mapping[str, Any] | Every,
    *,
    error: Callable[[str], Exception] = CorpusError,
    hint: str | None = None,
) -> None:
    """Hold what was read to a shape, as `read_document` does; for shapes that depend on an entry, such as a version."""
    try:
        _check(value, shape, "")
    except _Wrong as problem:
        raise error(f"{os.fspath(place)} {problem}" + (f": {hint}" if hint else "")) from None


def read_file(
    path: Path,
    shape: Mapping[str, Any] | Every | None = None,
    *,
    most: int = MAX_BYTES,
    error: Callable[[str], Exception] = CorpusError,
    hint: str | None = None,
) -> dict[str, Any]:
    """`read_document` for a local file; one that is not there, or is no regular file, is such an error as well."""
    try:
        if not path.is_file():  # a pipe in its place would hold the reader up
            raise error(f"{path} is not there" + (f": {hint}" if hint else ""))
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from problem
    return read_document(data, path, shape, most=most, error=error, hint=hint)


def document_bytes(value: Mapping[str, Any], *, indent: int | None = 2, sort: bool = False) -> bytes:
    """A document as its readers accept it. Raises `ValueError` for what they would refuse (NaN, 300 levels, ...)."""
    text = json.dumps(value, indent=indent, sort_keys=sort, allow_nan=False)
    try:
        _parse(text, MAX_BYTES)
    except _Wrong as problem:
        raise ValueError(f"a document that no reader would accept: it {problem}") from None
    return text.encode() + (b"\n" if indent else b"")


def write_document(path: Path, value: Mapping[str, Any], *, indent: int | None = 2, sort: bool = False) -> None:
    """Write a local file whole or not at all: under a temporary name, flushed, renamed, its folder flushed.

    Raises:
        ValueError: readers would refuse it.
        OSError: it could not be written; nothing is left behind.
    """
    write_whole(path, document_bytes(value, indent=indent, sort=sort))


# Parsing


def _parse(data: bytes | bytearray | memoryview | str, most: int) -> Any:
    if len(data) > most:
        raise _Wrong(f"has more than {most} bytes, more than such a file may have")
    try:
        text = data if isinstance(data, str) else bytes(data).decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as problem:
        raise _Wrong(f"is not UTF-8 text at byte {problem.start}") from None
    except json.JSONDecodeError as problem:
        if not data or not text.strip("\0 \r\n\t"):
            raise _Wrong("is empty" if not data else "holds only blanks or zeros") from None
        raise _Wrong(f"is not JSON at line {problem.lineno} column {problem.colno} ({problem.msg})") from None
    except UnicodeEncodeError:
        raise _Wrong("has half of a character in it (\\ud800 to \\udfff by itself)") from None
    except RecursionError:
        raise _Wrong(f"is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:  # of an integer of more digits than Python converts
        raise _Wrong("holds a number of more than 64 bits") from None
    _check_values(value)
    return value


def _check_values(value: Any) -> None:
    """Level by level: none too deep, no number that has no place in a column of the index."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 2):
        inner: list[Any] = []
        for node in level:
            inner += node.values() if type(node) is dict else node
        for number in inner:
            if type(number) is float and not math.isfinite(number):
                raise _Wrong("holds a number that is out of range")
            if type(number) is int and abs(number) >= _MAX_INTEGER:
                raise _Wrong("holds a number of more than 64 bits")
        level = [node for node in inner if type(node) is dict or type(node) is list]
        if not level:
            return
    raise _Wrong(f"is nested deeper than {MAX_DEPTH} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _Wrong(f'has the entry "{twice[:80]}" twice')
    return found


def _no_constant(text: str) -> Any:
    raise _Wrong(f"holds {text}, which is no JSON")


# Checking


def _check(value: Any, shape: Any, where: str) -> None:
    """Raise `_Wrong` where a value has not the shape; `where` is its address, such as `shards[3].bytes`."""
    if isinstance(shape, tuple):
        _check_alternatives(value, shape, where)
    elif isinstance(shape, Mapping | Every):
        if not isinstance(value, dict):
            raise _misplaced(value, dict, where)
        _check_entries(value, shape if isinstance(shape, Mapping) else dict.fromkeys(value, shape.shape), where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _misplaced(value, list, where)
        plain: set[type] = _EXACT.get(shape[0], set()) if isinstance(shape[0], type) else set()
        if not plain.issuperset(map(type, value)):
            for number, item in enumerate(value):
                _check(item, shape[0], f"{where}[{number}]")
    elif isinstance(shape, OneOf) and isinstance(value, str):
        if value not in shape.values:
            raise _Wrong(f'has a wrong entry: "{where}" is {value[:80]!r}, which is none of {", ".join(shape.values)}')
    elif not _is_a(value, _kind(shape)):
        raise _misplaced(value, shape, where)


def _check_entries(value: dict[str, Any], shape: Mapping[str, Any], where: str) -> None:
    for name, entry in shape.items():
        if name in value:
            wanted = entry.shape if isinstance(entry, Maybe) else entry
            if not (isinstance(wanted, type) and type(value[name]) in _EXACT.get(wanted, set())):
                _check(value[name], wanted, f"{where}.{name[:80]}" if where else name[:80])
        elif not isinstance(entry, Maybe):
            raise _Wrong(f'has no entry "{where + "." if where else ""}{name[:80]}"')


def _check_alternatives(value: Any, shapes: tuple[Any, ...], where: str) -> None:
    """The first alternative of the value's kind decides."""
    for shape in shapes:
        if _is_a(value, _kind(shape)):
            return _check(value, shape, where)
    wanted = " or ".join(_NAMES[_kind(shape)] for shape in shapes)
    raise _Wrong(_sentence(value, wanted, where))


def _kind(shape: Any) -> Any:
    """The type that a value of the shape has first of all."""
    if isinstance(shape, Mapping | Every):
        return dict
    if isinstance(shape, OneOf):
        return str
    return list if isinstance(shape, list) else type(None) if shape is None else shape


def _is_a(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _misplaced(value: Any, kind: Any, where: str) -> _Wrong:
    return _Wrong(_sentence(value, _NAMES[_kind(kind)], where))


def _sentence(value: Any, wanted: str, where: str) -> str:
    found = _NAMES[type(value)]
    belongs = f"is {found} where {wanted} belongs"
    return f'has a wrong entry: "{where}" {belongs}' if where else belongs
