"""The fingerprint of a protocol: two numbers may be compared if their fingerprints are equal.

It is a digest of all settings (but not of how many threads read, or of memory), of the content of the files that they
name, of the taxonomy, and of the sizes of the splits. A setting that older versions did not have does not count while
it is what they did (`before` in a field's metadata), so what they measured keeps its fingerprint.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import xxhash

from brickyard.evaluate.splits import SceneConfig

_NOT_NUMERIC = ("threads", "cache_gib")


def settings(config: SceneConfig) -> dict[str, Any]:
    """All settings as JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return plain


def fingerprint(config: SceneConfig, scenes: tuple[int, int]) -> str:
    """12 hexadecimal digits; `scenes` are the numbers of training and validation scenes."""
    before = {spec.name: spec.metadata["before"] for spec in dataclasses.fields(config) if "before" in spec.metadata}
    numbers = {
        name: value
        for name, value in settings(config).items()
        if name not in _NOT_NUMERIC and not (name in before and value == before[name])
    }
    paths = {name: value for name in numbers if isinstance(value := getattr(config, name), Path)}
    content = {
        "protocol": type(config).__name__,
        "settings": numbers | {name: _digest_files(path) for name, path in paths.items()},
        "scenes": list(scenes),
        **config.identity,
    }
    return xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())[:12]


def _digest_files(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return xxhash.xxh3_64_hexdigest(b"".join(xxhash.xxh3_64_digest(file.read_bytes()) for file in files))
