"""What a scene costs: a small expression over the numbers of the index, such as "n_points + 4096 * min(n_views, 4)".

    sum      = product {"+" product}
    product  = value {"*" value}
    value    = number | column | ("min" | "max") "(" sum {"," sum} ")" | "(" sum ")"

Sums, products, least and greatest of numbers that are not negative are not negative either, which is why there is no
more to it. The text is parsed here, by hand, and every column in it is one that every index has.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from brickyard.shards.index import METADATA

COLUMNS = tuple(
    f.name
    for f in METADATA
    if (pa.types.is_integer(f.type) or pa.types.is_floating(f.type)) and f.name != "timestamp_ns"
)
"""The numbers of an index, but for times, which cost nothing."""

MAX_CHARACTERS = 500
MAX_DEPTH = 16
_TOKEN = re.compile(r"\s*(?:\d+(?:\.\d*)?(?:[eE]\+?\d{1,2})?|[A-Za-z_]\w*|[+*(),]|$)", re.ASCII)
_FUNCTIONS: Mapping[str, Callable[[Any, Any], Any]] = {"min": np.minimum, "max": np.maximum}

Numbers = NDArray[np.float64]
_Node = Callable[[Mapping[str, Numbers]], Any]
"""Columns -> the value, an array or, where no column is in it, a number."""


class Cost:
    """A parsed expression.

    Args:
        text: raises ValueError, with the place, for one that is not of the grammar above or names an unknown column.

    Attributes:
        columns: that it needs, in the order of the index.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._names: set[str] = set()
        self._tokens = list(self._scan())
        self._next = 0
        self._value = self._sum(0)
        if self._peek() != "":
            raise self._unexpected("the end, + or *")
        self.columns = tuple(name for name in COLUMNS if name in self._names)

    def __reduce__(self) -> tuple[type[Cost], tuple[str]]:
        return Cost, (self.text,)

    def of(self, index: pa.Table) -> Numbers:
        """float64 (N,): what every row of an index costs; not a number where a column that it needs is unknown."""
        table = {name: np.asarray(index.column(name).to_numpy(), np.float64) for name in self.columns}
        with np.errstate(over="ignore", invalid="ignore"):
            return np.broadcast_to(np.asarray(self._value(table), np.float64), len(index))

    # Parsing: every method begins at the next token and leaves off behind what it has read.

    def _scan(self) -> Iterator[tuple[str, int]]:
        """(token, its place) of every token; the last one is empty."""
        if len(self.text) > MAX_CHARACTERS:
            raise ValueError(f"a cost has at most {MAX_CHARACTERS} characters, this one {len(self.text)}")
        place = 0
        while place < len(self.text):
            found = _TOKEN.match(self.text, place)
            if found is None:
                wrong = self.text[place:].lstrip(string.whitespace)[:1]
                raise self._error(f"{wrong!r} is none of its signs", place)
            if token := found[0].strip():
                yield token, found.end() - len(token)
            place = found.end()
        yield "", place

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _take(self, *wanted: str) -> bool:
        """Whether the next token is one of these; if so, it is behind us."""
        found = self._peek() in wanted
        self._next += found
        return found

    def _sum(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels", self._tokens[self._next][1])
        parts = [self._product(depth)]
        while self._take("+"):
            parts.append(self._product(depth))
        return _joined(np.add, parts)

    def _product(self, depth: int) -> _Node:
        parts = [self._single(depth)]
        while self._take("*"):
            parts.append(self._single(depth))
        return _joined(np.multiply, parts)

    def _single(self, depth: int) -> _Node:
        token = self._peek()
        if self._take("("):
            inner = self._sum(depth + 1)
            self._expect(")")
            return inner
        if token in _FUNCTIONS:
            self._next += 1
            self._expect("(")
            parts = [self._sum(depth + 1)]
            while self._take(","):
                parts.append(self._sum(depth + 1))
            self._expect(")")
            return _joined(_FUNCTIONS[token], parts)
        if token[:1].isdigit():
            self._next += 1
            number = float(token)
            return lambda _: number
        if token.isidentifier():
            if token not in COLUMNS:
                raise self._error(f"the index has no number {token!r}; there are {', '.join(COLUMNS)}")
            self._next += 1
            self._names.add(token)
            return lambda table: table[token]
        raise self._unexpected("a number, a column, min, max or (")

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._unexpected(repr(sign))

    def _unexpected(self, wanted: str) -> ValueError:
        found, place = self._tokens[self._next]
        return self._error(f"expected {wanted}, found {repr(found) if found else 'the end'}", place)

    def _error(self, problem: str, place: int | None = None) -> ValueError:
        where = "" if place is None else f" at character {place + 1}"
        return ValueError(f"cost {self.text[:80]!r}{where}: {problem}")


def _joined(operation: Callable[[Any, Any], Any], parts: list[_Node]) -> _Node:
    return parts[0] if len(parts) == 1 else lambda table: reduce(operation, (part(table) for part in parts))
