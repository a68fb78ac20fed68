"""S3DIS has no server: a text file for each room, as ScanNet has, in the order of the room's annotation files.

    Area_5/office_1.txt     one class a line, 0..12 (ceiling, floor, wall, ... clutter)

What is reported are the scores on all points of Area 5, or of all six areas, each predicted by a training on the other
five. For the latter, hits and unions of the six are added before anything is divided (`--split val` with `val_area: 1`
to 6; the columns of classes.csv): it is not the mean of six mIoUs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.predictions.scannet import numbers_of, text_of
from brickyard.evaluate.predictions.writer import Answer, Writer


class S3DISWriter(Writer):
    """See the module's text."""

    name, taxonomy = "s3dis", "s3dis13"
    datasets, tool = ("s3dis",), "pointcept"
    scene_id = r"Area_\d+/[A-Za-z]+_\d+"

    def file(self, answer: Answer) -> str:
        return f"{answer.identity.scene_id}.txt"

    def encode(self, answer: Answer) -> bytes:
        return text_of(self.inverse.official(answer.classes))

    def decode(self, data: bytes) -> NDArray[np.int64]:
        return self.inverse.classes(numbers_of(data))
