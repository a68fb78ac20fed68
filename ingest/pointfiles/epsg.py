"""Units of length by EPSG code: what a file means that names its coordinate system by a number alone.

About every sixth projected system of the register is in feet, scattered over its codes, so the whole register is here
(`epsg.json`, made from the EPSG dataset). A code that it does not hold has no known unit.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


def metres_of_unit(code: int) -> float | None:
    """Metres per unit, of a code of the register's units of length: 9001 is the metre, 9003 the US survey foot."""
    value = _table()["metres"].get(str(code))
    return None if value is None else float(value)


def horizontal_metres(code: int) -> float | None:
    """Metres per unit of x and y of a projected, geocentric or compound system; None for a code that is no such one."""
    return _of_system("horizontal", code)


def vertical_metres(code: int) -> float | None:
    """Metres per unit of height of a vertical or compound system; None for a code that is no such one."""
    return _of_system("vertical", code)


def is_geographic(code: int) -> bool:
    """Whether the horizontal coordinates of this system are angles."""
    return code in _codes(_table()["geographic"])


def _of_system(kind: str, code: int) -> float | None:
    unit = next((unit for unit, runs in _table()[kind].items() if code in _codes(runs)), None)
    return None if unit is None else metres_of_unit(int(unit))


@cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("epsg.json").read_text())
    return found


@cache
def _codes(runs: str) -> frozenset[int]:
    """The codes of a text such as "2000-2045 2056"."""
    pairs = [run.split("-") for run in runs.split()]
    return frozenset(code for pair in pairs for code in range(int(pair[0]), int(pair[-1]) + 1))
