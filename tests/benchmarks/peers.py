"""An environment of its own, with pinned versions, for every peer: their requirements contradict each other and ours.

Each is a virtual environment below a scratch folder, made on first use and kept. It also sees the packages of the
environment that runs the benchmark, behind its own, so that all peers are measured by the same code and, unless a peer
requires another one, with the same torch. A peer that cannot be installed is left out, and the reason is printed.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
import venv
from functools import cache
from pathlib import Path

PINS = {"webdataset": "webdataset==1.0.2", "streaming": "mosaicml-streaming==0.13.0", "litdata": "litdata==0.2.76"}
"""Module -> what pip installs."""

SCRATCH = Path(tempfile.gettempdir()) / "brickyard-peers"


@cache
def interpreter(module: str) -> tuple[str, str]:
    """(Python that can import a peer's module, "") or ("", why there is none)."""
    if module not in PINS:
        return (sys.executable, "") if importlib.util.find_spec(module) else ("", "not installed")
    place = SCRATCH / PINS[module]
    python = place / "bin" / "python"
    try:
        if not (place / "complete").exists():
            _make(place, python, PINS[module])
        subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=True, timeout=120)
    except subprocess.CalledProcessError as problem:
        return "", (problem.stderr or b"").decode(errors="replace").strip().splitlines()[-1][:200]
    except (OSError, subprocess.TimeoutExpired) as problem:
        return "", repr(problem)
    return str(python), ""


def _make(place: Path, python: Path, pin: str) -> None:
    print(f"installing {pin} into {place}", file=sys.stderr, flush=True)
    venv.create(place, with_pip=True, clear=True)
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    behind = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (Path(found.stdout.strip()) / "zz-behind.pth").write_text(behind)
    subprocess.run([python, "-m", "pip", "install", "-q", pin], capture_output=True, check=True, timeout=1800)
    (place / "complete").write_text(pin + "\n")


def version(module: str) -> str:
    """The pinned version, for tables."""
    return PINS.get(module, "").rpartition("==")[2]
