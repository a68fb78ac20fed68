"""Simulated datasets say what they are: a file LICENSE in their root, which every source knows.

A simulated world has the layout and the names of the real dataset, and nothing of its data. Without the file its scenes
would be taken for real ones, under the real dataset's licence. So `Source` looks for it while planning, and whatever a
reader says, third parties' readers too, the scenes of such a root are under CC0 and of the version "simulated".
"""

from __future__ import annotations

from pathlib import Path

from brickyard.shards.atomic import write_whole
from brickyard.shards.storage import Store

LICENCE = "CC0-1.0"
VERSION = "simulated"
MARKER = "LICENSE"

_FIRST_LINE = f"SPDX-License-Identifier: {LICENCE} (a world simulated by Brickyard)"
_TEXT = f"""{_FIRST_LINE}

`brickyard simulate` made everything in this folder. It holds nothing of the dataset whose layout and names it follows,
and that dataset's licence does not apply. Whoever made it waives all rights: do with it as you like, pass it on as you
like (https://creativecommons.org/publicdomain/zero/1.0/). Keep this file, it tells readers that the data are not real.
"""
_MOST = 4096


def mark(folder: Path) -> None:
    """Say that what lies in a folder is simulated."""
    write_whole(folder / MARKER, _TEXT.encode())


def is_marked(store: Store) -> bool:
    """Whether a root says that it is simulated; a licence of any other text says nothing."""
    try:
        size = store.size(MARKER)
        return size is not None and size <= _MOST and store.read(MARKER).startswith(f"{_FIRST_LINE}\n".encode())
    except OSError:
        return False
