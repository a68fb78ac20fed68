"""Which key of a config a complaint is about, so that its line can be named.

A class says in its own words what is wrong with its values: "lr must be positive, warmup not negative". The key is not
guessed from the order of these words: the one whose default makes the complaint go away is it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

import yaml


def culprit(node: yaml.Node, cls: type[Any], given: Mapping[str, Any], complaint: str) -> yaml.Node:
    """Where in the YAML of a config the complaint points.

    Args:
        node: the config's mapping.
        cls: the dataclass whose `__post_init__` raised.
        given: the values that the mapping gives; the others are defaults.
        complaint: what it raised.

    Returns:
        The value of the key concerned, or of one below it that the complaint names ("views.withhold"); `node` itself if
        it is about no single key.
    """
    for name in _path(cls, given, complaint):
        below = {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
        if name not in below:
            break
        node = below[name]
    return node


def _path(cls: type[Any], given: Mapping[str, Any], complaint: str) -> list[str]:
    """The key concerned and the names after it in a dotted one; [] if it is no single key."""
    mentions = {name: found for name in given if (found := _mention(name, complaint))}
    named = sorted(mentions, key=lambda name: (mentions[name].start(), -len(name)))
    curable = {
        spec.name
        for spec in dataclasses.fields(cls)
        if spec.name in given and (spec.default is not MISSING or spec.default_factory is not MISSING)
    }
    cured = [name for name in given if name in curable and _complaint(cls, given, name) != complaint]
    order = [
        *(name for name in named if name in cured),
        *(name for name in named if name not in curable),  # it has no default to try
        *cured,
        *named,
    ]
    if not order:
        return []
    below = mentions[order[0]][1] if order[0] in mentions else ""
    return [order[0], *below.split(".")[1:]]


def _mention(name: str, text: str) -> re.Match[str] | None:
    """The name as a whole word, with the names below it that follow after dots."""
    return re.search(rf"(?<![\w.]){re.escape(name)}((?:\.\w+)*)(?!\w)", text)


def _complaint(cls: type[Any], given: Mapping[str, Any], without: str) -> str | None:
    try:
        cls(**{name: value for name, value in given.items() if name != without})
    except Exception as problem:  # of whatever kind: only its text is compared
        return str(problem)
    return None
