"""Which raw drive each frame of the object benchmark's training set was taken from.

The object devkit's `mapping` folder says it in two files: `train_rand.txt`, a permutation of 1..n separated by commas,
and `train_mapping.txt`, whose line k reads `date drive frame`. Frame i (from 0) is line `train_rand[i]`. Some hundred
kilobytes, read once while planning, and only where the folder was unpacked into the dataset's root.
"""

from __future__ import annotations

from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

_FOLDERS = ("mapping", "devkit/mapping", "devkit_object/mapping")
_MAX_BYTES = 16 << 20


def list_drives(store: Store, dataset: str) -> dict[int, str]:
    """Training frame -> drive, such as "2011_09_26_drive_0005_sync"; empty without a mapping folder.

    Raises:
        RawDataError: the two files are not what they should be, or do not fit together.
    """
    for folder in _FOLDERS:
        names = f"{folder}/train_rand.txt", f"{folder}/train_mapping.txt"
        sizes = [store.size(name) for name in names]
        if None in sizes:
            continue
        if max(size or 0 for size in sizes) > _MAX_BYTES:
            raise RawDataError("too large for a mapping file", dataset=dataset, path=folder)
        permutation, table = (store.read(name) for name in names)
        for name, data in zip(names, (permutation, table), strict=True):
            if b"\0" in data:  # line ends are lost, too: which line is which cannot be told
                raise RawDataError(
                    "holds zero bytes (a lost block)", dataset=dataset, path=name, offset=data.find(b"\0")
                )
        return _join(permutation, table, folder, dataset)
    return {}


def _join(permutation: bytes, table: bytes, folder: str, dataset: str) -> dict[int, str]:
    rows = [line.split() for line in table.decode("ascii", errors="replace").splitlines() if line.strip()]
    drives: dict[int, str] = {}
    for frame, word in enumerate(permutation.decode("ascii", errors="replace").replace(",", " ").split()):
        if not (word.isascii() and word.isdecimal() and 1 <= int(word[:9]) <= len(rows)):
            problem = f"entry {frame + 1} is {word[:20]!r}, expected a line number 1..{len(rows)} of train_mapping.txt"
            raise RawDataError(problem, dataset=dataset, path=f"{folder}/train_rand.txt")
        row = rows[int(word[:9]) - 1]
        if len(row) != 3:
            problem = f"{' '.join(row)[:60]!r}, expected date, drive and frame"
            raise RawDataError(problem, dataset=dataset, path=f"{folder}/train_mapping.txt", line=int(word[:9]))
        drives[frame] = row[1]
    return drives
