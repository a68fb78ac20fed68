"""What 2D-3D-S has of an area: which views belong to which room, by their names; some listings an area, nothing opened.

    <views>/area_N/data/{rgb,pose,depth,semantic}/camera_<id>_<type>_<k>_frame_<i>_domain_<kind>.{png,json}
    <views>/assets/semantic_labels.json

Area 5 was captured in two parts and has two folders, area_5a and area_5b; its rooms may have views in either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from brickyard.shards.storage import Store

VIEW = re.compile(r"(camera_[0-9A-Za-z]+)_([A-Za-z]+_\d+)_(frame_\d+)_domain_rgb\.png")
PART = re.compile(r"area_([1-6])[a-z]?")
LABELS = ("assets/semantic_labels.json", "semantic_labels.json")


@dataclass(frozen=True, kw_only=True)
class ViewFiles:
    """A view: its name, the folder of its area ("area_5a"), and kind ("rgb", "pose", ...) -> path of what is there.

    `absent` are the kinds that the folder has of other views and not of this one.
    """

    name: str
    part: str
    files: Mapping[str, str]
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The views of an area by room, the path of the table of labels if it is there, and room -> poses without image."""

    labels: str | None
    rooms: Mapping[str, list[ViewFiles]] = field(default_factory=dict)
    imageless: Mapping[str, int] = field(default_factory=dict)

    def of(self, room: str) -> tuple[list[ViewFiles], int]:
        """The room's views with a pose, in the order of scan location and frame; and how many have none."""
        views = self.rooms.get(room, [])
        posed = [view for view in views if "pose" in view.files]
        return posed, len(views) - len(posed)


def list_views(store: Store, folder: str, area: int, kinds: Collection[str]) -> Gallery:
    """The views of an area below the 2D-3D-S folder, with those of `kinds` ("pose", "depth", "semantic") they have."""
    base = below(folder)
    rooms: dict[str, list[ViewFiles]] = {}
    imageless: Counter[str] = Counter()
    for part in (name.rstrip("/") for name in store.list(base.rstrip("/")) if name.endswith("/")):
        match = PART.fullmatch(part)
        if match is None or int(match[1]) != area:
            continue
        data = f"{base}{part}/data"
        there = {kind: set(store.sizes(f"{data}/{kind}")) for kind in sorted(kinds)}
        images = store.sizes(f"{data}/rgb")
        poses = (name.replace("_pose.json", "_rgb.png") for name in there.get("pose", ()))
        imageless.update(view[2] for name in poses if name not in images and (view := VIEW.fullmatch(name)))
        for name in sorted(images):
            if view := VIEW.fullmatch(name):
                files = {"rgb": f"{data}/rgb/{name}"}
                for kind, names in there.items():
                    other = name.replace("_rgb.png", f"_{kind}.json" if kind == "pose" else f"_{kind}.png")
                    if other in names:
                        files[kind] = f"{data}/{kind}/{other}"
                absent = tuple(kind for kind, names in there.items() if names and kind not in files)
                rooms.setdefault(view[2], []).append(
                    ViewFiles(name=f"{view[1]}_{view[3]}", part=part, files=files, absent=absent)
                )
    places = [base + name for name in LABELS] if "semantic" in kinds else []
    labels = next((place for place in places if store.size(place) is not None), None)
    return Gallery(labels=labels, rooms=rooms, imageless=imageless)


def below(folder: str) -> str:
    """A folder option as the beginning of a path: "a/b/", or "" for the root itself."""
    trimmed = "/".join(part for part in folder.split("/") if part not in ("", "."))
    return f"{trimmed}/" if trimmed else ""
