"""PLY: a text header that names elements and their properties, then the elements as text or binary (Turk, 1994).

Only the element `vertex` is read. Elements before it are skipped: at once if their records have a fixed size, row by
row if they hold lists. What comes after it must fit into the file, and is not looked at otherwise. Lines of the header
end in LF, CR LF or, from some writers, CR: the first line tells.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import PAGE, blank_records, zero_runs
from brickyard.ingest.pointfiles.cloud import MAX_POINTS, Cloud, Scale, from_columns
from brickyard.ingest.pointfiles.text import MAX_TEXT_BYTES, lines_left, read_table, unix_lines
from brickyard.ingest.source import RawFiles

MAX_HEADER = 1 << 20
USUAL_HEADER = 1 << 17
MAX_PROPERTIES = 256
MAX_LIST_ROWS = 20_000_000
"""Rows with lists are walked in Python, about a million a second."""
SCALARS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_END = re.compile(rb"^end_header[ \t]*\r?\n", re.MULTILINE)


@dataclass(frozen=True)
class Element:
    """Properties: (name, type of the scalar or of the list's items, type of the list's length or None)."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(length for _, _, length in self.properties)

    @property
    def least_bytes(self) -> int:
        """Bytes of a binary row whose lists are empty."""
        return sum(np.dtype(length or kind).itemsize for _, kind, length in self.properties)


def read_ply(files: RawFiles, path: str, scale: Scale, taxonomy: str | None = None) -> Cloud:
    """The vertices in file order; raises `RawDataError` with the line or offset of what is wrong.

    Args:
        taxonomy: label set of the file's labels, if it is known.
    """
    data = files.read(path)
    order, elements, start = _read_header(files, path, data)
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise files.error(path, "has no element 'vertex'", offset=0)
    place = names.index("vertex")
    vertex = elements[place]
    properties = [name.lower() for name, _, _ in vertex.properties]
    if not set("xyz") <= set(properties) or len(set(properties)) != len(properties):
        problem = f"vertices have the properties {', '.join(properties)[:200]}; x, y and z are needed, each name once"
        raise files.error(path, problem, offset=0)
    if vertex.count > MAX_POINTS:
        raise files.error(path, f"{vertex.count} vertices, at most {MAX_POINTS} fit into a scene")
    if not order:
        data = unix_lines(data)
        columns, start = _text_vertices(files, path, data, start, elements[: place + 1])
        left = lines_left(data, start) if place + 1 == len(elements) else 0
        dropped = Counter({"lines after the last element": left})
        return from_columns(columns, scale, taxonomy=taxonomy, dropped=dropped, text=True)
    for element in elements[:place]:
        start = _skip(files, path, data, start, element, order=order)
    columns, lost, start = _read_vertices(files, path, data, start, vertex, order=order)
    rest = sum(element.count * element.least_bytes for element in elements[place + 1 :])
    if rest > len(data) - start:
        problem = f"the elements after the vertices need {rest} bytes or more, {len(data) - start} are left"
        raise files.error(path, problem, offset=start, hint="the file is truncated")
    more = len(data) - start if place + 1 == len(elements) else 0
    return from_columns(
        columns, scale, taxonomy=taxonomy, lost=lost, unread=[name for name, _, length in vertex.properties if length],
        dropped=Counter({"bytes after the last element": more if more >= vertex.least_bytes else 0}),
    )  # fmt: skip


def _text_vertices(
    files: RawFiles, path: str, data: bytes, start: int, elements: list[Element]
) -> tuple[dict[str, NDArray[Any]], int]:
    """Columns of the last of the elements, and the byte behind it."""
    vertex = elements[-1]
    if len(data) > MAX_TEXT_BYTES or vertex.has_lists:
        raise files.error(path, "text files with lists in vertices, or beyond 1 GiB, are not read")
    rows, end = read_table(
        files, path, data, start=start, skip=sum(element.count for element in elements[:-1]),
        rows=vertex.count, width=len(vertex.properties),
    )  # fmt: skip
    # Through the declared types, since the colour rule asks whether a column is of integers.
    kinds = {name: (rows[:, i], kind) for i, (name, kind, _) in enumerate(vertex.properties)}
    return {name: as_declared(files, path, column, kind) for name, (column, kind) in kinds.items()}, end


def as_declared(files: RawFiles, path: str, column: NDArray[Any], kind: str) -> NDArray[Any]:
    """Numbers read from text as the type the header declares; raises `RawDataError` if they are not of that type."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return column
    with np.errstate(invalid="ignore"):
        fits = (column == np.rint(column)) & (column >= np.iinfo(dtype).min) & (column <= np.iinfo(dtype).max)
    # Real files put 255 into a `char`; what matters is that it is an integer.
    if not fits.all() and not ((column == np.rint(column)) & (np.abs(column) < 2**31)).all():
        raise files.error(path, f"a value such as {column[fits.argmin()]} in a property of integers")
    return column.astype(np.int64)


def _read_header(files: RawFiles, path: str, data: bytes) -> tuple[str, list[Element], int]:
    """Byte order ('' for text), elements, offset of the body."""
    head = unix_lines(data[:USUAL_HEADER])
    if (end := _END.search(head)) is None:
        head = unix_lines(data[:MAX_HEADER])
        end = _END.search(head)
    lines = head[: end.start()].decode("latin-1").split("\n") if end else []
    if end is None or not lines or lines[0].strip() != "ply":
        raise files.error(path, "no PLY header found", offset=0, hint="is this a PLY file?")
    order: str | None = None
    elements: list[Element] = []
    for number, line in enumerate(lines[1:], 2):
        words = line.split()
        kinds = [SCALARS.get(word) for word in words[1:]]
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if len(words) == 3 and words[0] == "format" and words[1] in ORDERS and words[2] == "1.0":
            order = ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and re.fullmatch(r"[0-9]{1,15}", words[2]):
            elements.append(Element(words[1], int(words[2])))
        elif words[0] == "property" and len(words) == 3 and kinds[0] and elements:
            elements[-1].properties.append((words[2], kinds[0], None))
        elif words[:2] == ["property", "list"] and len(words) == 5 and kinds[1] and kinds[2] and elements:
            elements[-1].properties.append((words[4], kinds[2], kinds[1]))
        else:
            raise files.error(path, f"unexpected header line {line[:80]!r}", line=number)
    names = [element.name for element in elements]
    if order is None or len(set(names)) != len(names) or any(len(e.properties) > MAX_PROPERTIES for e in elements):
        raise files.error(path, "the header needs a format 1.0 and elements with different names", offset=0)
    return order, elements, end.end()


def _read_vertices(
    files: RawFiles, path: str, data: bytes, start: int, vertex: Element, *, order: str
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_] | None, int]:
    """Columns of the scalar properties, which of the vertices lie in lost blocks, and the offset behind them."""
    _check_room(files, path, data, start, vertex)
    if vertex.has_lists:
        scalars = [name for name, _, length in vertex.properties if not length]
        rows: list[float] = []
        end = _walk(files, path, data, start, vertex, order=order, scalars=rows)
        # Where a row ends is known from the rows before it: behind a lost block nothing is.
        if len(lost := zero_runs(data[start:end], PAGE)):
            first, last = (start + int(place) for place in lost[0])
            problem = f"{last - first} bytes of zeros among vertices with lists"
            raise files.error(path, problem, offset=first, hint="a block of the file is lost; download it again")
        table = np.array(rows, np.float64).reshape(vertex.count, len(scalars))
        kinds = {name: kind for name, kind, _ in vertex.properties}
        return {name: table[:, i].astype(kinds[name]) for i, name in enumerate(scalars)}, None, end
    record = np.dtype([(name, order + kind) for name, kind, _ in vertex.properties])
    view = np.frombuffer(data, record, vertex.count, start)
    columns = {name: view[name] for name in record.names or ()}  # copied where they are used
    return columns, blank_records(view, record.itemsize), start + vertex.count * record.itemsize


def _skip(files: RawFiles, path: str, data: bytes, start: int, element: Element, *, order: str) -> int:
    _check_room(files, path, data, start, element)
    if element.has_lists:
        return _walk(files, path, data, start, element, order=order, scalars=None)
    return start + element.count * element.least_bytes


def _check_room(files: RawFiles, path: str, data: bytes, start: int, element: Element) -> None:
    needed = element.count * element.least_bytes
    if needed > len(data) - start or (element.has_lists and element.count > MAX_LIST_ROWS):
        problem = f"{element.count} of element {element.name!r} need {needed} bytes, {len(data) - start} are left"
        raise files.error(path, problem, offset=start, hint="the file is truncated or its header is damaged")


def _walk(
    files: RawFiles, path: str, data: bytes, place: int, element: Element, *, order: str, scalars: list[float] | None
) -> int:
    """Go through rows that hold lists, appending scalars to `scalars`; returns the offset behind them."""
    steps = [
        (struct.Struct(order + CODES[length or kind]), np.dtype(kind).itemsize if length else 0)
        for _, kind, length in element.properties
    ]
    for _ in range(element.count):
        for parser, item_bytes in steps:
            try:
                (value,) = parser.unpack_from(data, place)
            except struct.error:
                raise files.error(path, f"ends within element {element.name!r}", offset=place) from None
            place += parser.size
            if item_bytes:
                if not 0 <= value <= (len(data) - place) // item_bytes or value != int(value):
                    raise files.error(path, f"a list of {value} items leaves the file", offset=place)
                place += int(value) * item_bytes
            elif scalars is not None:
                scalars.append(value)
    return place
