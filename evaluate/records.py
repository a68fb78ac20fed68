"""What an evaluation leaves in a run's folder, read and written: results of protocols, pictures of features.

    results.jsonl    one line for every protocol that was run: what it measured, when, of which weights, on which corpus
    tables/          confusion matrices and classes of the newest, in folders by protocol, fingerprint and corpus

Lines are appended, and none is ever changed: evaluating another protocol, another corpus or the same once more loses
nothing. Readers show the newest line for each protocol, fingerprint and corpus, and only lines of the same weights as
the newest of all: what was measured before the run's network was trained on stays in the file and is not shown. A line
is on the disk when `append_result` returns; a last one without its newline was cut off by a crash, is none, and is
dropped by the next writer.

Older versions wrote results.json (all protocols of the last evaluation) and probe.json (the linear probe alone). They
are read as lines that stand before all others; nobody writes them any more.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from brickyard.shards.atomic import flush
from brickyard.shards.documents import Every, Maybe, check_document, document_bytes, read_document, read_file
from brickyard.shards.errors import BrickyardError

RESULTS = "results.jsonl"
OLD_RESULTS, OLD_PROBE = "results.json", "probe.json"
LINEAR_PROBE = "linear_probe"
"""Name of the protocol whose scores stand for a run where there is room for one number."""

TRAININGS = "evaluate"
"""In a run's folder: what protocols trained, each a run's folder of its own (see `evaluate.supervised`)."""
TABLES = "tables"
"""In a run's folder: what protocols that predict classes counted, as CSV (see `evaluate.class_tables`)."""

FEATURES = "features"
FEATURES_MANIFEST = "features.json"
"""In the folder of the pictures; written last."""

_NUMBER = (float, None)
_COLUMN = {"metric": str, "title": str, "percent": bool, "digits": (int, None), "less_is_better": bool}
_ENTRY = {
    "protocol": str,
    "fingerprint": str,
    "columns": Maybe([_COLUMN]),
    "results": Every(Every((float, None, Every(_NUMBER)))),
    "published": Every((float, None, str)),
}
_LINE = {"run": str, "seed": (int, None), "corpus": str, "when": str, "weights": str, **_ENTRY}
_OLD = {"run": Maybe(str), "seed": Maybe(int), "corpus": Maybe(str)}
_SCORES = {"miou": _NUMBER, "iou": Every(_NUMBER)}
_PICTURED = {"scene": str, "pictures": [{"file": str, "caption": str}]}


def append_result(run: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the results of a run; others may do so at the same time.

    Raises:
        OSError: it could not be written; the file is as it was.
        ValueError: readers would refuse it.
    """
    line = document_bytes(entry, indent=None) + b"\n"
    run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run / RESULTS, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(descriptor)
        except BaseException:
            file.truncate(whole)
            raise
    flush(run)


def read_results(run: Path) -> list[dict[str, Any]]:
    """What is known of a run's weights: entries as `Evaluation.run` makes them, in the order in which they were
    measured, the newest for each protocol, fingerprint and corpus.

    Raises:
        BrickyardError: naming the file or line that is damaged.
    """
    lines = _lines(run / RESULTS)
    entries = _old_entries(run, {entry["protocol"] for entry in lines}) + lines
    weights = entries[-1].get("weights") if entries else None
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries:
        if entry.get("weights", weights) == weights:
            key = (entry["protocol"], entry["fingerprint"], entry.get("corpus"))
            newest.pop(key, None)
            newest[key] = entry
    return list(newest.values())


def probe_of(entries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest linear probe among a run's entries, None where there is none."""
    return next((entry for entry in reversed(entries) if entry["protocol"] == LINEAR_PROBE), None)


def read_pictured(folder: Path) -> dict[str, Any] | None:
    """The features.json of a folder of pictures, None where there is none; raises `BrickyardError` if it is damaged."""
    path = folder / FEATURES_MANIFEST
    shape = {"scenes": [{"title": str, **_PICTURED}], "query": ({"scenes": [_PICTURED]}, None)}
    hint = "`brickyard features` writes it again"
    return read_file(path, shape, error=BrickyardError, hint=hint) if path.exists() else None


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    hint = "delete the line to go on without it; `brickyard evaluate` measures it again"
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        place = f"{path} line {number}"
        found.append(read_document(line, place, _LINE, error=BrickyardError, hint=hint))
        _check_probe(found[-1], place, hint)
    return found


def _check_probe(entry: Mapping[str, Any], place: str, hint: str) -> None:
    """Scores of the linear probe are drawn by class, so they must be there."""
    if entry["protocol"] == LINEAR_PROBE:
        check_document(entry["results"], place, {"pretrained": _SCORES}, error=BrickyardError, hint=hint)
        check_document(entry["results"], place, Every(_SCORES), error=BrickyardError, hint=hint)


def _old_entries(run: Path, measured: Set[str]) -> list[dict[str, Any]]:
    """Of the files that older versions wrote; a probe.json counts where no linear probe is among the protocols that
    were measured since."""
    found: list[dict[str, Any]] = []
    hint = f"delete it; `brickyard evaluate` measures it again, into {RESULTS}"
    if (path := run / OLD_RESULTS).exists():
        old = read_file(path, {"protocols": [_ENTRY], **_OLD}, error=BrickyardError, hint=hint)
        common = {name: old.get(name) for name in _OLD}
        for entry in old["protocols"]:
            _check_probe(entry, str(path), hint)
            found.append(common | entry)
    if (path := run / OLD_PROBE).exists():
        shape = {"run": str, "seed": int, "pretrained": _SCORES, "random": _SCORES}
        old = read_file(path, shape, error=BrickyardError, hint=hint)
        if LINEAR_PROBE not in measured | {entry["protocol"] for entry in found}:
            whose = {"protocol": LINEAR_PROBE, "run": old["run"], "seed": old["seed"], "corpus": None}
            results = {init: old[init] for init in ("random", "pretrained")}
            found.append({**whose, "fingerprint": "-", "results": results, "published": {"source": ""}})
    return found
