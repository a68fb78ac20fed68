"""Files that a run leaves, and their digests: what is read back is what was written, or it is refused.

    digests.json    file name -> {"bytes": 31337, "xxh3_128": "9c0e..."}, written last

A bit that flips on a disk changes a weight and nothing else: the file still opens, the run still goes on, to other
losses. So whoever reads weights compares them first; it costs a tenth of reading them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xxhash

from brickyard.shards.documents import Every, read_file, write_document
from brickyard.shards.errors import BrickyardError

DIGESTS = "digests.json"
_CHUNK = 8 << 20
_SHAPE = Every({"bytes": int, "xxh3_128": str})


def write_digests(folder: Path, names: Iterable[str]) -> None:
    """Record what these files of a folder hold; to be called when all of them are written."""
    table = {name: _digest(folder / name) for name in sorted(names)}
    write_document(folder / DIGESTS, table)


def check_digests(folder: Path, names: Iterable[str], *, hint: str, required: bool = False) -> None:
    """Compare files with what was recorded of them. A folder of a version that recorded nothing is let through with a
    warning, unless its digests are `required`.

    Args:
        names: files that are about to be read.
        hint: what to do about damage.

    Raises:
        BrickyardError: a file is missing, or not the one that was written; or its digest is missing or damaged.
    """
    path = folder / DIGESTS
    if not path.exists() and not required:
        text = f"{folder} has no {DIGESTS} (older versions wrote none): damage to its files would not be noticed"
        warnings.warn(text, stacklevel=2)
        return
    recorded = read_file(path, _SHAPE, error=BrickyardError, hint=hint)
    for name in names:
        if name not in recorded:
            raise BrickyardError(f"{path} knows no {name}: {hint}")
        try:
            found = _digest(folder / name)
        except OSError as problem:
            raise BrickyardError(f"{folder / name} cannot be read: {problem.strerror or problem}: {hint}") from problem
        if found != recorded[name]:
            raise BrickyardError(f"{folder / name} is damaged: it is not the file that was written: {hint}")


def _digest(path: Path) -> dict[str, Any]:
    digest, size, buffer = xxhash.xxh3_128(), 0, bytearray(_CHUNK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            size += count
    return {"bytes": size, "xxh3_128": digest.hexdigest()}
