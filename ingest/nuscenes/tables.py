"""The tables of nuScenes, row by row: a JSON list of any size, in the memory of a few blocks of it.

The tables of trainval hold 2.6 million rows in each of two files, more than a gigabyte of text. `scan` reads them by
blocks, on a local disk or an object store, parses one row at a time (about 100 MB of text a second and core) and hands
it to a function that keeps what it needs. Whatever is wrong is told with the file and the line.

A table damaged in one place is not worth all of its rows: with a `Lost` to write it down, reading goes on at the next
row that begins after the damage. Rows hold no rows, so that is the next brace, and a row is whole or it does not parse.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import xxhash

from brickyard.shards.errors import NONSENSE, RawDataError
from brickyard.shards.storage import Store

DATASET = "nuscenes"
BLOCK_BYTES = 1 << 20
MAX_ROW = 1 << 20
"""Characters of one row; the longest published ones (map.json) have a few thousand."""

Row = dict[str, Any]
_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\r\n]*").match
_comma = re.compile(r"[ \t\r\n]*,[ \t\r\n]*").match


@dataclass
class Lost:
    """What of a table cannot be used: in how many places, and what was wrong in the first of them."""

    places: int = 0
    first: RawDataError | None = None

    def note(self, problem: RawDataError) -> None:
        self.places += 1
        self.first = self.first or problem

    def reason(self) -> str:
        """For people; says what it means for scenes."""
        more = f" (and in {self.places - 1} more places)" if self.places > 1 else ""
        return f"{self.first}{more}: what needs the rows that are lost here is left out"


def scan(store: Store, path: str, take: Callable[[Row], object], lost: Lost | None = None) -> None:
    """Call `take` with each row of a table, from the first to the last.

    Args:
        lost: notes what is wrong, and reading goes on behind it; if None, that is raised.

    Raises:
        RawDataError: the table is missing, no JSON list of objects, or `take` could not use a row (anything of
            `NONSENSE` that it raises); names the line.
    """
    try:
        window = _Window(store, path)
    except RawDataError as problem:
        if lost is None:
            raise
        lost.note(problem)
        return
    for row in _rows(window, lost):
        try:
            take(row)
        except NONSENSE as problem:
            missing = isinstance(problem, KeyError)
            what = f"the row has no field {problem}" if missing else f"the row cannot be used: {problem}"
            error = window.error(what, window.start)
            if lost is None:
                raise error from problem
            lost.note(error)


def key(token: object) -> int:
    """64 bits that stand for a token (of 32 hex digits in all published tables, but any text will do).

    Two of 2.6 million tokens share them with a probability of 2e-7; whoever indexes by keys must refuse equal ones.
    """
    if not isinstance(token, str):
        raise TypeError(f"expected a token, found {str(token)[:40]!r}")
    return xxhash.xxh3_64_intdigest(token.encode())


def _rows(window: _Window, lost: Lost | None) -> Iterator[Row]:
    begun = False
    while True:
        try:
            if begun or window.opens():
                begun = True
                yield window.row()
                while window.comma():
                    yield window.row()
            if window.next_character():
                raise window.error("no valid JSON: more text after the list")
            return
        except RawDataError as problem:
            if lost is None:
                raise
            lost.note(problem)
            begun = True
            if not window.skip_to_row():
                return


class _Window:
    """The stretch of a table that is being parsed: `text[place:]` and the blocks after it are still to come."""

    def __init__(self, store: Store, path: str) -> None:
        size = store.size(path)
        if size is None:
            hint = "unpack the metadata again"
            raise RawDataError("the table is missing", dataset=DATASET, path=path, hint=hint)
        self.store, self.path, self.size = store, path, size
        self.text, self.place, self.start = "", 0, 0
        self._offset, self._line = 0, 1
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def error(self, problem: str, place: int | None = None) -> RawDataError:
        """An error about `text[place]`, by default about what comes next."""
        line = self._line + self.text.count("\n", 0, self.place if place is None else place)
        hint = "unpack the metadata again"
        return RawDataError(problem, dataset=DATASET, path=self.path, line=line, hint=hint)

    def more(self) -> bool:
        """Forget what is parsed and add a block; False at the end of the file."""
        if self._offset >= self.size:
            return False
        length = min(BLOCK_BYTES, self.size - self._offset)
        try:
            data = self.store.read_range(self.path, self._offset, length)
            self._offset += length
            new = self._decoder.decode(data, final=len(data) < length or self._offset >= self.size)
        except OSError as problem:
            self._offset = self.size  # asking again would not end
            raise self.error(f"cannot be read: {problem}") from problem
        except UnicodeDecodeError as problem:
            self._line += problem.object[: problem.start].count(b"\n")
            self._decoder.reset()
            raise self.error(f"no UTF-8 text: {problem.reason}", len(self.text)) from problem
        self._line += self.text.count("\n", 0, self.place)
        self.text, self.place = self.text[self.place :] + new, 0
        return True

    def next_character(self) -> str:
        """The next one that is no space, where `place` then is; "" at the end of the file."""
        while True:
            self.place = _space(self.text, self.place).end()  # type: ignore[union-attr]
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.more():
                return ""

    def opens(self) -> bool:
        """Step into the list; False if it is empty."""
        if self.next_character() != "[":
            raise self.error("no valid JSON: expected a list of rows")
        self.place += 1
        if self.next_character() != "]":
            return True
        self.place += 1
        return False

    def skip_to_row(self) -> bool:
        """Go to where the next row begins; False where none does."""
        self.place = min(self.place + 1, len(self.text))
        while True:
            place = self.text.find("{", self.place)
            if place >= 0:
                self.place = place
                return True
            self.place = len(self.text)
            try:
                if not self.more():
                    return False
            except RawDataError:  # in the block after the one that was told about
                continue

    def comma(self) -> bool:
        """Step over the comma between two rows, or over the end of the list, which is False."""
        found = _comma(self.text, self.place)
        if found is not None and found.end() < len(self.text):
            self.place = found.end()
            return True
        character = self.next_character()
        if character not in (",", "]"):
            raise self.error("no valid JSON: expected a comma or the end of the list")
        self.place += 1
        return character == ","

    def row(self) -> Row:
        if not self.text.startswith("{", self.place) and self.next_character() != "{":
            raise self.error("no valid JSON: expected a row")
        row: Row
        while True:
            try:
                row, end = _decode(self.text, self.place)
            except json.JSONDecodeError as problem:
                # A row that a block's end has cut looks like a damaged one until there is more of it.
                if len(self.text) - self.place <= MAX_ROW and self.more():
                    continue
                raise self.error(f"no valid JSON: {problem.msg}", problem.pos) from problem
            except (ValueError, RecursionError) as problem:
                raise self.error(f"no valid JSON: {problem}") from problem
            self.start, self.place = self.place, end
            return row
