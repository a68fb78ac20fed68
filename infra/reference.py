"""The reference of recipes and verbs, made from the code: two pages for people and a JSON Schema for editors.

    python -m brickyard.infra.reference      writes docs/reference/

A key's type and default are its field's, its meaning is what the `Attributes:` of its class say. `DEFERRED` names the
fields whose type another value decides, which no annotation tells.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from brickyard.evaluate.protocols.registry import names as protocol_names
from brickyard.infra.cli import parser
from brickyard.infra.config import Deferred, dump, type_name
from brickyard.infra.layers import EXTENDS
from brickyard.infra.recipe import Recipe, SourceConfig
from brickyard.infra.verbs.evaluate import EvaluateConfig
from brickyard.infra.verbs.train import TrainSection
from brickyard.ingest.source import find_source, source_names
from brickyard.train.objectives import CONFIGS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
_MADE = "<!-- Made by `python -m brickyard.infra.reference` from the code; edit the docstrings there. -->\n"
_EXTENDS = "another recipe, relative to this file, whose keys hold where this one has none (docs/recipes.md)"


def options() -> dict[str, type[Any]]:
    """Dataset -> its options, of the sources that come with the project."""
    found = {name: find_source(name).options for name in source_names()}
    return {name: cls for name, cls in found.items() if cls.__module__.startswith("brickyard.")}


def protocols() -> dict[str, type[Any]]:
    """Protocol -> the class of its settings, of those that come with the project."""
    return {name: one.config for name, one in protocol_names() if type(one).__module__.startswith("brickyard.")}


def objectives() -> dict[str, type[Any]]:
    """Objective -> its settings, of those that come with the project."""
    return {name: cls for name, cls in CONFIGS.items() if cls.__module__.startswith("brickyard.")}


DEFERRED: dict[tuple[type[Any], str], tuple[str, Callable[[], Mapping[str, type[Any]]]]] = {
    (SourceConfig, "options"): ("dataset", options),
    (TrainSection, "objective"): ("name", objectives),
    (EvaluateConfig, "settings"): ("protocol", protocols),
    (Recipe, "train"): ("", lambda: {"": TrainSection}),
    (Recipe, "evaluate"): ("", lambda: {"": EvaluateConfig}),
}
"""(class, field) -> what decides its type, and the types."""


def pages() -> dict[str, str]:
    """Name of a file -> its text."""
    return {
        "recipe.md": recipe_page(),
        "commands.md": commands_page(),
        "recipe.schema.json": json.dumps(Schema().whole(), indent=1) + "\n",
    }


def recipe_page() -> str:
    """Every key of a recipe; a table for each part, with the keys below a key in dotted form."""
    parts = [("The recipe", Recipe, ""), ("sources", SourceConfig, "Each entry of the list `sources`.")]
    parts += [(f"options of {name}", cls, "") for name, cls in options().items()]
    parts += [("train", TrainSection, "")]
    parts += [
        (f"objective {name}", cls, f"`train.objective` with `name: {name}`.") for name, cls in objectives().items()
    ]
    parts += [("evaluate", EvaluateConfig, "")]
    by_class: dict[type[Any], list[str]] = {}
    for name, cls in protocols().items():
        by_class.setdefault(cls, []).append(name)
    for cls, names in by_class.items():
        words = "Keys for `evaluate.settings` of " + ", ".join(f"`{name}`" for name in names) + "."
        parts.append((f"settings of {names[0]}", cls, words + " Defaults that a protocol sets itself may differ."))
    text = [_MADE, "# Every key of a recipe\n", f"`{EXTENDS}`: {_EXTENDS}.\n"]
    for title, cls, words in parts:
        text += [f"## {title}\n", *([words + "\n"] if words else []), *_table(rows(cls))]
    return "\n".join(text)


def _table(found: Iterator[tuple[str, str, str, str]]) -> list[str]:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, kind, default, meaning in found:
        cells = (cell.replace("|", "\\|") for cell in (f"`{key}`", kind, default, meaning))
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def rows(cls: type[Any], above: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every key of a class and of those below it."""
    hints, said = get_type_hints(cls), meanings(cls)
    for spec in _fields(cls):
        kind, inner = hints[spec.name], _dataclass_in(hints[spec.name])
        known, default = _default(spec)
        hidden = not known or (inner is not None and default is not None)  # what is below has rows of its own
        shown = "" if hidden else f"`{json.dumps(default, ensure_ascii=False)}`"
        key, meaning = f"{above}{spec.name}", said.get(spec.name, "")
        if (cls, spec.name) in DEFERRED:
            yield key, "see below", "", meaning
            continue
        yield key, type_name(kind), shown, meaning
        if inner and inner is not SourceConfig:
            item = "[]" if get_origin(kind) in (tuple, list) else ""
            yield from rows(inner, f"{key}{item}.")
        for other in _of_other_kinds(kind):
            yield from rows(other, f"{key} (kind: {other.kind}).")


def meanings(cls: type[Any]) -> dict[str, str]:
    """Field -> what the `Attributes:` of its class, or of one that it extends, say of it."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        section = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", inspect.cleandoc(owner.__doc__ or ""), re.MULTILINE)
        if section is None or not dataclasses.is_dataclass(owner):
            continue
        names = {spec.name for spec in dataclasses.fields(owner)}
        starts = [
            match
            for match in re.finditer(r"(?:^ {4}|(?<=[.;)])\s+)(\w+(?:,\s+\w+)*):\s", section[1], re.MULTILINE)
            if set(re.split(r",\s+", match[1])) <= names
        ]
        for start, end in zip(starts, [*(match.start() for match in starts[1:]), None], strict=True):
            text = " ".join(section[1][start.end() : end].split()).removesuffix(".")
            found |= dict.fromkeys(re.split(r",\s+", start[1]), text)
    for name in (spec.name for spec in _fields(cls) if spec.name not in found):
        if others := [other for other, text in found.items() if f"`{name}`" in text]:
            found[name] = f"see `{others[0]}`"
    below = {name: _dataclass_in(kind) for name, kind in get_type_hints(cls).items()}
    for name, inner in below.items():
        if inner and name not in found:
            found[name] = " ".join(inspect.cleandoc(inner.__doc__ or "").split("\n\n")[0].split()).removesuffix(".")
    return found


def _fields(cls: type[Any]) -> list[dataclasses.Field[Any]]:
    return [spec for spec in dataclasses.fields(cls) if spec.init]


def _default(spec: dataclasses.Field[Any]) -> tuple[bool, Any]:
    """(whether there is one, as JSON)."""
    if spec.default_factory is not MISSING:
        return True, dump(spec.default_factory())
    return (False, None) if spec.default is MISSING else (True, dump(spec.default))


def _dataclass_in(kind: Any) -> type[Any] | None:
    """The dataclass that a type is, may be or has as items."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return None if kind is Deferred else kind
    if get_origin(kind) in (Union, types.UnionType, tuple, list, Sequence):
        return next((found for arg in get_args(kind) if (found := _dataclass_in(arg))), None)
    return None


def _of_other_kinds(kind: Any) -> list[Any]:
    """The dataclasses that a key may have but for the first, which is the default; the key `kind` tells them apart."""
    if get_origin(kind) not in (Union, types.UnionType):
        return []
    known = [arg for arg in get_args(kind) if isinstance(getattr(arg, "kind", None), str)]
    return known[1:]


class Schema:
    """The JSON Schema (2020-12). Inside `sources`, a list, every needed key is asked for; elsewhere a recipe that
    extends another one need not repeat what stands there."""

    def __init__(self) -> None:
        self._defs: dict[str, Any] = {}
        self.names: dict[tuple[type[Any], bool], str] = {}

    def whole(self) -> dict[str, Any]:
        root = self._object(Recipe, needed=False)
        root["properties"] = {EXTENDS: {"type": "string", "description": _EXTENDS}} | root["properties"]
        top = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Brickyard recipe"}
        alone = {"if": {"not": {"required": [EXTENDS]}}, "then": {"required": _needed(Recipe)}}
        return top | root | alone | {"$defs": dict(sorted(self._defs.items()))}

    def _object(self, cls: type[Any], *, needed: bool) -> dict[str, Any]:
        hints, said, properties, rules = get_type_hints(cls), meanings(cls), {}, []
        for spec in _fields(cls):
            schema = self._of(hints[spec.name], needed)
            if (cls, spec.name) in DEFERRED:
                schema, rule = self._deferred(cls, spec.name, needed)
                rules += rule
            known, default = _default(spec)
            extra = {"default": default} if known and (cls, spec.name) not in DEFERRED else {}
            properties[spec.name] = schema | extra | ({"description": said[spec.name]} if spec.name in said else {})
        if isinstance(kind := getattr(cls, "kind", None), str):
            properties = {"kind": {"const": kind}} | properties
        found = {"type": "object", "properties": properties, "additionalProperties": False}
        asked = {"required": _needed(cls)} if needed and _needed(cls) else {}
        return found | asked | ({"allOf": rules} if rules else {})

    def _ref(self, cls: type[Any], needed: bool) -> dict[str, Any]:
        if (cls, needed) not in self.names:
            taken, name = set(self.names.values()), cls.__name__
            if name in taken:
                name = f"{cls.__module__.rpartition('.')[2]}.{name}"
            name = f"{name}.whole" if name in taken else name
            if name in taken:
                raise ValueError(f"two classes of the name {name}")
            self.names[cls, needed] = name
            self._defs[name] = {}
            self._defs[name] |= self._object(cls, needed=needed)
        return {"$ref": f"#/$defs/{self.names[cls, needed]}"}

    def _deferred(self, cls: type[Any], name: str, needed: bool) -> tuple[dict[str, Any], list[Any]]:
        """(schema of the field, rules for its class)."""
        by, classes = DEFERRED[cls, name]
        refs = {key: self._ref(found, needed) for key, found in classes().items()}
        if not by:
            return refs[""], []
        if (cls, name) == (EvaluateConfig, "settings"):
            return {"type": "object", "properties": refs, "additionalProperties": {"type": "object"}}, []
        if (cls, name) == (SourceConfig, "options"):
            rules = [_when(by, key, {"properties": {name: ref}}) for key, ref in refs.items()]
            return {"type": "object"}, rules
        for key, ref in refs.items():
            self._defs[ref["$ref"].rpartition("/")[2]]["properties"][by] = {"const": key}
        rules = [_when(by, key, ref) for key, ref in refs.items()]
        return {"type": "object", "properties": {by: {"enum": list(refs)}}, "allOf": rules}, []

    def _of(self, kind: Any, needed: bool) -> dict[str, Any]:
        origin, args = get_origin(kind), get_args(kind)
        plain = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
        if kind in plain:
            return {"type": plain[kind]}
        if kind in (Any, Deferred):
            return {}
        if origin is Literal:
            return {"enum": list(args)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self._of(arg, needed) for arg in args]}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self._of(args[1], needed)}
        if origin is tuple and args[-1] is not Ellipsis:
            size = {"minItems": len(args), "maxItems": len(args)}
            return {"type": "array", "prefixItems": [self._of(arg, True) for arg in args]} | size
        if origin in (list, tuple, Sequence):
            return {"type": "array", "items": self._of(args[0], True)}
        return self._ref(kind, needed)


def _needed(cls: type[Any]) -> list[str]:
    return [spec.name for spec in _fields(cls) if not _default(spec)[0]]


def _when(key: str, value: str, then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}


def commands_page() -> str:
    """Every verb with its arguments, in the words of `--help`."""
    top = parser()
    verbs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    text = [_MADE, "# Every command\n"]
    text += [f"{top.description}\n", "`brickyard VERB --help` says the same.\n"]
    for name, verb in verbs.choices.items():
        example = str(verb.epilog).removeprefix("example: ")
        text += [f"## {name}\n", f"{verb.description}\n", f"```sh\n{example}\n```\n"]
        text += ["| argument | meaning |", "|---|---|"]
        for action in verb._actions:
            if not isinstance(action, argparse._HelpAction):
                text.append(f"| {_argument(action)} | {(action.help or '').replace('|', chr(92) + '|')} |")
        text.append("")
    return "\n".join(text)


def _argument(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.dest}`" + (" (may be left out)" if action.nargs == "?" else "")
    value = "" if action.nargs == 0 else f" {action.metavar or '|'.join(action.choices or []) or action.dest.upper()}"
    return f"`{action.option_strings[0]}{value}`".replace("|", "\\|") + (" (needed)" if action.required else "")


def main() -> int:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
