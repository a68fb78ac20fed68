"""What the files of Structured3D are called, in zips and in folders that were unpacked from them alike.

    [.../]scene_SSSSS/annotation_3d.json
    [.../]scene_SSSSS/2D_rendering/<room>/panorama/{camera_xyz,layout}.txt
    [.../]scene_SSSSS/2D_rendering/<room>/panorama/{empty,simple,full}/<image>.png
    [.../]scene_SSSSS/2D_rendering/<room>/perspective/{empty,full}/<position>/{camera_pose.txt,<image>.png}

A file has a role in its room, such as "panorama/depth" or "perspective/3/camera"; the annotation is shared by a house.
"""

from __future__ import annotations

import re

PLACE = re.compile(r"(?:.*?/)?scene_([0-9]{5})/(?:2D_rendering/([0-9]{1,9})/(.+)|annotation_3d\.json)", re.DOTALL)
"""House, room and the rest of a file's name."""
VIEW = re.compile(r"perspective/(empty|full)/([0-9]{1,6})/([^/]+)")
IMAGES = ("depth", "semantic", "instance")
KINDS = (
    "annotation", "panorama/camera", "panorama/layout", "panorama/color", "panorama/depth", "panorama/semantic",
    "panorama/instance", "perspective/camera", "perspective/color", "perspective/depth", "perspective/semantic",
    "perspective/instance",
)  # fmt: skip
NEEDED = ("camera", "color", "depth")
"""Without these a picture gives no points; labels may be missing."""


class Wanted:
    """Which files of a room are read, under a configuration of furniture and light.

    Args:
        configuration: "full", "simple" or "empty".
        light: "raw", "cold" or "warm".
    """

    def __init__(self, configuration: str, light: str) -> None:
        self._configuration = configuration
        self._panorama = {"camera_xyz.txt": "camera", "layout.txt": "layout"}
        self._panorama |= {f"{configuration}/rgb_{light}light.png": "color"}
        self._panorama |= {f"{configuration}/{name}.png": name for name in IMAGES}
        self._perspective = {"camera_pose.txt": "camera", f"rgb_{light}light.png": "color"}
        self._perspective |= {f"{name}.png": name for name in IMAGES}
        self._known: dict[str, tuple[int, int] | None] = {}

    def kind(self, rest: str) -> tuple[int, int] | None:
        """(place in `KINDS`, position) of a file by what follows its room's folder; None if it is not read."""
        if rest not in self._known:  # the rooms have the same few dozen names
            self._known[rest] = self._look_up(rest)
        return self._known[rest]

    def _look_up(self, rest: str) -> tuple[int, int] | None:
        view = VIEW.fullmatch(rest)
        if view and view[1] == self._configuration and view[3] in self._perspective and view[2] == str(int(view[2])):
            return KINDS.index(f"perspective/{self._perspective[view[3]]}"), int(view[2])
        name = self._panorama.get(rest.removeprefix("panorama/")) if rest.startswith("panorama/") else None
        return None if name is None else (KINDS.index(f"panorama/{name}"), 0)

    def name(self, house: str, room: str, role: str) -> str:
        """The end of the name of the file that has this role, from `scene_SSSSS/` on."""
        if role == "annotation":
            return f"{house}/annotation_3d.json"
        kind, *position, what = role.split("/")
        names = self._panorama if kind == "panorama" else self._perspective
        (name,) = (name for name, known in names.items() if known == what)
        middle = f"{kind}/{self._configuration}/{position[0]}" if position else kind
        return f"{house}/2D_rendering/{room}/{middle}/{name}"


def role(kind: int, position: int) -> str:
    """The role in its room of a file of a kind."""
    name = KINDS[kind]
    return name.replace("/", f"/{position}/") if name.startswith("perspective/") else name
