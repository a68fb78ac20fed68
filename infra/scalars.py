"""Scalars of YAML 1.2's core schema, both ways: `1e-3` is a number, `no` is text, `010` is ten (plus `1_000`)."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

_INT = re.compile(r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


def scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    """The value of a scalar node: text if quoted, else what it looks like.

    Raises:
        ValueError: a number that does not fit into 64 bits or is not finite.
    """
    text: str = node.value
    if getattr(node, "style", None) is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        number = int(text, 0) if text[:2] in ("0o", "0x") else int(text.replace("_", "")) if len(text) < 40 else 1 << 64
        if not -(1 << 63) <= number < 1 << 63:
            raise ValueError(f"{shorten(text)} does not fit into 64 bits")
        return number
    if _FLOAT.fullmatch(text):
        value = math.inf if text[-1].isalpha() else float(text.replace("_", ""))
        if not math.isfinite(value):
            raise ValueError(f"{shorten(text)} is not a finite number; use null for 'no limit'")
        return value
    return text


def shorten(text: str) -> str:
    """A text as long as a message can quote."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def write(plain: Any) -> str:
    """Plain values as YAML whose scalars `scalar` reads back to equal values."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, default_flow_style=False)


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that YAML 1.2 takes for numbers and 1.1 does not; never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"(?:{_INT.pattern})$"), list("-+0123456789"))
