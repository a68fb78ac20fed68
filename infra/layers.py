"""A recipe of several layers: the file it extends, the file itself, `--set` of the command line, the environment.

    extends: ../common.yaml        mappings are merged key by key; what is no mapping (a list, too) is replaced
    --set train.lr=0.001           the value is YAML and replaces what was there; a number in the path counts in a list
    root: ${DATA}/kitti            a variable of the environment, in roots of sources and corpora and nowhere else

All of it happens to YAML nodes, before anything is converted: so a value keeps its place, and a complaint names the
file and line, or the option, where it was given. A relative root is relative to the folder of the file it stands in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from brickyard.infra.config import Deferred, parse
from brickyard.infra.document import MAX_DEPTH, compose, option_mark, read_text
from brickyard.shards.errors import RecipeError
from brickyard.shards.uri import remember

EXTENDS = "extends"
MAX_FILES = 8
_TEXT, _MAP = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Roots = frozenset[tuple[str, ...]]
SOURCES: Roots = frozenset({("sources", "[]", "root")})
CORPORA: Roots = frozenset({("train", "corpora", "[]", "root"), ("train", "corpora", "[]", "selection")})
MAPS: Roots = frozenset({("curate", "superpixels", "root")})
ROOTS: Roots = SOURCES | CORPORA | MAPS
"""Keys that say where something lies: the raw data, what is trained on, and superpixels from files."""


def compose_recipe(path: Path, settings: Sequence[str] = ()) -> Deferred:
    """The recipe's file with what it extends below it and `settings` on top; variables are left as they are.

    Args:
        settings: of the form "train.lr=0.001", later ones on top.

    Raises:
        RecipeError: with the place, also for files that extend each other or too many of them.
    """
    whole = _with_base(path, path.name, ())
    for setting in settings:
        whole = Deferred(node=_set(whole.node, setting), where=whole.where)
    return _with_roots(whole, lambda at: at.node.value, ROOTS)  # variables elsewhere are refused


def _with_base(path: Path, shown: str, above: tuple[Path, ...]) -> Deferred:
    """A file with what it extends, whose relative roots are made absolute where that lies in another folder."""
    text = read_text(path)
    remember(text)  # credentials of a file that the command line does not name must not be printed either
    own = parse(text, where=shown)
    own.plain()  # duplicate keys must be seen before they are merged
    if not isinstance(own.node, yaml.MappingNode):
        return own
    given = next((value for key, value in own.node.value if key.value == EXTENDS), None)
    if given is None:
        return own
    base, at = own.child(given, EXTENDS), path.resolve()
    name = base.load(str)
    below = at.parent / name
    if below.resolve() in (*above, at):
        raise base.error(f"{name} extends this file in turn")
    if len(above) + 2 > MAX_FILES:
        raise base.error(f"a recipe is made of at most {MAX_FILES} files that extend each other")
    if not below.is_file():
        raise base.error(f"there is no file {name!r} to extend; its path is relative to this file's folder")
    found = _with_base(below, str(Path(shown).parent / name), (*above, at))
    if below.resolve().parent != at.parent:
        found = with_absolute_roots(found, below.resolve().parent)
    return Deferred(node=merge(found.node, own.without(EXTENDS).node), where=shown)


def merge(below: yaml.Node, above: yaml.Node) -> yaml.Node:
    """Two mappings key by key, the keys of `below` first; anything else is replaced by `above`."""
    if not (isinstance(below, yaml.MappingNode) and isinstance(above, yaml.MappingNode)):
        return above
    own = {key.value: (key, value) for key, value in above.value}
    pairs = []
    for key, value in below.value:
        new_key, new_value = own.pop(key.value, (key, None))
        pairs.append((new_key, value if new_value is None else merge(value, new_value)))
    return yaml.MappingNode(_MAP, [*pairs, *own.values()], above.start_mark, above.end_mark)


def _set(root: yaml.Node, setting: str) -> yaml.Node:
    name, equals, text = setting.partition("=")
    option = f"--set {name}"
    path = name.split(".")
    if not equals or not all(path):
        raise RecipeError(f"{option}: expected KEY=VALUE, such as --set train.lr=0.001")
    if len(path) > MAX_DEPTH:
        raise RecipeError(f"{option}: nested deeper than {MAX_DEPTH} levels")
    value = compose(text if text.strip() else "null", option)
    mark = option_mark(option)
    _remark(value, mark)
    return _replaced(root, path, value, mark, "the recipe")


def _replaced(node: yaml.Node, path: Sequence[str], value: yaml.Node, mark: yaml.Mark, title: str) -> yaml.Node:
    """The node with another value at a path; what it shares with other places through aliases stays as it is there."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(node, yaml.SequenceNode):
        if not key.isascii() or not key.isdigit() or len(key) > 6 or int(key) >= len(node.value):
            raise RecipeError(f"{mark.name}: {title} is a list of {len(node.value)}, counted from 0; it has no {key!r}")
        items = list(node.value)
        items[int(key)] = _replaced(items[int(key)], rest, value, mark, f"{title}[{key}]")
        return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark)
    empty = isinstance(node, yaml.ScalarNode) and Deferred(node=node).plain() is None
    if not isinstance(node, yaml.MappingNode) and not empty:
        raise RecipeError(f"{mark.name}: {title} is neither a mapping nor a list, it has no {key!r}")
    inner = key if title == "the recipe" else f"{title}.{key}"
    pairs = [] if empty else list(node.value)
    for number, (own, old) in enumerate(pairs):
        if own.value == key:
            pairs[number] = (own, _replaced(old, rest, value, mark, inner))
            break
    else:
        nothing = yaml.MappingNode(_MAP, [], mark, mark)
        pairs.append((yaml.ScalarNode(_TEXT, key, mark, mark, '"'), _replaced(nothing, rest, value, mark, inner)))
    start, end = (mark, mark) if empty else (node.start_mark, node.end_mark)
    return yaml.MappingNode(_MAP, pairs, start, end)


def _remark(node: yaml.Node, mark: yaml.Mark) -> None:
    node.start_mark = node.end_mark = mark
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                if part.start_mark is not mark:
                    _remark(part, mark)


def with_variables(
    recipe: Deferred, environment: Mapping[str, str] | None = None, roots: Roots = SOURCES | MAPS
) -> Deferred:
    """Variables in roots replaced by their values.

    Args:
        environment: None takes the process's.
        roots: which of them; the others stay as they are.

    Raises:
        RecipeError: one that is not set or empty, with its place.
    """
    known = os.environ if environment is None else environment

    def expand(at: Deferred) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1]
            if not _NAME.fullmatch(name):
                raise at.error(f"{at.title}: {found[0]} is no variable; write ${{NAME}}")
            if not known.get(name):
                raise at.error(f"{at.title}: the environment has no variable {name}, or it is empty; set it")
            return known[name]

        text = _VARIABLE.sub(value, at.node.value)
        remember(text)
        return text

    return _with_roots(recipe, expand, roots)


def with_absolute_roots(recipe: Deferred, folder: Path) -> Deferred:
    """Relative roots joined to a folder. One that begins with a variable is left to it."""

    def absolute(at: Deferred) -> str:
        text: str = at.node.value
        return text if "://" in text or text.startswith(("/", "~", "${")) else str(folder / text)

    return _with_roots(recipe, absolute, ROOTS)


def _with_roots(recipe: Deferred, change: Callable[[Deferred], str], roots: Roots) -> Deferred:
    """The recipe with the text of these roots changed; refuses variables where there is none."""

    def walk(at: Deferred, path: tuple[str, ...]) -> yaml.Node:
        node = at.node
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, walk(at.child(value, str(key.value)), (*path, str(key.value)))) for key, value in node.value]
            return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):
            items = [walk(at.child(item, f"[{number}]"), (*path, "[]")) for number, item in enumerate(node.value)]
            return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark)
        if path in ROOTS and isinstance(at.plain(), str):
            text = change(at) if path in roots else node.value
            return node if text == node.value else yaml.ScalarNode(_TEXT, text, node.start_mark, node.end_mark, '"')
        if found := _VARIABLE.search(node.value):
            where = "variables are for the roots of sources, corpora and superpixels only"
            raise at.error(f"{at.title}: {found[0]} stands here, but {where}")
        return node

    return Deferred(node=walk(recipe, ()), where=recipe.where)
