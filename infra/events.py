"""The log of a build: what happened when, kept in the corpus, `log/<when>-<who>/<number>.jsonl`.

One folder a run of `brickyard build`, one JSON object a line: "begin", then a "task" for each shard that was made,
"lost" for a task whose worker was, "alive" now and then, at last "end" or "stopped". An object store cannot append, so
the log is written in pieces: the last one anew every few seconds, until it is long enough. A run that is killed leaves
its log up to there. What it says of times and machines is no part of what the build makes: no digest covers it, and a
corpus without it is whole.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from brickyard.shards.documents import read_document
from brickyard.shards.errors import NONSENSE, BrickyardError, CorpusError
from brickyard.shards.storage import Store

FOLDER = "log"
EVERY_S = 5.0
"""Seconds between two writes, at least; also how often a run says that it is alive, about."""
_PIECE_BYTES = 256 << 10
_MOST_BYTES = 1 << 20
"""Of a piece that is read."""

Event = Mapping[str, Any]
"""{"time": seconds since 1970, "event": name, ...}."""


class EventLog:
    """The log of one run.

    A log that cannot be written is no reason to stop a build: the first trouble is kept in `trouble`, and it is tried
    again.
    """

    def __init__(self, store: Store) -> None:
        who = f"{socket.gethostname()}-{os.getpid()}"
        when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        safe = "".join(letter if letter.isalnum() else "-" for letter in who)
        self._store, self._run = store, f"{FOLDER}/{when}-{safe}-{secrets.token_hex(2)}"
        self._lines: list[bytes] = []
        self._piece, self._bytes, self._written = 0, 0, 0.0
        self.trouble: str | None = None

    def add(self, event: str, *, now: bool = False, **said: Any) -> None:
        """Note an event; it is written soon, or `now`."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **said}, allow_nan=False).encode() + b"\n"
        self._lines.append(line)
        self._bytes += len(line)
        if now or self._bytes >= _PIECE_BYTES or time.monotonic() - self._written >= EVERY_S:
            self._write()

    def alive(self) -> None:
        """Say so, if nothing was written for a while."""
        if time.monotonic() - self._written >= EVERY_S:
            self.add("alive")

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            self._store.write(f"{self._run}/{self._piece:05d}.jsonl", b"".join(self._lines))
        except (OSError, BrickyardError) as problem:
            self.trouble = self.trouble or str(problem)
            return
        if self._bytes >= _PIECE_BYTES:
            self._lines, self._bytes, self._piece = [], 0, self._piece + 1


def read_runs(store: Store) -> list[tuple[str, list[Event]]]:
    """(name, events) of every run of a build in this folder, the oldest first; lines that are none are left out."""
    runs: dict[str, list[Event]] = {}
    for name in sorted(store.walk(FOLDER)):
        run, _, piece = name.removeprefix(FOLDER + "/").partition("/")
        if piece.endswith(".jsonl"):
            runs.setdefault(run, []).extend(_read_piece(store, name))
    return sorted(runs.items())


def _read_piece(store: Store, name: str) -> Iterator[Event]:
    try:
        data = store.read(name, most=_MOST_BYTES)
    except (CorpusError, OSError):
        return
    for line in data.splitlines():
        with suppress(CorpusError, *NONSENSE):
            event = read_document(line, name)
            if isinstance(event, dict) and isinstance(event.get("event"), str) and float(event["time"]) > 0:
                yield event
