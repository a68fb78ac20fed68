"""`brickyard sources`: the datasets that can be read, and their options."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from typing import Any

from brickyard.ingest.source import find_source, source_names


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    names = [args.name] if args.name else source_names()
    found = {name: _describe(find_source(name).options) for name in names}
    if not args.json:
        for name, (text, options) in found.items():
            print(name if not args.name else f"{name}\n\n{text}\n\nDefaults:")
            for option, default in options.items() if args.name else ():
                print(f"  {option}: {default}")
        if not args.name:
            print("\n`brickyard sources NAME` explains the options of one of them.")
    result = {name: {"options": options, "about": text} for name, (text, options) in found.items()}
    return {"sources": result}, 0


def _describe(options: type[Any]) -> tuple[str, dict[str, Any]]:
    """(what the class says of itself, option -> default as it would stand in a recipe)."""
    defaults = options()
    values = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(options)}
    return inspect.getdoc(options) or "", {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
