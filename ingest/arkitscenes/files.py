"""The files of one capture under the names they have unpacked, whether they lie in folders or in zips.

    3dod/<fold>/<id>/...   or  <id>.zip, which holds <id>/...
    raw/<fold>/<id>/...    and for each kind of image lowres_wide/...  or  lowres_wide.zip, which holds lowres_wide/...

A zip is read in place: its directory once a scene, then the members that are wanted. All else about a capture, such as
where its frames are, is the same for both subsets but for one folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from brickyard.ingest.source import MAX_FILE_BYTES, RawFiles, SceneRef
from brickyard.ingest.structured3d.volumes import DAMAGED, Member, VolumeError, list_members, read_member

REPORT = "if it is whole, please report it: no real file was at hand when this was written"
MAX_IMAGE = 64 << 20
TIMED = re.compile(r"(?P<video>\d+)_(?P<seconds>\d{1,9})\.(?P<milliseconds>\d{3})\.(?P<suffix>png|pincam)")


@dataclass(frozen=True)
class _Packed:
    zip: str
    member: Member
    name: str


class CaptureFiles(RawFiles):
    """As `RawFiles`; paths are those of the unpacked tree."""

    def __init__(self, ref: SceneRef) -> None:
        super().__init__(ref)
        self.video: str = ref.details["video"]
        self.folder: str = ref.details["folder"]
        self.frames: str = self.folder + (f"/{self.video}_frames" if ref.details["subset"] == "3dod" else "")
        self._members: dict[str, _Packed] = {}
        self._listed: dict[str, dict[str, int]] = {}
        self._opened: set[str] = set()

    @property
    def mesh(self) -> str:
        return f"{self.folder}/{self.video}_3dod_mesh.ply"

    @property
    def annotation(self) -> str:
        return f"{self.folder}/{self.video}_3dod_annotation.json"

    @property
    def trajectory(self) -> str:
        return f"{self.frames}/lowres_wide.traj"

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

    def timed(self, kind: str) -> dict[int, str]:
        """Milliseconds -> path of the files of one kind, such as "lowres_wide"; rising. Others are not looked at."""
        folder, found = f"{self.frames}/{kind}", {}
        for name in self.listing(folder):
            match = TIMED.fullmatch(name)
            if match is not None and match["video"] == self.video:
                found[int(match["seconds"]) * 1000 + int(match["milliseconds"])] = f"{folder}/{name}"
        return dict(sorted(found.items()))

    def read(self, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
        self._open(path.rpartition("/")[0])
        packed = self._members.get(path)
        if packed is None or self.store.size(path) is not None:
            return super().read(path, limit)
        return read_member(self, packed.zip, packed.member, packed.name, limit)

    def _open(self, folder: str) -> None:
        """Read the directories of the zips that may hold a folder's files."""
        kind = folder.rpartition("/")[2]
        for role, base in (("zip", self.folder.rpartition("/")[0]), (f"zip_{kind}", self.folder)):
            path = self.ref.files.get(role)
            if path is None or path in self._opened:
                continue
            self._opened.add(path)
            self.size(path)
            try:
                for name, member in list_members(self.store, path):
                    self._members[f"{base}/{name.removeprefix('./')}"] = _Packed(path, member, name)
            except VolumeError as problem:
                raise self.error(path, str(problem), hint=DAMAGED) from problem


def beside(paths: Mapping[int, str], time: int) -> str | None:
    """The file of a frame: of its own millisecond, or the one before or after."""
    return next((paths[t] for t in (time, time - 1, time + 1) if t in paths), None)
