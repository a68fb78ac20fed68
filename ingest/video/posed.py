"""Image folders whose poses a `transforms.json` gives, or one for each split: `transforms_train.json`, `_val`, `_test`.

Pictures of such a file are never read without their poses: where it is refused, or leaves frames out (a fisheye
camera), the cause is told instead of taking them for pictures of which nothing is known. A file for the whole folder is
used before those of its splits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.transforms import MAX_JSON_BYTES, NAME, Transforms, read_transforms
from brickyard.ingest.video.kinds import Sizes, images_of
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_TABLE = re.compile(r"transforms(?:_(train|valid|validation|val|test))?\.json")
_FILE_PATH = re.compile(rb'"file_path"\s*:\s*"([^"]{1,1000})"')
UNLISTED = "images that transforms.json does not list"


@dataclass(frozen=True, kw_only=True)
class Posed:
    """A file of poses.

    Attributes:
        path, folder: of the file, relative to the root.
        name: of its clips: "images", or "images-<split>".
        split: that its name says; "none" if it says none.
        frames: role -> path, of every frame that can be read.
        dropped: what was left out and how often.
        problem: why none of it can be read.
        second: it is the file of a split, and that of the whole folder is used.
    """

    path: str
    folder: str
    name: str
    split: str
    frames: tuple[Mapping[str, str], ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None
    second: bool = False


def is_table(name: str) -> bool:
    """Whether a file of this name gives poses."""
    return _TABLE.fullmatch(name) is not None


def find_posed(store: Store, below: Sizes) -> tuple[list[Posed], set[str]]:
    """All files of poses, in the order of their paths, and the folders in which their images and depth lie."""
    tables: list[Posed] = []
    taken: set[str] = set()
    for folder in sorted(below):
        names = sorted(
            (name for name in below[folder] if _TABLE.fullmatch(name)), key=lambda name: (name != NAME, name)
        )
        found: list[Posed] = []
        listed: set[str] = set()
        places: set[str] = set()
        for name in names:
            match = _TABLE.fullmatch(name)
            split = match[1] if match and match[1] else None
            table = Posed(
                path=f"{folder}/{name}" if folder else name, folder=folder,
                name=f"images-{split}" if split else "images", split=SPLITS.get(split or "", "none"),
            )  # fmt: skip
            if split and NAME in names:
                found.append(replace(table, second=True))
                continue
            table, images, others = _read(store, table, below)
            found.append(table)
            listed |= images | others
            places |= {path.rpartition("/")[0] for path in images}
            taken |= {path.rpartition("/")[0] for path in images | others}
        if any(table.frames for table in found):
            found = _with_unlisted(found, below, listed, places)
        tables += found
    return tables, taken


def _read(store: Store, table: Posed, below: Sizes) -> tuple[Posed, set[str], set[str]]:
    """(the table with its frames, paths of its images, paths of what else lies in folders of its own)."""
    probe = SceneRef(
        dataset="video", scene_id=table.path, split="none", sequence=table.folder, root=store.uri,
        files={"transforms": table.path},
    )  # fmt: skip
    files = RawFiles(probe)
    try:
        content: Transforms = read_transforms(files, table.path)
    except RawDataError as problem:
        hint = "its images are not read without their poses"
        return replace(table, problem=f"{problem}; {hint}"), _named_images(store, table, below), set()
    frames: dict[str, dict[str, str]] = {}
    dropped = dict(content.dropped)
    for image in content.images:
        if size_of(below, image.image) is None:
            dropped["images that are missing"] = dropped.get("images that are missing", 0) + 1
            continue
        frames[image.image] = {"image": image.image}
        if image.depth is not None and size_of(below, image.depth) is not None:
            frames[image.image]["depth"] = image.depth
    images = {image.image for image in content.images} | set(content.unused)
    depth = {image.depth for image in content.images if image.depth is not None}
    return replace(table, frames=tuple(frames.values()), dropped=dropped), images, depth


def _named_images(store: Store, table: Posed, below: Sizes) -> set[str]:
    """The images that a broken file names, by a search of its text; if that finds none, all below its folder."""
    if (size_of(below, table.path) or 0) <= MAX_JSON_BYTES:
        try:
            data = store.read(table.path)
        except OSError:
            data = b""
        names = {re.sub(r"\\+", "/", name.decode("utf-8", "replace")) for name in _FILE_PATH.findall(data)}
        found = {_join(table.folder, name.removeprefix("./")) for name in names}
        known = {path for path in found if path.rpartition("/")[0] in below}
        if known:
            return known
    return {
        _join(folder, name)
        for folder in below
        if not table.folder or f"{folder}/".startswith(f"{table.folder}/")
        for name in images_of(below[folder])
    }


def _with_unlisted(tables: list[Posed], below: Sizes, listed: set[str], places: set[str]) -> list[Posed]:
    """Images beside those of the tables of a folder that none of them lists, counted for the first that has frames."""
    beside = {_join(folder, name) for folder in places for name in images_of(below.get(folder, ()))}
    if not (count := len(beside - listed)):
        return tables
    first = next(number for number, table in enumerate(tables) if table.frames)
    counted = replace(tables[first], dropped={**tables[first].dropped, UNLISTED: count})
    return [*tables[:first], counted, *tables[first + 1 :]]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def size_of(below: Sizes, path: str) -> int | None:
    """Bytes of a file that was listed."""
    folder, _, name = path.rpartition("/")
    return below.get(folder, {}).get(name)
