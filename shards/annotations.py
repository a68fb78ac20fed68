"""What a dataset says of a scene that belongs to no point and no pixel, as JSON: boxes, layouts, a scene as commands.

Names and forms, where several datasets have the same kind of thing; lengths in metres, in the scene frame:

    "boxes":   [{"label", "instance", "center": [3], "size": [3], "rotation": [[3], [3], [3]]}, ...]
               `instance` as in `Points.instance`; whole lengths; columns of `rotation` are the axes of the box
    "layout":  {"floor": [[3], ...], "ceiling": [[3], ...], "planes": [{"normal": [3], "offset"}, ...]}
               corners of a room's shell; a plane holds p where normal . p + offset = 0
    "scene_language": [{"command", ...}, ...], of Aria Synthetic Environments

It is a field of its own, "annotations": who does not ask for it does not read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.documents import document_bytes, read_document

FIELD = "annotations"
MAX_BYTES = 16 << 20
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def annotation_bytes(annotations: Mapping[str, Any]) -> NDArray[np.uint8]:
    """As UTF-8, uint8 (N,); raises `ValueError` for what would not come back equal, or is too large."""
    if wrong := [name for name in annotations if not isinstance(name, str) or not _NAME.fullmatch(name)]:
        raise ValueError(f"an annotation cannot be called {wrong[0]!r}: lower-case letters, digits and _")
    try:
        data = document_bytes(dict(annotations), indent=None)
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"annotations must be JSON: {problem}") from None
    if read_annotations(data) != dict(annotations):
        raise ValueError("annotations must be JSON: lists, not tuples; names, not numbers, as keys")
    if len(data) > MAX_BYTES:
        raise ValueError(f"annotations have {len(data)} bytes, at most {MAX_BYTES} are kept")
    return np.frombuffer(data, np.uint8)


def read_annotations(data: bytes) -> dict[str, Any]:
    """What `annotation_bytes` wrote; raises `ValueError` for anything else."""
    return read_document(data, "its annotations", error=ValueError)
