"""Well-known text of coordinate systems, as far as their units of length go (OGC 01-009, OGC 18-010, ESRI's dialect).

    PROJCS["name", GEOGCS[...], ..., UNIT["US survey foot", 0.3048006096], AUTHORITY["EPSG", "2263"]], VERTCS[...]

A text is read leniently: what is not understood is passed over, and a unit that is not found is unknown, never a metre.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from brickyard.ingest.pointfiles import epsg

VERTICAL = {"VERT_CS", "VERTCS", "VERTCRS", "VERTICALCRS"}
LENGTHS = {
    "PROJCS", "PROJCRS", "PROJECTEDCRS", "DERIVEDPROJCRS", "LOCAL_CS", "ENGCRS", "ENGINEERINGCRS", "GEOCCS",
}  # fmt: skip
"""Systems whose coordinates are lengths."""
ANGLES = {"GEOGCS", "GEOGCRS", "GEOGRAPHICCRS", "GEODCRS", "GEODETICCRS"}
"""Systems whose coordinates are angles, unless they say that they are Cartesian."""
_TOKEN = re.compile(r'"([^"]*)"|([A-Za-z_][A-Za-z0-9_]*)\s*[\[(]|([\])])|([^\s,\[\]()"]+)')
_KNOWN = re.compile(r"(?P<feet>foot|feet|ft)|^(?P<metres>metre|meter)s?$")
_TOLERANCE = 1e-3
"""Feet of all kinds differ by less, and are told apart by the number that stands beside their name."""


@dataclass(frozen=True)
class Node:
    """`NAME[words and children]`; words are texts without their quotes and numbers."""

    name: str
    words: list[str] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    def all(self, *names: str) -> list[Node]:
        return [child for child in self.children if child.name in names]


def nodes(text: str) -> list[Node]:
    """All nodes of a text in the order in which they begin: a system before what it is made of."""
    found: list[Node] = []
    open_nodes: list[Node] = []
    for quoted, name, close, word in _TOKEN.findall(text):
        if name:
            node = Node(name.upper())
            if open_nodes:
                open_nodes[-1].children.append(node)
            open_nodes.append(node)
            found.append(node)
        elif close:
            del open_nodes[-1:]
        elif open_nodes:
            open_nodes[-1].words.append(word or quoted)
    return found


def is_geographic(system: Node) -> bool:
    """Whether the coordinates of a horizontal system are angles; `GEODCRS` with Cartesian axes is geocentric."""
    return system.name in ANGLES and not any(
        "cartesian" in word.lower() for cs in system.all("CS") for word in cs.words
    )


def horizontal_metres(system: Node) -> float | None:
    """Metres per unit of x and y, None where the system does not tell it."""
    return _metres(system, [axis for axis in system.all("AXIS") if not _is_up(axis)], epsg.horizontal_metres)


def vertical_metres(found: Iterable[Node], system: Node) -> tuple[bool, float | None]:
    """Whether heights have a system of their own, and metres per unit of height where it tells them.

    Args:
        found: all nodes of the text; the first vertical system counts.
        system: the horizontal system, whose third axis may point up.
    """
    own = next((node for node in found if node.name in VERTICAL), None)
    if own is not None:
        return True, _metres(own, own.all("AXIS"), epsg.vertical_metres)
    up = [unit for axis in system.all("AXIS") if _is_up(axis) for unit in axis.all("LENGTHUNIT", "UNIT")]
    return bool(up), _factor(up[0]) if up else None


def _metres(system: Node, axes: list[Node], of_code: Callable[[int], float | None]) -> float | None:
    units = [unit for node in (*axes, system) for unit in node.all("LENGTHUNIT", "UNIT")]
    if units:
        return _factor(units[0])
    for node in system.all("ID", "AUTHORITY"):
        if len(node.words) > 1 and node.words[0].upper() == "EPSG" and re.fullmatch(r"[0-9]{4,6}", node.words[1]):
            return of_code(int(node.words[1]))
    return None


def _is_up(axis: Node) -> bool:
    return any(word.lower() in ("up", "down") for word in axis.words[1:])


def _factor(unit: Node) -> float | None:
    """Metres per unit; None where name and number contradict each other, or there is no number."""
    try:
        value = float(unit.words[1])
    except (IndexError, ValueError):
        return None
    known = _KNOWN.search(unit.words[0].lower())
    if known is None:
        return value if 1e-4 < value < 1e4 else None
    return value if abs(value / (0.3048 if known["feet"] else 1.0) - 1) < _TOLERANCE else None
