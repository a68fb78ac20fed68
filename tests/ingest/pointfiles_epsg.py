"""Makes `ingest/pointfiles/epsg.json`, the units of the EPSG register, out of the copy of it that pyproj brings along.

    pip install pyproj && python -m tests.ingest.pointfiles_epsg

pyproj is no dependency: 10 MB for a table of 17 KB. Codes beyond 65535 are left out, a GeoTIFF key cannot hold them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "ingest/pointfiles/epsg.json"
CODES = 1 << 16
_AXES = """
    select c.code, u.code, a.orientation from {} c
    join axis a on a.coordinate_system_auth_name = c.coordinate_system_auth_name
        and a.coordinate_system_code = c.coordinate_system_code
    join unit_of_measure u on u.auth_name = a.uom_auth_name and u.code = a.uom_code
    where c.auth_name = 'EPSG' order by a.coordinate_system_order
"""


def table(database: Path) -> dict[str, Any]:
    """The content of epsg.json from PROJ's `proj.db`."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        version = dict(db.execute("select key, value from metadata"))["EPSG.VERSION"]
        horizontal, vertical = (_first(db.execute(_AXES.format(name))) for name in ("projected_crs", "vertical_crs"))
        geodetic = _first(db.execute(_AXES.format("geodetic_crs")))
        kinds = db.execute("select code, type from geodetic_crs where auth_name = 'EPSG'")
        geographic = {int(code) for code, kind in kinds if kind != "geocentric"}
        horizontal |= {code: unit for code, unit in geodetic.items() if code not in geographic}
        pairs = "select code, horiz_crs_code, vertical_crs_code from compound_crs where auth_name = 'EPSG'"
        for code, flat, height in ((int(c), int(h), int(v)) for c, h, v in db.execute(pairs)):
            vertical[code] = vertical[height]
            if flat in geographic:
                geographic.add(code)
            else:
                horizontal[code] = horizontal[flat]
        lengths = db.execute(
            "select code, conv_factor from unit_of_measure where auth_name = 'EPSG' and type = 'length' "
            "and name not like '% per %' and name not like 'Bin %'"
        )
        metres = {str(code): factor for code, factor in sorted((int(code), factor) for code, factor in lengths)}
    return {
        "about": f"Units of length of coordinate reference systems, by codes of the EPSG Geodetic Parameter Dataset "
        f"{version} (owned by IOGP). Made by tests/ingest/pointfiles_epsg.py.",
        "metres": metres,
        "horizontal": _by_unit(horizontal),
        "vertical": _by_unit(vertical),
        "geographic": _runs(geographic),
    }  # fmt: skip


def _first(rows: Iterable[tuple[Any, ...]]) -> dict[int, int]:
    """Code of a system -> code of the unit of its first axis."""
    found: dict[int, int] = {}
    for code, unit, _ in rows:
        found.setdefault(int(code), int(unit))
    return found


def _by_unit(units: dict[int, int]) -> dict[str, str]:
    return {str(unit): _runs(c for c in units if units[c] == unit) for unit in sorted(set(units.values()))}


def _runs(codes: Iterable[int]) -> str:
    """Such as "2000-2045 2056"."""
    runs: list[list[int]] = []
    for code in sorted(code for code in codes if code < CODES):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def main() -> None:
    folder = Path(import_module("pyproj").datadir.get_data_dir())
    TARGET.write_text(json.dumps(table(folder / "proj.db"), indent=1) + "\n")


if __name__ == "__main__":
    main()
