"""The files of one capture under the names they have unpacked, whether they lie in folders or in zips.

    3dod/<fold>/<id>/...   or  <id>.zip, which holds <id>/...
    raw/<fold>/<id>/...    and for each kind of image lowres_wide/...  or  lowres_wide.zip, which holds lowres_wide/...

All else about a capture, such as where its frames are, is the same for both subsets but for one folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from brickyard.ingest.archived import ArchivedFiles
from brickyard.ingest.source import SceneRef

REPORT = "if it is whole, please report it: no real file was at hand when this was written"
MAX_IMAGE = 64 << 20
TIMED = re.compile(r"(?P<video>\d+)_(?P<seconds>\d{1,9})\.(?P<milliseconds>\d{3})\.(?P<suffix>png|pincam)")


class CaptureFiles(ArchivedFiles):
    """Whole captures are zipped in 3dod, kinds of frames in raw."""

    def __init__(self, ref: SceneRef) -> None:
        super().__init__(ref)
        self.video: str = ref.details["video"]
        self.folder: str = ref.details["folder"]
        self.frames: str = self.folder + (f"/{self.video}_frames" if ref.details["subset"] == "3dod" else "")

    @property
    def mesh(self) -> str:
        return f"{self.folder}/{self.video}_3dod_mesh.ply"

    @property
    def annotation(self) -> str:
        return f"{self.folder}/{self.video}_3dod_annotation.json"

    @property
    def trajectory(self) -> str:
        return f"{self.frames}/lowres_wide.traj"

    def timed(self, kind: str) -> dict[int, str]:
        """Milliseconds -> path of the files of one kind, such as "lowres_wide"; rising. Others are not looked at."""
        folder, found = f"{self.frames}/{kind}", {}
        for name in self.listing(folder):
            match = TIMED.fullmatch(name)
            if match is not None and match["video"] == self.video:
                found[int(match["seconds"]) * 1000 + int(match["milliseconds"])] = f"{folder}/{name}"
        return dict(sorted(found.items()))

    def _open(self, folder: str) -> None:
        kind = folder.rpartition("/")[2]
        for role, base in (("zip", self.folder.rpartition("/")[0]), (f"zip_{kind}", self.folder)):
            if (path := self.ref.files.get(role)) is not None:
                self.open_zip(path, base)


def beside(paths: Mapping[int, str], time: int) -> str | None:
    """The file of a frame: of its own millisecond, or the one before or after."""
    return next((paths[t] for t in (time, time - 1, time + 1) if t in paths), None)
