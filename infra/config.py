"""Recipes: YAML text -> frozen dataclasses, strictly, and every complaint names file, line and column.

A config is a dataclass beside the code it configures; this file turns YAML nodes into such objects and knows none of
them. Nothing is guessed: an unknown key, a missing one, a bool where a number belongs are errors that say what would be
right. A `ValueError` from `__post_init__` (ranges) gets the line too. Where a type depends on another value (a source's
options on its dataset, an objective's settings on its name), the field is a `Deferred`: it keeps the YAML until
somebody knows the class.

    recipe = load(text, Recipe, where="recipe.yaml")
    options = recipe.sources[0].options.load(find_source("kitti").options)
    name, settings = recipe.objective.choose("name", {"slidr": SLidR, "sonata": Sonata})

Scalars follow YAML 1.2 (`infra.scalars`), and the text is untrusted: its size, depth and expanded aliases are capped,
tags are refused (`infra.document`). A recipe of 200 lines loads in some 20 ms.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from brickyard.infra.culprit import culprit
from brickyard.infra.document import compose, place, read_text
from brickyard.infra.scalars import scalar, shorten, write
from brickyard.shards.errors import RecipeError

T = TypeVar("T")


def load(text: str, cls: type[T], *, where: str) -> T:
    """The recipe as an object of dataclass `cls`.

    Args:
        text: YAML (hence also JSON) with one mapping.
        where: name of the file, for messages.

    Raises:
        RecipeError: with the place and, where there is one, the nearest valid key or value.
    """
    return parse(text, where=where).load(cls)


def load_file(path: Path, cls: type[T]) -> T:
    """`load` of a UTF-8 file."""
    return load(read_text(path), cls, where=path.name)


def parse(text: str, *, where: str) -> Deferred:
    """The whole document as one `Deferred`; raises `RecipeError` for bad syntax, tags and oversized documents."""
    return Deferred(node=compose(text, where), where=where, path="")


@dataclass(frozen=True, kw_only=True, eq=False)
class Deferred:
    """A piece of a recipe whose type is not known yet; as a field's type it accepts any YAML.

    A `Deferred` field with a default that the recipe leaves out is an empty mapping at the place of its parent, so
    `load` gives the class's defaults, or a message about a missing key on the right line. Equality compares values.
    """

    node: yaml.Node = field(default_factory=lambda: yaml.MappingNode("tag:yaml.org,2002:map", []))
    where: str = "recipe"
    path: str = ""

    def load(self, cls: type[T]) -> T:
        """As an object of `cls`: a dataclass or any type that a field may have."""
        value: T = _convert(self, cls)
        return value

    def choose(self, key: str, classes: Mapping[str, type[T]]) -> tuple[str, T]:
        """The name under `key`, and all other keys as an object of the class of that name."""
        pairs = _pairs(self)
        if key not in pairs:
            raise self.error(f"missing key {key!r} in {self.title}; one of: {', '.join(classes)}")
        name = _convert(pairs[key][1], str)
        if name not in classes:
            raise pairs[key][1].error(f"unknown {key} {name!r} in {self.title}; {_nearest('name', name, classes)}")
        return name, self.without(key).load(classes[name])

    def without(self, *keys: str) -> Deferred:
        """The same mapping, less some keys."""
        _pairs(self)
        rest = yaml.MappingNode(self.node.tag, [p for p in self.node.value if p[0].value not in keys])
        rest.start_mark = self.node.start_mark
        return dataclasses.replace(self, node=rest)

    def plain(self) -> Any:
        """As plain Python values (dict, list, str, int, float, bool, None)."""
        return _convert(self, Any)

    def error(self, problem: str) -> RecipeError:
        """A `RecipeError` that points here, for checks only the caller can make."""
        return RecipeError(f"{place(self.where, self.node.start_mark)}: {problem}")

    @property
    def title(self) -> str:
        return self.path or "the recipe"

    def child(self, node: yaml.Node, name: str) -> Deferred:
        joined = f"{self.path}{name}" if name.startswith("[") or not self.path else f"{self.path}.{name}"
        return Deferred(node=node, where=self.where, path=joined)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Deferred) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash(repr(self.plain()))


def dump(config: Any) -> Any:
    """A config as JSON-able values: dataclasses and mappings become dicts, sequences lists, paths text.

    Raises:
        TypeError: for a value no recipe can hold.
        ValueError: for a float that is not finite.
    """
    if isinstance(config, Deferred):
        return config.plain()
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: dump(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}
    if isinstance(config, Mapping):
        return {str(key): dump(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [dump(value) for value in config]
    if isinstance(config, float) and not math.isfinite(config):
        raise ValueError("a config holds finite numbers only; use None for 'no limit'")
    if config is None or isinstance(config, bool | int | float | str):
        return config
    if isinstance(config, Path):
        return str(config)
    raise TypeError(f"a config cannot hold a {type(config).__name__}")


def to_yaml(config: Any) -> str:
    """A config as YAML that `load` reads back to an equal object."""
    return write(dump(config))


# From here on: YAML node -> value of an annotated type.


def _convert(at: Deferred, kind: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Deferred:
        return at
    if kind is Any:
        return _plain(at)
    if origin in (Union, types.UnionType):
        return _convert_union(at, args)
    if origin is Literal:
        return _convert_literal(at, args)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_dataclass(at, kind)
    if origin in (list, tuple, Sequence):
        return _convert_sequence(at, kind, origin, args)
    if origin in (dict, Mapping):
        if args[0] is not str:
            raise TypeError(f"mappings of a config have str keys, not {args[0]}")
        return {key: _convert(value, args[1]) for key, (_, value) in _pairs(at).items()}
    return _convert_scalar(at, kind)


def _convert_scalar(at: Deferred, kind: Any) -> Any:
    if kind not in (str, int, float, bool, Path, type(None), None):
        raise TypeError(f"{kind!r} is not a type the recipe loader knows")
    if not isinstance(at.node, yaml.ScalarNode):
        raise _wrong_type(at, kind)
    value = _scalar(at)
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not (type(None) if kind is None else kind):
        raise _wrong_type(at, kind)
    return value


def _scalar(at: Deferred) -> str | int | float | bool | None:
    try:
        return scalar(at.node)  # type: ignore[arg-type]  # the callers have looked
    except ValueError as problem:
        raise at.error(f"{at.title}: {problem}") from problem


def _convert_sequence(at: Deferred, kind: Any, origin: Any, args: tuple[Any, ...]) -> Any:
    if not isinstance(at.node, yaml.SequenceNode):
        raise _wrong_type(at, kind)
    items = [at.child(node, f"[{number}]") for number, node in enumerate(at.node.value)]
    if origin is tuple and (len(args) != 2 or args[1] is not Ellipsis):
        if len(items) != len(args):
            raise at.error(f"{at.title}: expected {len(args)} values, found {len(items)}")
        return tuple(_convert(item, arg) for item, arg in zip(items, args, strict=True))
    values = [_convert(item, args[0]) for item in items]
    return values if origin is list else tuple(values)


def _convert_literal(at: Deferred, choices: tuple[Any, ...]) -> Any:
    value = _scalar(at) if isinstance(at.node, yaml.ScalarNode) else at.node
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    raise at.error(f"{at.title}: found {_describe(at)}; {_nearest('value', str(at.node.value), map(str, choices))}")


def _convert_union(at: Deferred, members: tuple[Any, ...]) -> Any:
    """The member of the node's own kind if there is one (so `3` is an int in `float | int`), else the first that fits.

    Where only one member has the shape of a mapping or a list, its own complaint is the best one. Of dataclasses that
    have a `kind` each, the mapping's key "kind" says which, or else it is the one that knows most of its keys.
    """
    fitting = [member for member in members if _shape(member, at.node)]
    kinds = {member.kind: member for member in fitting if isinstance(getattr(member, "kind", None), str)}
    if len(kinds) == len(fitting) > 1:
        return _convert_kind(at, kinds)
    if isinstance(at.node, yaml.ScalarNode):
        own = type(_scalar(at))
        fitting.sort(key=lambda member: member is not own)
    complaints = []
    for member in fitting:
        try:
            return _convert(at, member)
        except RecipeError as error:
            complaints.append(error)
    if len(complaints) == 1 and not isinstance(at.node, yaml.ScalarNode):
        raise complaints[0]
    raise at.error(f"{at.title}: expected {' or '.join(map(type_name, members))}, found {_describe(at)}")


def _convert_kind(at: Deferred, kinds: Mapping[str, Any]) -> Any:
    keys = _pairs(at).keys()
    if "kind" in keys:
        return at.choose("kind", kinds)[1]
    return _convert(at, max(kinds.values(), key=lambda cls: len(keys & _fields(cls)[1].keys())))


def _shape(kind: Any, node: yaml.Node) -> bool:
    """Whether a node of this shape could become the type at all."""
    origin = get_origin(kind)
    if kind in (Any, Deferred):
        return True
    if dataclasses.is_dataclass(kind) or origin in (dict, Mapping):
        return isinstance(node, yaml.MappingNode)
    if origin in (list, tuple, Sequence):
        return isinstance(node, yaml.SequenceNode)
    return isinstance(node, yaml.ScalarNode)


def _convert_dataclass(at: Deferred, cls: type[Any]) -> Any:
    hints, fields = _fields(cls)  # type: ignore[arg-type]  # typeshed: a class is hashable
    pairs = _pairs(at)
    if "kind" in pairs and "kind" not in fields and isinstance(getattr(cls, "kind", None), str):
        return at.choose("kind", {cls.kind: cls})[1]
    for key, (given, _) in pairs.items():
        if key not in fields:
            raise given.error(f"unknown key {key!r} in {at.title}; {_nearest('key', key, fields)}")
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in pairs:
            values[name] = _convert(pairs[name][1], hints[name])
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise at.error(f"missing key {name!r} in {at.title} (expected {type_name(hints[name])})")
        elif hints[name] is Deferred:
            values[name] = at.child(_empty(at.node), name)
    try:
        return cls(**values)
    except (ValueError, RecipeError) as error:
        blamed = culprit(at.node, cls, {name: values[name] for name in pairs}, str(error))
        raise dataclasses.replace(at, node=blamed).error(f"{at.title}: {error}") from error


@cache
def _fields(cls: Any) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    return get_type_hints(cls), {f.name: f for f in dataclasses.fields(cls) if f.init}


def _pairs(at: Deferred) -> dict[str, tuple[Deferred, Deferred]]:
    """Key -> (place of the key, value) of a mapping without duplicate keys."""
    if not isinstance(at.node, yaml.MappingNode):
        raise at.error(f"{at.title}: expected a mapping (key: value), found {_describe(at)}")
    pairs: dict[str, tuple[Deferred, Deferred]] = {}
    for key_node, value_node in at.node.value:
        key = Deferred(node=key_node, where=at.where, path=at.path)
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(_scalar(key), str):
            raise key.error(f"keys of {at.title} must be text, found {_describe(key)} (put it in quotes)")
        name = key_node.value
        if name in pairs:
            first = pairs[name][0].node.start_mark.line + 1
            raise key.error(f"duplicate key {name!r} in {at.title}, first given in line {first}")
        pairs[name] = (key, at.child(value_node, name))
    return pairs


def _plain(at: Deferred) -> Any:
    if isinstance(at.node, yaml.MappingNode):
        return {key: _plain(value) for key, (_, value) in _pairs(at).items()}
    if isinstance(at.node, yaml.SequenceNode):
        return [_plain(at.child(node, f"[{number}]")) for number, node in enumerate(at.node.value)]
    return _scalar(at)


# From here on: words for people.


def _wrong_type(at: Deferred, kind: Any) -> RecipeError:
    quoting = " (put it in quotes)" if kind is str and isinstance(at.node, yaml.ScalarNode) and at.node.value else ""
    return at.error(f"{at.title}: expected {type_name(kind)}, found {_describe(at)}{quoting}")


def _describe(at: Deferred) -> str:
    if isinstance(at.node, yaml.MappingNode):
        return "a mapping"
    if isinstance(at.node, yaml.SequenceNode):
        return "a list"
    value = _scalar(at)
    if value is None:
        return "nothing (null)"
    return f"the {type_name(type(value)).split(' ', 1)[1]} {shorten(at.node.value)!r}"


def type_name(kind: Any) -> str:
    names = {
        str: "a text",
        int: "a whole number",
        float: "a number",
        bool: "a truth value",
        Path: "a path",
        type(None): "null",
        None: "null",
        Any: "any value",
        Deferred: "any value",
    }
    if kind in names:
        return names[kind]
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_name, args))
    if origin in (list, tuple, Sequence):
        return f"a list ({type_name(args[0]).split(' ', 1)[-1]} each)"
    return "a mapping (key: value)"


def _nearest(what: str, found: str, valid: Iterable[str]) -> str:
    names = list(valid)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.5)
    hint = f"nearest valid {what}: {close[0]!r} " if close else ""
    return f"{hint}(valid: {', '.join(names)})" if names else "none is allowed here"


def _empty(parent: yaml.Node) -> yaml.Node:
    return yaml.MappingNode("tag:yaml.org,2002:map", [], parent.start_mark, parent.end_mark)
