"""nuScenes lidarseg: a byte for each point of each keyframe's sweep, and a description.

    lidarseg/val/<token of the sweep>_lidarseg.bin     1..16; 0 is refused, also where nobody knows the truth
    val/submission.json                                which inputs were used

The token is that of LIDAR_TOP in sample_data.json, and the set is "train", "val", "test" or, of v1.0-mini, "mini_val":
what the devkit calls `eval_set`. Points of earlier sweeps have no answer. The server takes three submissions a year.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.predictions.writer import Answer, Writer
from brickyard.shards.errors import BrickyardError

_USES = ("camera", "lidar", "radar", "map", "external")


class NuScenesWriter(Writer):
    """See the module's text. What was used is lidar alone, unless `about` says more."""

    name, taxonomy = "nuscenes", "nuscenes16"
    datasets, tool = ("nuscenes",), "nuscenes"
    official = MappingProxyType({"train": 28_130, "val": 6_019, "test": 6_008, "mini_train": 323, "mini_val": 81})
    scene_id = r"[A-Za-z0-9-]+/[A-Za-z0-9_-]+"
    fields = MappingProxyType({f"use_{what}": bool for what in _USES})

    def check(self, answer: Answer) -> None:
        super().check(answer)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", answer.token):
            raise BrickyardError(
                f"{answer.identity.key}: no token of its sweep in sample_data.json, found {answer.token!r}"
            )

    def file(self, answer: Answer) -> str:
        return f"lidarseg/{self.folder}/{answer.token}_lidarseg.bin"

    def encode(self, answer: Answer) -> bytes:
        return self.inverse.official(answer.classes).astype(np.uint8).tobytes()

    def decode(self, data: bytes) -> NDArray[np.int64]:
        return self.inverse.classes(np.frombuffer(data, np.uint8))

    def more(self) -> Mapping[str, bytes]:
        uses = {f"use_{what}": bool(self.about.get(f"use_{what}", what == "lidar")) for what in _USES}
        return {f"{self.folder}/submission.json": json.dumps({"meta": uses}, indent=1).encode() + b"\n"}
