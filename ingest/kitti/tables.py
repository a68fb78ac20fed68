"""Tables whose line says which frame it is for: line i is frame i's. A lost block moves every line behind it.

These files have no checksum. A block of zeros (see `ingest.blank`) swallows line ends, so that the lines after it would
be taken for those of other frames: nothing from there on is certain. A file cut inside of its last line ends with half
a number, which is a number too: a last line without an end that is shorter than the one before is not used either.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A line of a table: its number from 1, the byte where it begins, and its text without the line end."""

    number: int
    offset: int
    text: bytes


@dataclass(frozen=True)
class Table:
    """The lines of a table whose number is certain, blank ones left out, and what is wrong with the rest, if anything.

    Attributes:
        lines: in the order of the file.
        problem: for people, such as "zero bytes from byte 8192 on (a lost block): ..."; None if the file is whole.
    """

    lines: tuple[Line, ...]
    problem: str | None


def read_table(data: bytes) -> Table:
    """Split a file into lines and stop where the count of lines cannot be trusted any more."""
    problem, zero = None, data.find(b"\0")
    if zero >= 0:
        data = data[: data.rfind(b"\n", 0, zero) + 1]
        first = data.count(b"\n") + 1
        problem = f"zero bytes from byte {zero} on (a lost block): what stands from line {first} on is not certain"
    elif ends_inside(data):
        data = data[: data.rfind(b"\n") + 1]
        first = data.count(b"\n") + 1
        problem = f"it ends inside of line {first} (cut off)"
    lines, offset = [], 0
    for number, text in enumerate(data.split(b"\n"), start=1):
        if text.strip():
            lines.append(Line(number, offset, text))
        offset += len(text) + 1
    return Table(tuple(lines), problem)


def ends_inside(data: bytes) -> bool:
    """Whether the last line seems cut: it has no end and is shorter than the one before (signs aside)."""
    *before, last = data.split(b"\n")
    previous = next((line for line in reversed(before) if line.strip()), b"")
    return bool(last.strip()) and len(last.replace(b"-", b"")) < len(previous.strip().replace(b"-", b""))
