"""Files beside the point files that hold points or meshes, too, in formats that are not read: they are named, not lost.

Compressed files count under the suffix of what is inside, such as `ply.gz`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from brickyard.ingest.source import Notice

CLOUDS = {
    "xyz", "xyzn", "xyzi", "xyzrgb", "pts", "ptx", "ptg", "txt", "csv", "asc", "neu", "e57", "bpf", "zlas", "fls",
    "fws", "lsproj", "zfs", "rxp", "rdbx", "rcs", "rcp", "cl3", "clr", "pod", "splat", "ksplat", "spz", "sog", "drc",
}  # fmt: skip
"""Suffixes of point clouds: text, scanners' own formats, Gaussians, packed."""
MESHES = {"obj", "stl", "off", "glb", "gltf", "fbx", "dae", "3ds", "wrl", "usdz"}
PACKED = {"gz", "bz2", "xz", "zst", "zip", "7z", "rar", "tar", "tgz"}
EXAMPLES = 3
_WORDS = {"txt": "text, perhaps points", "csv": "text, perhaps points"}


def notices(dataset: str, paths: Iterable[str], read: Iterable[str]) -> Iterator[Notice]:
    """One for each suffix of such files, in the order of the suffixes.

    Args:
        paths: of all files below the root.
        read: suffixes that are read, whose compressed files are not.
    """
    readable = set(read)
    found: dict[str, list[str]] = {}
    for path in paths:
        parts = path.rpartition("/")[2].lower().split(".")
        suffix = parts[-1] if len(parts) > 1 else ""
        if suffix in CLOUDS or suffix in MESHES:
            found.setdefault(suffix, []).append(path)
        elif suffix in PACKED and len(parts) > 2 and parts[-2] in readable | CLOUDS | MESHES:
            found.setdefault(f"{parts[-2]}.{suffix}", []).append(path)
    for suffix, named in sorted(found.items()):
        what = _WORDS.get(suffix, "meshes" if suffix in MESHES else "points")
        advice = "unpack them" if "." in suffix else "convert them to LAS, LAZ, PLY or PCD"
        examples = ", ".join(named[:EXAMPLES]) + (", ..." if len(named) > EXAMPLES else "")
        reason = f"{len(named)} .{suffix} files ({what}) are not read: {examples}; {advice} to use them"
        yield Notice(dataset=dataset, scene_id=f"*.{suffix}", reason=reason)
