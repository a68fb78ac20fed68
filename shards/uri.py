"""Addresses of stores, without their secrets.

A URI may carry credentials (`s3://key:secret@bucket/...`, `?access_key=...&secret_key=...`). A `Location` is the URI as
everybody may see it: as text, in JSON, in errors and logs the credentials are `***`; only opening it, and pickling it
for another process of the same job, uses them. Credentials from the environment or a role need no such care.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

HIDDEN = "***"
_SECRET = re.compile(r"key|secret|token|passw|signature|credential|sas", re.IGNORECASE)
_known: dict[str, None] = {}
"""Every URI with credentials that this process has met; `scrub` removes them from whatever is printed."""

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+([^\s\"'<>]+)")
_LEAST_BARE = 8
"""A shorter secret is only removed where it stands in its URI: "test" is part of many honest words."""


class Location(str):
    """A URI whose text hides its credentials; `whole` is the URI to open. Pickling keeps them, text and JSON do not."""

    whole: str

    def __new__(cls, uri: str) -> Location:
        whole = uri.whole if isinstance(uri, Location) else uri
        self = super().__new__(cls, redact(whole))
        self.whole = whole
        if self != whole:
            _known[whole] = None
        return self

    def __str__(self) -> str:
        return self  # so that `Store(str(uri))` opens it, too

    def __reduce__(self) -> tuple[type[Location], tuple[str]]:
        return Location, (self.whole,)


def redact(uri: str) -> str:
    """The URI with user, password and every secret-looking value of the query replaced by `***`."""
    scheme, _, rest = uri.partition("://")
    place, mark, query = rest.partition("?")
    host = place.partition("/")[0]
    # A password with an unescaped slash in it makes the host end early; its "host" has a colon without a port.
    broken = "@" not in host and "@" in place and ":" in host and not host.rpartition(":")[2].isdigit()
    if "@" in host or broken:
        place = f"{HIDDEN}@{(place if broken else host).rpartition('@')[2]}" + ("" if broken else place[len(host) :])
    pairs = (pair.partition("=") for pair in query.split("&"))
    shown = "&".join(f"{n}={HIDDEN}" if eq and _SECRET.search(n) else f"{n}{eq}{v}" for n, eq, v in pairs)
    return f"{scheme}://{place}{mark}{shown}"


def hide(text: str, uri: str, least: int = 4) -> str:
    """A message with the URI and each of its secrets (of `least` characters or more) replaced, however they are
    escaped."""
    text = text.replace(uri, redact(uri))
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    login = place.rpartition("@")[0]
    pairs = (pair.partition("=") for pair in query.split("&"))
    raw = {login, *login.split(":", 1), *(value for name, _, value in pairs if _SECRET.search(name))}
    if scheme.startswith("abfs") and ":" not in login:
        raw.discard(login)  # Azure's container, no secret
    forms = {form for value in raw for form in (value, unquote(value), unquote_plus(value), quote(value, safe=""))}
    forms |= {json.dumps(form)[1:-1] for form in forms} | {repr(form)[1:-1] for form in forms}
    for secret in sorted((form for form in forms - {HIDDEN} if len(form) >= least), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def remember(text: str) -> None:
    """Take note of the credentials of every URI in a text that a user wrote (a command line, a recipe), so that `scrub`
    knows them even where the text is wrong and no store is ever opened."""
    for scheme, rest in _URI.findall(text):
        Location(f"{scheme}://{rest}")


def scrub(text: str) -> str:
    """A text without the credentials of any URI that this process has met."""
    for uri in list(_known):
        text = hide(text, uri, _LEAST_BARE)
    return text


def redacted(value: Any) -> Any:
    """JSON-able values with every URI in them as everybody may see it."""
    if isinstance(value, Mapping):
        return {name: redacted(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(entry) for entry in value]
    return str(Location(value)) if isinstance(value, str) and "://" in value else value
