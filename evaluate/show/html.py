"""HTML by functions: every text is escaped unless it is `Html`, so a scene's name can never become markup.

A page is one file: no script, no network, no font of its own. Its content security policy lets the browser load nothing
but inline style and `data:` pictures, so it stays what it is wherever it is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import TypeAlias

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_VOID = {"img", "meta", "br"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Content: TypeAlias = "str | int | Iterable[Content] | None"


def text(value: Content) -> Html:
    """Content as markup: strings and numbers escaped, `Html` as it is, lists joined, None as nothing."""
    if value is None:
        return Html("")
    if isinstance(value, Html):
        return value
    if isinstance(value, str | int):
        return Html(escape(_CONTROL.sub("\ufffd", str(value))))
    return Html("".join(text(part) for part in value))


def tag(name: str, *content: Content, **attributes: str | int | float | None) -> Html:
    """An element; `class_` is written as class, underscores in other names as hyphens; None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{text(content)}</{name}>")


def table(head: Iterable[str], rows: Iterable[Iterable[Content]], *, numbers: Iterable[int] = ()) -> Html:
    """A table; the columns of `numbers` are right-aligned figures."""
    right = set(numbers)

    def cells(name: str, row: Iterable[Content]) -> Html:
        return tag("tr", [tag(name, cell, class_="number" if i in right else None) for i, cell in enumerate(row)])

    body = tag("tbody", [cells("td", row) for row in rows])
    return tag("div", tag("table", tag("thead", cells("th", head)), body), class_="scroll")


def cards(figures: Iterable[tuple[str, str]]) -> Html:
    """The headline figures of a page: (value, what it counts)."""
    return tag("div", [tag("div", tag("b", value), tag("span", name)) for value, name in figures], class_="cards")


def chips(words: Iterable[str]) -> Html:
    return tag("p", [tag("span", word) for word in words], class_="chips")


def page(title: str, *content: Content) -> bytes:
    """The whole document in UTF-8."""
    style = files("brickyard.evaluate.show").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *content)), lang='en')}\n".encode()


def count(number: float) -> str:
    """A count for people: 81 369 with thin spaces, 12.3 M from ten million on."""
    for limit, unit in ((1e10, "G"), (1e7, "M")):
        if number >= limit:
            return f"{number / (1e9 if unit == 'G' else 1e6):.1f} {unit}"
    return f"{int(number):,}".replace(",", "\u202f")


def size(number: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
