"""Whether a room is whole: its annotation files against the file that holds the same points without labels.

An annotation file that is gone, or that ends early, leaves no trace of its own. The room's own `<room>.txt` has one
line for each point of all of them, in another order. As a rule the lines are the same, so the sizes add up and nothing
has to be read. Only where they do not, its lines are counted. How exactly the published rooms agree nobody wrote down:
small differences are counted in `Scene.dropped`, a larger one is a room that lost something.
"""

from __future__ import annotations

from collections import Counter

from brickyard.ingest.s3dis.text import CUT, LOST_BLOCK, UNREADABLE
from brickyard.ingest.source import RawFiles

MAX_DIFFERENCE = 0.01
"""Share of the points of a room by which it may differ from its own file."""
LOST = "point of the room's own file that no annotation file has"
MORE = "point of the annotation files that the room's own file has not"
UNCHECKED = "room's own file is not there: the points were not counted against it"
NO_WITNESS = "room's own file is damaged: the points were not counted against it"
PIECE = 16 << 20


def check_total(files: RawFiles, points: int, dropped: Counter[str]) -> None:
    """Count in `dropped` by how many points the room differs from its own file, where it has one.

    Args:
        points: that were read from the annotation files.
        dropped: what their reading left out; whole lines among it are accounted for.

    Raises:
        RawDataError: the difference is no detail.
    """
    total = files.ref.files.get("total")
    if total is None:
        return
    names = [*files.ref.details["objects"], *files.ref.details["others"]]
    annotated = [files.ref.files[name.removesuffix(".txt")] for name in names]
    if sum(map(files.size, annotated)) == files.size(total):
        return
    lines = _count_lines(files, total)
    if lines is None:
        dropped[NO_WITNESS] += 1
        return
    others = [files.ref.files[name.removesuffix(".txt")] for name in files.ref.details["others"]]
    known = points + dropped[UNREADABLE] + dropped[CUT] + sum(_count_lines(files, path) or 0 for path in others)
    if abs(lines - known) > MAX_DIFFERENCE * lines:
        raise files.error(
            f"{files.ref.details['folder']}/Annotations",
            f"its files hold {known} points, {total} has {lines} lines: one of them is missing, cut off or of "
            "another room", hint="extract the room from the archive again",
        )  # fmt: skip
    if lines != known:
        dropped[LOST if lines > known else MORE] += abs(lines - known)


def _count_lines(files: RawFiles, path: str) -> int | None:
    """Lines of a text; None where it is damaged: cut off inside a line, or with a block of zero bytes."""
    size, count, end = files.size(path), 0, b"\n"
    for start in range(0, size, PIECE):
        piece = files.read_range(path, start, min(PIECE, size - start))
        if LOST_BLOCK in piece:
            return None
        count += piece.count(b"\n")
        end = piece[-1:]
    return count if end == b"\n" else None
