"""What files, buildings and chunks are called, and who belongs to which split.

    [anything/]<index>-<id>/<id>.glb  <id>.basis.glb  <id>.semantic.glb  <id>.semantic.txt

Buildings 0 to 799 are for training, the next hundred for validation, the last for testing. The archives unpack to
folders of their own, one for meshes and one for annotations: what they have of a building is put together by its name.
Chunks are called chunk###_group###_sub###, perhaps with more behind; a piece is what shares group and sub.
"""

from __future__ import annotations

import re

BUILDING = re.compile(r"([0-9]{5})-([A-Za-z0-9_-]{11})")
CHUNK = re.compile(r"chunk([0-9]{1,6})_group([0-9]{1,6})_sub([0-9]{1,6})(?:[^0-9].*)?", re.DOTALL)
SPLITS = (("train", range(800)), ("val", range(800, 900)), ("test", range(900, 1000)))


def roles(name: str) -> dict[str, str]:
    """File name -> role, of the building of this id."""
    return {
        f"{name}.glb": "mesh", f"{name}.basis.glb": "basis", f"{name}.semantic.glb": "semantic",
        f"{name}_semantic.glb": "semantic", f"{name}.semantic.txt": "names", f"{name}_semantic.txt": "names",
    }  # fmt: skip


def split_of(building: str) -> str:
    """The split of a building's number."""
    number = int(building[:5])
    return next((split for split, numbers in SPLITS if number in numbers), "none")


def piece_of(chunk: str) -> str | None:
    """ "000_003" for chunk012_group000_sub003; None for what is called otherwise."""
    match = CHUNK.fullmatch(chunk)
    return None if match is None else f"{match[2]}_{match[3]}"


def chunk_number(chunk: str) -> int | None:
    match = CHUNK.fullmatch(chunk)
    return None if match is None else int(match[1])
