"""What the steps of reading one scan share: its files, and the record of what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from brickyard.ingest.source import RawFiles, SceneRef


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One reading of a reference; `dropped` is filled as it goes on and ends up in `Scene.dropped`."""

    ref: SceneRef
    files: RawFiles
    dropped: Counter[str]

    def path(self, role: str) -> str | None:
        return self.ref.files.get(role)


def open_scan(ref: SceneRef) -> Scan:
    return Scan(ref=ref, files=RawFiles(ref), dropped=Counter())
