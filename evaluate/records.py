"""What an evaluation leaves in a run's folder, read: results of the probe, of protocols, pictures of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brickyard.shards.documents import Every, read_file
from brickyard.shards.errors import BrickyardError

PROBE = "probe.json"
RESULTS = "results.json"
FEATURES = "features"
FEATURES_MANIFEST = "features.json"
"""In the folder of the pictures; written last."""

_SCORES = {"miou": (float, None), "iou": Every((float, None))}
_PROBE = {"run": str, "seed": int, "pretrained": _SCORES, "random": _SCORES}
_PROTOCOL = {
    "protocol": str,
    "fingerprint": str,
    "results": Every(Every((float, None, Every((float, None))))),
    "published": {"miou": (float, None), "source": str},
}
_PICTURED = {"scene": str, "pictures": [{"file": str, "caption": str}]}
_AGAIN = "`brickyard evaluate` writes it again"


def read_probe_result(run: Path) -> dict[str, Any] | None:
    """The probe.json of a run, None where there is none; raises `BrickyardError` where it is damaged."""
    return _read(run / PROBE, _PROBE, _AGAIN)


def read_results(run: Path) -> dict[str, Any] | None:
    """The results.json of a run, None where there is none; raises `BrickyardError` where it is damaged."""
    return _read(run / RESULTS, {"protocols": [_PROTOCOL]}, _AGAIN)


def read_pictured(folder: Path) -> dict[str, Any] | None:
    """The features.json of a folder of pictures, None where there is none; raises `BrickyardError` if it is damaged."""
    shape = {"scenes": [{"title": str, **_PICTURED}], "query": ({"scenes": [_PICTURED]}, None)}
    return _read(folder / FEATURES_MANIFEST, shape, "`brickyard features` writes it again")


def _read(path: Path, shape: dict[str, Any], hint: str) -> dict[str, Any] | None:
    return read_file(path, shape, error=BrickyardError, hint=hint) if path.exists() else None
