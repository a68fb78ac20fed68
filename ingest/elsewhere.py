"""A dataset's folder as it may lie elsewhere: on a remote store, or among what disks and file managers leave beside it.

For the contract kit: no server is needed, and nothing is written into the folder itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.fs as pafs

from brickyard.shards.filesystems import open_filesystem
from brickyard.shards.retry import RetryPolicy
from brickyard.shards.storage import Store
from brickyard.shards.uri import Location

_EVENTS = ("open", "os.listdir", "os.scandir")
_listeners: list[Any] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _listeners and event in _EVENTS:
        for listener in _listeners:
            listener(arguments[0])


@contextmanager
def opened_below(root: str, counts: Callable[[], bool] = lambda: True) -> Iterator[set[str]]:
    """What Python opens below a local root meanwhile, in this process and while `counts()`: names relative to it."""
    found: set[str] = set()

    def note(path: object) -> None:
        if counts() and isinstance(path, str | bytes | os.PathLike):
            text = os.fsdecode(path)
            if text.startswith(root + "/"):
                found.add(text.removeprefix(root + "/"))

    if not getattr(_on_event, "installed", False):
        sys.addaudithook(_on_event)  # cannot be taken back; without listeners it does nothing
        _on_event.installed = True  # type: ignore[attr-defined]
    _listeners.append(note)
    try:
        yield found
    finally:
        _listeners.remove(note)


@contextmanager
def remote(folder: str) -> Iterator[str]:
    """The address of a local folder as a store that is not local: its paths are none that `open` could open."""
    root = Path(Store(folder).path(""))
    address = f"elsewhere://{root.name}"
    inside = pafs.SubTreeFileSystem(str(root.parent), pafs.LocalFileSystem())

    def opening(location: Location, policy: RetryPolicy) -> tuple[pafs.FileSystem, str]:
        return (inside, root.name) if location.whole == address else open_filesystem(location, policy)

    with patch("brickyard.shards.storage.open_filesystem", opening):
        yield address


def mirror(folder: str, target: Path) -> list[str]:
    """Links to all files of a folder, in the same tree below `target`; returns their names."""
    store, names = Store(folder), []
    for name in store.walk():
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(store.path(name))
        names.append(name)
    return names


COMPANION = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(90)
"""How the companion begins that macOS leaves beside a file on a disk that is not its own."""


def litter(target: Path, names: list[str]) -> None:
    """Leave beside the files what file managers do, and what damaged or shared disks have."""
    for name in names:
        path, beside = Path(name), Path(name).with_name(f"._{Path(name).name}")
        trash = path.parent / ".Trash-1000" / "files" / path.name
        for place in (beside, Path("__MACOSX", beside), path.parent / "@eaDir" / path.name, trash):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(COMPANION)
    folders = {target / folder for name in names for folder in Path(name).parents}
    for folder in folders:
        for left in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / left).write_bytes(b"\x00\x00\x00\x01Bud1")
    (target / "again").symlink_to(".")
    suffix = Path(names[0]).suffix if names else ""
    for odd in (b"not-utf8-\xff", b"back\\slash"):
        with suppress(OSError):  # where the disk itself refuses such names
            (target / os.fsdecode(odd)).with_suffix(suffix).write_bytes(COMPANION)
    (target / "lost+found").mkdir(exist_ok=True)
    (target / "lost+found").chmod(0)
