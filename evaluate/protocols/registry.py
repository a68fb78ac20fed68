"""Protocols by name: what is installed, its presets, and the suffix for a data-efficient split."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from brickyard.evaluate.protocols.protocol import Protocol
from brickyard.evaluate.splits import DataConfig, SceneConfig
from brickyard.shards.errors import RecipeError
from brickyard.shards.plugins import Registry

PROTOCOLS: Registry[Protocol[Any]] = Registry("brickyard.protocols")
"""Name -> protocol, of all that are installed."""

_SUFFIX = re.compile(r"(?P<name>[^@]+)@(?:(?P<share>\d+(?:\.\d+)?)%|(?P<points>\d+)pts)")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A protocol with its settings, under the name by which it was asked for."""

    name: str
    protocol: Protocol[Any]
    config: SceneConfig


def choose(name: str, own: DataConfig) -> Chosen:
    """The protocol of a name, with the suffix applied.

    Args:
        own: the recipe's linear probe, see `Protocol.default`.

    Raises:
        RecipeError: an unknown name, or a suffix that the protocol cannot have.
    """
    match = _SUFFIX.fullmatch(name)
    protocol, config = _named(match["name"] if match else name, name, own)
    try:
        if match and match["share"]:
            config = config.reduced(fraction=float(match["share"]) / 100)
        elif match:
            config = config.reduced(points=int(match["points"]))
    except ValueError as problem:
        raise RecipeError(f"protocol {name!r}: {problem}") from problem
    return Chosen(name=name, protocol=protocol, config=config)


def names() -> Iterator[tuple[str, Protocol[Any]]]:
    """All names without suffix, with their protocols."""
    for name, protocol in PROTOCOLS.items():
        yield name, protocol
        yield from ((preset, protocol) for preset in protocol.presets)


def _named(base: str, whole: str, own: DataConfig) -> tuple[Protocol[Any], SceneConfig]:
    if base in PROTOCOLS:
        protocol = PROTOCOLS[base]
        return protocol, protocol.default(own)
    for protocol in PROTOCOLS.values():
        if base in protocol.presets:
            return protocol, protocol.presets[base]
    known = [name for name, _ in names()]
    near = ", ".join(difflib.get_close_matches(base, known, n=3))
    raise RecipeError(
        f"unknown protocol {whole!r}; nearest: {near or 'none'}; installed: {', '.join(known)}; those that train on"
        " scenes also as NAME@5% or NAME@20pts"
    )
