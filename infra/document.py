"""YAML text -> nodes, when the text is not to be trusted: no tags, caps on size, depth and what aliases expand to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from brickyard.shards.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Nodes after every alias is expanded: a few short lines of nested aliases can stand for billions."""


def read_text(path: Path) -> str:
    """A UTF-8 file, no more of it than a recipe may have; raises `RecipeError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return data.decode("utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path.name} line {line}: byte {error.start} is not UTF-8 text") from error


def compose(text: str, where: str) -> yaml.Node:
    """The document's root node; raises `RecipeError` for bad syntax, tags, and documents beyond the caps.

    Args:
        where: name of the file, for messages; the marks of all nodes carry it.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RecipeError(f"{where}: a recipe has at most {MAX_BYTES >> 20} MiB")
    try:
        _check_events(text, where)
        node: yaml.Node | None = _loader(text, where).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise RecipeError(f"{where} line {line}: character {error.character!r} is not allowed in YAML") from error
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(part for part in (error.problem, error.context) if part)
        mark = error.problem_mark or error.context_mark
        raise RecipeError(f"{place(where, mark)}: not valid YAML: {problem}") from error
    if node is None:
        raise RecipeError(f"{where} line 1: the recipe is empty")
    _expand(node, where, {}, set())
    return node


def _loader(text: str, where: str) -> Any:
    loader = yaml.SafeLoader(text)
    loader.name = where  # of the stream; every mark takes it over
    return loader


def place(where: str, mark: yaml.Mark | None) -> str:
    """File, line and column of a mark, as people count them; the option's name for a value of the command line.

    Args:
        where: what to say where there is no mark.
    """
    if mark is None:
        return where
    return mark.name if mark.line < 0 else f"{mark.name} line {mark.line + 1} column {mark.column + 1}"


def option_mark(name: str) -> yaml.Mark:
    """The mark of what stands in no file, but in an option of the command line."""
    return yaml.Mark(name, -1, -1, -1, None, 0)


def _check_events(text: str, where: str) -> None:
    """Refuse tags and too deep nesting before anything recursive sees the text."""
    depth = 0
    loader = _loader(text, where)
    while loader.check_event():
        event = loader.get_event()
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise RecipeError(f"{place(where, event.start_mark)}: tags such as {tag!r} are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise RecipeError(f"{place(where, event.start_mark)}: nested deeper than {MAX_DEPTH} levels")


def _expand(node: yaml.Node, where: str, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """(nodes, levels) below and with `node`, aliases written out; a shared node is visited once."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise RecipeError(f"{place(where, node.start_mark)}: an alias may not stand inside what it refers to")
    children: Iterable[yaml.Node] = ()
    if isinstance(node, yaml.MappingNode):
        children = (child for pair in node.value for child in pair)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    inside = [_expand(child, where, known, above | {id(node)}) for child in children]
    size, levels = 1 + sum(size for size, _ in inside), 1 + max((levels for _, levels in inside), default=0)
    if size > MAX_NODES or levels > MAX_DEPTH:
        limits = f"{MAX_NODES} values or {MAX_DEPTH} levels"
        raise RecipeError(f"{place(where, node.start_mark)}: aliases expand to more than {limits}")
    known[id(node)] = size, levels
    return size, levels
