"""The zip that is handed in: the files of a folder at its root, with an entry for each folder, always the same bytes.

Servers look for their files at the root, so the folder itself is no part of their names; and SemanticKITTI's validator
looks for entries of the folders, which zips of files alone do not have. Names are sorted, and times and permissions are
fixed. Files are read one by one.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from brickyard.shards.atomic import TEMPORARY, flush

_TIME = (1980, 1, 1, 0, 0, 0)
_FILE, _FOLDER = 0o100644 << 16, 0o040755 << 16 | 0x10
_LEVEL = 6


def write_zip(out: Path, root: Path, files: Sequence[str]) -> None:
    """Write files of `root`, named relative to it with forward slashes, to a zip that appears when it is whole."""
    temporary = out.with_name(f"{TEMPORARY}{out.name}")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name in sorted({*files, *folders(files)}):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3
            if name.endswith("/"):
                entry.external_attr = _FOLDER
                archive.writestr(entry, b"")
                continue
            entry.external_attr, entry.compress_type = _FILE, zipfile.ZIP_DEFLATED
            entry.file_size = (root / name).stat().st_size
            with (root / name).open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(out)
    flush(out.parent)


def folders(files: Sequence[str]) -> list[str]:
    """The folders of the files, each with a slash at its end."""
    return sorted({f"{parent}/" for name in files for parent in PurePosixPath(name).parents if parent.name})


def read_members(path: Path, names: Sequence[str]) -> Iterator[bytes]:
    """The bytes of files in a zip, in the order of the names."""
    with zipfile.ZipFile(path) as archive:
        for name in names:
            yield archive.read(name)
