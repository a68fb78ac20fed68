"""SemanticKITTI: a .label file for each scan, a uint32 for each of its records.

    sequences/11/predictions/000000.label     little endian, raw ids (car is 10); the upper 16 bits stay 0

The server maps raw ids itself, so the 19 numbers of a training would be taken without a word, as other classes. It
compares the number of files with that of all scans of sequences 11 to 21, and its validator only with those that lie on
the local disk.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.predictions.writer import Answer, Writer


class SemanticKittiWriter(Writer):
    """See the module's text."""

    name, taxonomy = "semantickitti", "semantickitti19"
    datasets, tool = ("kitti_odometry",), "semantickitti"
    official = MappingProxyType({"train": 19_130, "val": 4_071, "test": 20_351})
    scene_id = r"\d{2}/\d{6}"

    def file(self, answer: Answer) -> str:
        sequence, frame = answer.identity.scene_id.split("/")
        return f"sequences/{sequence}/predictions/{frame}.label"

    def encode(self, answer: Answer) -> bytes:
        return self.inverse.official(answer.classes).astype("<u4").tobytes()

    def decode(self, data: bytes) -> NDArray[np.int64]:
        return self.inverse.classes(np.frombuffer(data, "<u4") & 0xFFFF)
