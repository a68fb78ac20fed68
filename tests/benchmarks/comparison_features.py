"""The table of features: what was tried (`features`, `corruption`), and what only documentation can answer."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.damaged import FORMATS
from tests.benchmarks.report import markdown

COLUMNS = {
    "npy": "npy folders + DataLoader", "webdataset": "WebDataset", "mosaic": "mosaicml-streaming",
    "litdata": "litData", "bricks": "Brickyard",
}  # fmt: skip
IN_CORRUPTION = {
    "npy": "npy folders", "webdataset": "WebDataset", "mosaic": "MDS", "litdata": "litData",
    "bricks": "Brickyard, Parquet",
}  # fmt: skip
TRIED = {
    "any workers": "same batches with 1, 2 and 3 workers (threads)",
    "any ranks": "same global batches on 1, 2 and 4 ranks",
    "exactly once": "each sample once an epoch, equal steps, where ranks do not divide the samples",
    "resume": "resume in the middle of an epoch, 2 workers",
    "resume elsewhere": "resume on another number of ranks, 2 to 1 and to 4",
    "random access": "random access to a sample",
    "data cannot run code": "reading a stranger's data cannot run code, by default",
}
DOCUMENTED: dict[str, tuple[str, str, str, str, str]] = {
    "batches by a budget of points, equal steps on ranks": (
        "no: a sampler of one's own [1]", "no [3]", "no [6]", "no [9]", "yes (a)",
    ),
    "a bad sample is replaced, the others keep their places": (
        "no [1]", "no: dropped, by a handler [4]", "no: an error [7]", "no: an error [9]", "yes (b)",
    ),
    "mixtures by weight": (
        "of samples: WeightedRandomSampler [1]", "RandomMix [3]", "proportion, repeat, choose [7]",
        "CombinedStreamingDataset; resumes on the same ranks and workers [9]", "yes (c)",
    ),
    "only the asked fields are read": (
        "yes: files", "no: a whole tar passes [5]", "no [8]",
        "sample by sample: `read_window`, arrays of equal length; not when iterating [9]", "yes (d)",
    ),
    "from object stores": (
        "no [2]", "whole tars, through a command; a cache on request [5]",
        "whole shards, a cache with a limit on request [8]",
        "whole chunks, a bounded cache; ranges for random access [9]", "ranges, a bounded cache (e)",
    ),
    "the files say their format's version, newer ones are refused": (
        "yes: .npy [2]", "no [5]", "yes [8]", "of two optional layouts; not of plain chunks [9]", "yes (f)",
    ),
}  # fmt: skip
BRING_TORCH, PEERS_TORCH = "mosaicml-streaming and litData", "2.15.0"
"""Peers whose environments have a torch of their own, which records do not name: what pip chose when they were made."""
SOURCES = """\
Rows in italics were tried by `python -m tests.benchmarks.features` and `python -m tests.benchmarks.corruption`; an
answer is what was seen. litData was asked for every sample (`drop_last=False`); its default under DDP makes steps
equal by leaving samples out. The other rows are from the documentation of the versions named below and, where it is
silent, from their source: [1] PyTorch, `torch.utils.data`; [2] NumPy, `numpy.lib.format` and `numpy.load`; [3]
WebDataset, `webdataset.mix` and `FluidInterface`; [4] WebDataset, `webdataset.handlers`; [5] WebDataset,
`webdataset.tariterators`, `gopen` and `cache`; [6] mosaicml-streaming, "Mixing Datasets" and `streaming.base.batching`;
[7] mosaicml-streaming, "Mixing Datasets" and `StreamingDataset`; [8] mosaicml-streaming, "Shard Retrieval" and
`MDSReader`; [9] litData, README, `StreamingDataset`, `streaming.temporal` and `framed_zstd`. Ours are tests:
(a) `test_batching.py`, (b) `test_stream.py`, (c) and every order again `test_stream_properties.py`, (d)
`test_stream.py`, (e) `test_remote.py`, (f) `test_corpus.py`."""


def features(found: dict[str, list[dict[str, Any]]]) -> str:
    """Verification, then what was tried (the newest answers of every loader), then what is documented."""
    answers = {row["loader"]: row for record in found["features"] for row in record["rows"]}
    rows = [_verification(damage(found))]
    for question, text in TRIED.items():
        rows.append({"row": f"*{text}*", **{name: answers[name][question] for name in COLUMNS}})
    rows += [{"row": text, **dict(zip(COLUMNS, cells, strict=True))} for text, cells in DOCUMENTED.items()]
    peers = ", ".join(sorted(found["features"][-1]["settings"]["peers"].values()))
    table = markdown(rows, {"row": "s "} | {name: f"s {title}" for name, title in COLUMNS.items()})
    torch = found["features"][-1]["versions"]["torch"]
    return f"{table}\n\n{SOURCES}\nVersions: {peers};\ntorch {torch}, and {PEERS_TORCH} for {BRING_TORCH}."


def damage(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The newest rows of every format; formats may have been measured one after the other (`--only`)."""
    newest: dict[str, list[dict[str, Any]]] = {}
    for record in found["corruption"]:
        for name in dict.fromkeys(row["format"] for row in record["rows"]):
            newest[name] = [row for row in record["rows"] if row["format"] == name]
    names = [form.name for form in FORMATS]
    return [row for name in sorted(newest, key=names.index) for row in newest[name]]


def _verification(rows: list[dict[str, Any]]) -> dict[str, str]:
    """From the cases that damage stored values: how many gave wrong samples without an error."""
    cells = {}
    for name, title in IN_CORRUPTION.items():
        payload = next((row for row in rows if (row["format"], row["part"]) == (title, "payload")), None)
        if payload is None:
            cells[name] = "-"
            continue
        bad = payload["wrong"] + payload["lost"]
        cells[name] = f"no: {bad} of {payload['cases']} silent" if bad else f"yes: 0 of {payload['cases']} silent"
    return {"row": "*damage to stored values is noticed*", **cells}
