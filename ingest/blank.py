"""Lost blocks in raw arrays: files without a checksum whose disk, download or copy left zeros in place of data.

A block that was never written reads as zero bytes: a sector (512 bytes), a page (4 KiB), a part of a download. Formats
such as KITTI's scans, nuScenes's sweeps or .npy have no checksum, and zeros are legal numbers, so that a lost block
looks like points at the sensor's own place. No sensor measures that: a record of zeros alone is at best a ray without
return, and dozens of them in an unbroken run are a lost block or nothing worth keeping. Where zero is an ordinary value
(class 0 of a label, black), a run is no proof: `zero_runs` finds it, and the reader counts it instead of refusing it.

The run may begin at any byte. The records at its two ends lost a part of theirs, so they belong to it. What is shorter
than a sector, or was replaced by anything but zeros, cannot be told this way.

Costs about 0.1 ns a byte of a scan and 0.6 ns a byte of zeros alone: most chunks are settled by their first word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SECTOR = 512
"""Bytes; the least that a disk loses."""

PAGE = 4096
"""Bytes; what file systems lose, and the least run to look at where zero is an ordinary value."""


def blank_records(data: bytes | NDArray[Any], size: int, least_bytes: int | None = None) -> NDArray[np.bool_]:
    """Which of the records of an array stand in a lost block.

    Args:
        data: the records without any header, a whole number of them; an array in the order of its file.
        size: bytes of a record.
        least_bytes: shorter runs of zero bytes are no lost block; if None, a sector or eight records, whichever is
            more.

    Returns:
        bool (N,), True for every record that has a byte in a run of zero bytes of this length.
    """
    flat = _flat(data)
    count = len(flat) // size
    if size < 1 or count * size != len(flat):
        raise ValueError(f"{len(flat)} bytes are no whole number of records of {size} bytes")
    runs = zero_runs(flat, max(SECTOR, 8 * size) if least_bytes is None else least_bytes)
    if not len(runs):
        return np.zeros(count, np.bool_)
    steps = np.zeros(count + 1, np.int64)
    np.add.at(steps, runs[:, 0] // size, 1)
    np.add.at(steps, -(-runs[:, 1] // size), -1)
    inside: NDArray[np.bool_] = np.cumsum(steps[:-1]) > 0
    return inside


def zero_runs(data: bytes | NDArray[Any], least_bytes: int) -> NDArray[np.int64]:
    """The longest runs of zero bytes, those of `least_bytes` (16 or more) and longer.

    Returns:
        int64 (R, 2): first byte of each run and the byte after its last, in rising order.
    """
    if least_bytes < 16:
        raise ValueError(f"runs of {least_bytes} bytes are no lost blocks; 16 is the least")
    flat = _flat(data)
    # A run of `least_bytes` holds one chunk of half that size whole, wherever it begins.
    words = least_bytes // 16
    chunk = 8 * words
    whole = len(flat) // chunk
    blank = _blank_chunks(flat[: whole * chunk].view(np.uint64).reshape(whole, words))
    if not blank.any():
        return np.empty((0, 2), np.int64)
    edges = np.diff(np.concatenate(([0], blank.astype(np.int8), [0])))
    first, after = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    # It ends inside of the chunks before and after; beyond the file, or at its rest, stands a chunk to stop at.
    before = np.full((len(first), chunk), 1, np.uint8)
    before[first > 0] = flat[: whole * chunk].reshape(whole, chunk)[first[first > 0] - 1]
    behind = np.full((len(first), chunk + 1), 1, np.uint8)
    behind[after < whole, :chunk] = flat[: whole * chunk].reshape(whole, chunk)[after[after < whole]]
    behind[after == whole, : len(flat) - whole * chunk] = flat[whole * chunk :]
    starts = first * chunk - np.argmax(before[:, ::-1] != 0, axis=1)
    ends = after * chunk + np.argmax(behind != 0, axis=1)
    runs: NDArray[np.int64] = np.stack([starts, ends], axis=1).astype(np.int64)[ends - starts >= least_bytes]
    return runs


def _flat(data: bytes | NDArray[Any]) -> NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _blank_chunks(chunks: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows are zero in every word; of most, one word shows that they are not."""
    blank = np.zeros(len(chunks), np.bool_)
    suspects = np.flatnonzero(chunks[:, 0] == 0)
    suspects = suspects[(chunks[suspects, -1] == 0) & (chunks[suspects, chunks.shape[1] // 2] == 0)]
    blank[suspects] = ~chunks[suspects].any(axis=1)
    return blank
