"""The files of one scene by the paths they have unpacked, whether they lie in folders or in zips.

A zip is read in place: its directory once a scene, then the members that are wanted. What was unpacked goes before what
lies in a zip.
"""

from __future__ import annotations

from dataclasses import dataclass

from brickyard.ingest.source import MAX_FILE_BYTES, RawFiles, SceneRef
from brickyard.ingest.zips import DAMAGED, Member, VolumeError, list_members, read_member


@dataclass(frozen=True)
class _Packed:
    zip: str
    member: Member
    name: str


class ArchivedFiles(RawFiles):
    """As `RawFiles`; paths are those of the unpacked tree."""

    def __init__(self, ref: SceneRef) -> None:
        super().__init__(ref)
        self._members: dict[str, _Packed] = {}
        self._listed: dict[str, dict[str, int]] = {}
        self._opened: set[str] = set()

    def open_zip(self, path: str, base: str = "", within: str = "") -> None:
        """Read a zip's directory, once; raises `RawDataError` if it cannot be.

        Args:
            base: the folder that it would be unpacked in.
            within: a folder; what does not lie in one of this name, at any depth, is left out, and so is what is above.
        """
        if path in self._opened:
            return
        self._opened.add(path)
        self.size(path)
        try:
            for name, member in list_members(self.store, path):
                place = name.removeprefix("./")
                if within:
                    _, found, rest = f"/{place}".partition(f"/{within}/")
                    place = f"{within}/{rest}" if found else ""
                if place:
                    self._members[f"{base}/{place}" if base else place] = _Packed(path, member, name)
        except VolumeError as problem:
            raise self.error(path, str(problem), hint=DAMAGED) from problem

    def _open(self, folder: str) -> None:
        """Open the zips that may hold a folder's files; those that are opened by somebody else need nothing here."""

    def has(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self.listing(folder)

    def listing(self, folder: str) -> dict[str, int]:
        """File name -> bytes of the files directly inside a folder."""
        if folder not in self._listed:
            self._open(folder)
            found = self.store.sizes(folder)
            for path, packed in self._members.items():
                if path.rpartition("/")[0] == folder:
                    found.setdefault(path.rpartition("/")[2], packed.member.size)
            self._listed[folder] = found
        return self._listed[folder]

    def read(self, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
        self._open(path.rpartition("/")[0])
        packed = self._members.get(path)
        if packed is None or self.store.size(path) is not None:
            return super().read(path, limit)
        return read_member(self, packed.zip, packed.member, packed.name, limit)
