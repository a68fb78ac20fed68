"""The folder of a submission: answers one by one, then what is handed in, read again before anyone else does.

    DIR/files/               what the official tool is pointed at
    DIR/submission.zip       the same for the server (Waymo: predictions.bin or submission.bin)
    DIR/confusion.csv, classes.csv     where the split's labels are known
    DIR/predictions.json     what it is and how it scored; written last

What is read again must be the classes that were predicted, of every scene. Where labels are known, the counts of the
official tool's convention are made anew from what was read, and must be those of the predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.class_tables import write_tables
from brickyard.evaluate.conventions import tool_counts, tool_iou, tool_miou
from brickyard.evaluate.metrics import accuracy, mean_accuracy, mean_iou
from brickyard.evaluate.predictions.writer import Answer, Writer
from brickyard.shards.atomic import write_whole
from brickyard.shards.documents import write_document
from brickyard.shards.errors import BrickyardError
from brickyard.shards.storage import digest64
from brickyard.shards.taxonomy import taxonomy

FILES, RECORD = "files", "predictions.json"

Truth = Callable[[str], "NDArray[Any] | None"]
"""Key of a scene -> classes (N,) of its raw points, UNLABELLED where unknown; None where nobody knows."""


class Submission:
    """See the module's text.

    Args:
        out: a folder that is empty or not there. writer: of the target. split: whose scenes are answered.
        truth: of the scenes.

    Raises:
        BrickyardError: the folder holds something.
    """

    def __init__(self, out: Path, writer: Writer, split: str, truth: Truth) -> None:
        if out.exists() and any(out.iterdir()):
            raise BrickyardError(f"{out} is not empty: choose another folder for the predictions")
        self._out, self._writer, self._split, self._truth = out, writer, split, truth
        self._written: dict[str, tuple[str, int]] = {}
        self._names = taxonomy(writer.taxonomy).classes
        self._confusion = np.zeros((len(self._names), len(self._names) + 1), np.int64)
        self._points = 0

    def add(self, answer: Answer) -> None:
        """Write the file of a scene. Raises `BrickyardError` where the answer does not fit the raw file."""
        self._writer.check(answer)
        name, key = self._writer.file(answer), answer.identity.key
        if name in self._written:
            raise BrickyardError(f"{key} and {self._written[name][0]} have the same file, {name}")
        write_whole(self._out / FILES / name, self._writer.encode(answer))
        self._written[name] = (key, _digest(answer.classes))
        self._points += len(answer.classes)
        self._confusion += self._counts(key, answer.classes)

    def finish(self) -> dict[str, Any]:
        """Make what is handed in, read it again, and say how it scored (JSON).

        Raises:
            BrickyardError: no scene was answered, or what was read is not what was written.
        """
        if not self._written:
            raise BrickyardError(f"no scene was answered, so there is nothing for {self._writer.name} in {self._out}")
        more = self._writer.more()
        for name, data in more.items():
            write_whole(self._out / FILES / name, data)
        packed = self._out / self._writer.packed
        files = sorted(self._written)
        self._writer.pack(self._out / FILES, sorted([*files, *more]), packed)
        counts = self._read_again(packed, files)
        official = self._writer.official.get(self._writer.folder)
        result = {
            "target": self._writer.name,
            "split": self._split,
            "files": len(files),
            "points": self._points,
            "official_files": official,
            "packed": packed.name,
            "scores": self._scores(counts) if counts.any() else None,
        }
        if counts.any():
            write_tables(self._out, self._names, counts[:, :-1])
        write_document(self._out / RECORD, result, indent=1)
        return result

    def _counts(self, key: str, classes: NDArray[Any]) -> NDArray[np.int64]:
        truth = self._truth(key)
        if truth is None:
            return np.zeros_like(self._confusion)
        return tool_counts(self._writer.tool, truth, classes, len(self._names))

    def _read_again(self, packed: Path, files: list[str]) -> NDArray[np.int64]:
        counts = np.zeros_like(self._confusion)
        for name, data in zip(files, self._writer.unpack(packed, files), strict=True):
            key, digest = self._written[name]
            classes = self._writer.decode(data)
            if _digest(classes) != digest:
                raise BrickyardError(f"{packed}: {name} does not hold what was predicted for {key}; is the disk sound?")
            counts += self._counts(key, classes)
        if not np.array_equal(counts, self._confusion):
            raise BrickyardError(
                f"{packed} scores otherwise than the predictions that were written; is the disk sound?"
            )
        return counts

    def _scores(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        tool, known = self._writer.tool, counts[:, :-1]
        iou = [None if np.isnan(value) else float(value) for value in tool_iou(tool, counts)]
        return {
            "miou": mean_iou(known),
            "mean_accuracy": mean_accuracy(known),
            "accuracy": accuracy(known),
            "tool": tool,
            "tool_miou": tool_miou(tool, counts),
            "tool_iou": dict(zip(self._names, iou, strict=True)),
        }


def _digest(classes: NDArray[Any]) -> int:
    return digest64(np.ascontiguousarray(classes, np.int16))
