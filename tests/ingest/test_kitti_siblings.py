"""A folder that a whole sequence lacks is told where its siblings have one."""

from __future__ import annotations

from collections.abc import Iterator

from brickyard.ingest.kitti.siblings import tell_lacks
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.storage import Store

FILES = {"a": ("points", "labels"), "b": ("points",), "c": ("points", "labels"), "d": ("points",)}
SPLITS = {"a": "train", "b": "train", "c": "train", "d": "test"}


@tell_lacks
def plan(store: Store, options: object) -> Iterator[SceneRef | Missing]:
    for sequence, roles in FILES.items():
        for number in range(3):
            files = {role: role for role in roles if not (sequence == "c" and number == 1 and role == "labels")}
            yield SceneRef(dataset="x", scene_id=f"{sequence}/{number}", split=SPLITS[sequence], sequence=sequence,
                           root=store.uri, files=files)  # fmt: skip


def test_lacks_are_told_after_the_scenes() -> None:
    items = list(plan(Store("."), None))
    assert len([item for item in items if isinstance(item, SceneRef)]) == 12
    (told,) = [item for item in items if isinstance(item, Notice)]
    assert items[-1] == told and told.scene_id == "b"
    assert told.reason == "none of its 3 scenes has labels, which other sequences of its split have"
