"""ScanNet and ScanNet200: a text file for each scan, in the root of the zip, with a line for each vertex of its mesh.

    scene0707_00.txt     one id a line, of nyu40 (20 classes) or of the raw categories (200 classes)

The vertices are those of <scan>_vh_clean_2.ply, in its order, in test scans as in others. The server takes one
submission and then none for two weeks; its own script runs on Python 2 and prints the classes without their mean.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.predictions.writer import Answer, Writer


def text_of(ids: NDArray[Any]) -> bytes:
    """Integers (N,) as decimal numbers, one a line."""
    return "".join(f"{number}\n" for number in ids.tolist()).encode("ascii")


def numbers_of(text: bytes) -> NDArray[np.int64]:
    """The integers (N,) of a text with one a line."""
    return np.array(text.split(), np.int64)


class ScanNetWriter(Writer):
    """See the module's text."""

    name, taxonomy = "scannet", "scannet20"
    datasets, tool = ("scannet",), "scannet"
    official = MappingProxyType({"train": 1201, "val": 312, "test": 100})
    scene_id = r"scene\d{4}_\d{2}"

    def file(self, answer: Answer) -> str:
        return f"{answer.identity.scene_id}.txt"

    def encode(self, answer: Answer) -> bytes:
        return text_of(self.inverse.official(answer.classes))

    def decode(self, data: bytes) -> NDArray[np.int64]:
        return self.inverse.classes(numbers_of(data))


class ScanNet200Writer(ScanNetWriter):
    """The same with the ids of 200 raw categories; the repository of ScanNet has no script for it."""

    name, taxonomy = "scannet200", "scannet200"
