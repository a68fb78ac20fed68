"""What lies in a folder: listings that survive what disks really hold, and skip what no dataset put there.

Links to folders are followed, so a dataset may be spread over disks, but no folder is listed twice: links that lead
back end there, and links to the same folder multiply nothing. A folder that may not be opened and a name that no path
in a store can have are passed over and told to the caller, with a place that can be printed. What file managers and
operating systems leave beside the data (`._scan.ply`, `.DS_Store`, `Thumbs.db`) is never listed.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import pyarrow.fs as pafs

Note = Callable[[str, str], None]
"""Called with (place relative to the listed folder, why it is not listed)."""

COMPANIONS = frozenset(
    {
        "__macosx", ".ds_store", ".appledouble", ".localized", ".spotlight-v100", ".fseventsd", ".temporaryitems",
        ".documentrevisions-v100", ".trashes", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin",
        "system volume information", "@eadir", "#recycle", ".directory",
    }
)  # fmt: skip
"""Files and folders of macOS, Windows, NAS boxes and KDE, in lower case; `._name` are macOS's companions of `name`."""


Kind: TypeAlias = Literal["file", "folder", "other"]


class Entry(NamedTuple):
    """A file, a folder or something else (a pipe, a device), named relative to the folder that was listed."""

    name: str
    kind: Kind
    size: int


def is_companion(name: str) -> bool:
    """Whether a file manager made it, not the dataset."""
    return name.startswith("._") or name.lower() in COMPANIONS or name.startswith(".Trash-")


def local_entries(folder: str, note: Note, *, strict: bool = False) -> list[Entry]:
    """What is directly inside a local folder (nothing if there is no such folder), with the sizes of the files.

    Args:
        strict: raise `OSError` for a folder that cannot be listed, instead of noting it.
    """
    entries = []
    for found in _scan(folder, "", note, strict=strict):
        try:
            status = found.stat()
        except OSError as problem:
            note(found.name, _why(problem, found))
            continue
        if stat.S_ISDIR(status.st_mode):
            entries.append(Entry(found.name, "folder", 0))
        else:
            kind: Kind = "file" if stat.S_ISREG(status.st_mode) else "other"
            entries.append(Entry(found.name, kind, status.st_size))
    return entries


def local_files(folder: str, note: Note) -> list[str]:
    """Sorted names of all files below a local folder, each folder once: under its own name rather than a link's."""
    walk = _Walk(folder, note)
    walk.descend("", linked=False)
    while walk.links:
        links, walk.links = sorted(walk.links), []
        for link in links:
            walk.descend(link, linked=True)
    return sorted(walk.files)


class _Walk:
    """The files found so far below a folder, and the links to folders that are still to be followed."""

    def __init__(self, folder: str, note: Note) -> None:
        self.files: list[str] = []
        self.links: list[str] = []
        self._folder, self._note = folder, note
        self._seen: set[tuple[int, int]] = set()

    def descend(self, top: str, *, linked: bool) -> None:
        """Add one tree. Only what a link leads to is held against the folders seen: without links there are no loops,
        and some network disks give two folders the same number."""
        waiting = [top]
        while waiting:
            below = waiting.pop()
            full = _join(self._folder, below)
            try:
                status = Path(full).stat()
            except OSError as problem:
                if below:
                    self._note(below, _why(problem))
                continue
            number = (status.st_dev, status.st_ino)
            if linked and number in self._seen:
                self._note(below, "a link leads here, to a folder that is listed already")
                continue
            self._seen.add(number)
            waiting += [name for entry in _scan(full, below, self._note) if (name := self._add(entry, below))]

    def _add(self, entry: os.DirEntry[str], below: str) -> str | None:
        """Take a file or a link; returns the name of a folder to go into."""
        name = f"{below}/{entry.name}" if below else entry.name
        try:
            if entry.is_file():
                self.files.append(name)
            elif entry.is_dir():
                if not entry.is_symlink():
                    return name
                self.links.append(name)
            elif entry.is_symlink():
                entry.stat()  # says why it leads to nothing
        except OSError as problem:
            self._note(name, _why(problem, entry))
        return None


def _scan(folder: str, below: str, note: Note, *, strict: bool = False) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder that a store can name."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
        if found and not os.access(folder, os.X_OK):
            raise PermissionError(errno.EACCES, "the folder may be listed, but nothing in it opened", folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as problem:
        if strict:
            raise
        note(below, _why(problem))
        return
    for entry in found:
        if is_companion(entry.name):
            continue
        if refused := _unnameable(entry.name):
            note(f"{below}/{entry.name}" if below else entry.name, refused)
        else:
            yield entry


def remote_entries(infos: Iterable[pafs.FileInfo], folder: str, note: Note) -> list[Entry]:
    """The same of what a remote file system listed below `folder`."""
    entries = []
    for info in infos:
        name = info.path.removeprefix(folder).strip("/")
        if not name or any(map(is_companion, name.split("/"))):
            continue  # an object store may list a mark of the folder itself
        if refused := _unnameable(name):
            note(name, refused)
        elif info.type == pafs.FileType.Directory:
            entries.append(Entry(name, "folder", 0))
        else:
            entries.append(Entry(name, "file" if info.type == pafs.FileType.File else "other", int(info.size or 0)))
    return entries


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if name else folder


def _why(problem: OSError, entry: os.DirEntry[str] | None = None) -> str:
    if isinstance(problem, FileNotFoundError):
        return "a link to nothing" if entry is not None and entry.is_symlink() else "it went away while it was listed"
    return f"it cannot be opened: {problem.strerror or problem}"


def _unnameable(name: str) -> str | None:
    """Why no path of a store may have this name, if so."""
    if "\\" in name:
        return "its name has a backslash in it; rename it"
    if name.isprintable():
        return None
    kinds = {unicodedata.category(character) for character in name}
    if "Cs" in kinds:
        return "its name is not UTF-8; rename it"
    return "its name has control characters in it; rename it" if "Cc" in kinds else None


def printable(place: str) -> str:
    """The place with every byte that is no text and every control character escaped."""
    text = place.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if unicodedata.category(c) != "Cc" else c.encode("unicode_escape").decode() for c in text)
