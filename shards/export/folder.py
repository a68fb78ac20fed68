"""What every export shares: a folder that no other export continues, safe names, the licences' text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from brickyard.shards.atomic import TEMPORARY
from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import MAX_BYTES, document_bytes, read_document
from brickyard.shards.errors import CorpusError
from brickyard.shards.storage import Store

RECORD = "export.json"
LICENCES = "LICENCES.txt"
Progress = Callable[[int, int], None]

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|copying|notice)[^/]*")
_LONGEST = 120


def begin(corpus: Corpus, out: Store, layout: str, **settings: int) -> None:
    """Begin or continue an export, licences first. Raises `CorpusError` if `out` holds anything else, be it the
    export of another corpus or with other settings."""
    record = _record(corpus, layout, settings)
    if not out.exists(RECORD):
        if any(not name.startswith(TEMPORARY) for name in out.list()):
            raise CorpusError(f"{out.uri} is not empty and was not begun by an export: choose another folder")
        out.write(RECORD, _text(record))
    hint = "remove the folder and export again"
    found = read_document(out.read(RECORD, most=MAX_BYTES), f"{out.uri}/{RECORD}", hint=hint)
    before = {name: found.get(name) for name in record}
    if before != record:
        raise CorpusError(f"{out.uri} holds another export ({before}, this one is {record}): choose another folder")
    _write_licences(corpus, out)


def finish(corpus: Corpus, out: Store, layout: str, summary: dict[str, int], **settings: int) -> dict[str, int]:
    """Write down that the export is complete, and what is in it; returns `summary`."""
    record = _record(corpus, layout, settings) | {"finished": True} | summary
    out.write(RECORD, _text(record))
    return summary


def _text(record: Mapping[str, Any]) -> bytes:
    return document_bytes(record, indent=1).strip()


def _record(corpus: Corpus, layout: str, settings: Mapping[str, int]) -> dict[str, Any]:
    return {"layout": layout, "exported_from": corpus.manifest["digest"]} | dict(settings)


def remove_temporaries(out: Store, folder: str) -> None:
    """Delete what killed writers left in a folder."""
    for name in out.list(folder):
        if name.startswith(TEMPORARY) and not name.endswith("/"):
            out.delete_abandoned(f"{folder}/{name}" if folder else name)


def safe_name(text: str) -> str:
    """Letters, digits, _ and - in place of anything else; at most 120 of them, never empty."""
    return _UNSAFE.sub("-", text).strip("-")[:_LONGEST] or "scene"


def unique_names(texts: Sequence[str]) -> list[str]:
    """A safe name for each, all different also where capitals do not count: the later of two equal ones gets a
    number. The same texts give the same names."""
    taken: set[str] = set()
    names = []
    for text in texts:
        name, number = safe_name(text), 1
        while name.lower() in taken:
            number += 1
            name = f"{safe_name(text)}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def _write_licences(corpus: Corpus, out: Store) -> None:
    """LICENCES.txt, and the licence files that lie beside the corpus, as they are."""
    lines = ["The licences of the data in this folder, as they were recorded when the corpus was built.", ""]
    for licence, datasets in sorted(corpus.manifest.get("licences", {}).items()):
        if licence.startswith("LicenseRef-") or licence == "NOASSERTION":
            terms = "the dataset's own terms, to be had from its publisher; they go on to hold for this copy"
        else:
            terms = f"https://spdx.org/licenses/{licence}.html"
        lines += [f"{licence}: {', '.join(datasets)}", f"    {terms}"]
    for name in corpus.store.list():
        if _LICENCE_FILE.fullmatch(name) and not name.endswith("/"):
            out.write(name if name != LICENCES else f"corpus-{name}", corpus.store.read(name))
            lines.append(f"See also {name}.")
    out.write(LICENCES, "\n".join([*lines, ""]).encode())
