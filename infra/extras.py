"""What to install where a library is missing: the metadata of our own distribution say which extra brings it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import requires

from brickyard.shards.errors import BrickyardError

OTHERWISE = {"skimage": "scikit-image", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "cv2": "opencv"}
"""Modules that are called otherwise than their distribution."""

_REQUIREMENT = re.compile(r"([\w.-]+)(?:.*;.*\bextra\s*==\s*['\"]([\w-]+)['\"])?")


def how_to_install(problem: ModuleNotFoundError, verb: str = "") -> str | None:
    """What to type for a library that could not be imported, or whose version was asked for in vain.

    None where it is none of ours: a plugin's own, or a module that we ourselves misspelt.
    """
    module = (problem.name or "").partition(".")[0]
    extras = extras_of(module, requires("brickyard") or [])
    if not extras:
        return None
    if verb == "demo":  # it runs the others
        extras = ["ingest,simulate,train"]
    words = [f"pip install 'brickyard[{extra}]'" if extra else "pip install brickyard" for extra in extras]
    return f"{module} is not installed: {' or '.join(words)}"


def refuse_missing(problem: BaseException, place: str) -> None:
    """Raise `BrickyardError` where a library of an extra is missing: no scene and no dataset is to blame for that."""
    if isinstance(problem, ModuleNotFoundError) and (hint := how_to_install(problem)) is not None:
        raise BrickyardError(f"{place}: {hint}; that is no fault of the data") from problem


def extras_of(module: str, requirements: Sequence[str]) -> list[str]:
    """The extras that bring a module, in the order of the metadata; "" stands for what is always installed.

    Args:
        requirements: as in the metadata, such as `laspy[lazrs]<3,>=2.6; extra == "simulate"`.
    """
    wanted = _plain(OTHERWISE.get(module, module))
    found: dict[str, None] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match and wanted and f"{_plain(match[1])}-".startswith(f"{wanted}-"):  # spconv comes as spconv-cu120
            found[match[2] or ""] = None
    return [""] if "" in found else list(found)


def _plain(name: str) -> str:
    """A distribution's name as they are compared: lower case, all separators the same."""
    return re.sub(r"[-_.]+", "-", name).lower()
