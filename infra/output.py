"""What the command prints, without the credentials of the URIs it was given.

A key in `s3://key:secret@bucket` reaches texts on many ways: results name their corpus, errors quote a line of a recipe
or what a library said, a usage message repeats the command line. So the last step is common to all of them: both
streams pass through `shards.uri.scrub`, which knows every URI of the command line, of the recipe, and of every store
that was opened.
"""

from __future__ import annotations

import argparse
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from brickyard.shards.uri import Location, remember, scrub

_RECIPE_BYTES = 4 << 20
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class _Scrubbed:
    """A text stream whose writes are scrubbed; everything else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(scrub(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def without_credentials(words: Sequence[str]) -> Iterator[None]:
    """Scrub stdout and stderr; `words` is the command line. An unexpected error is printed scrubbed, too."""
    for word in words:
        remember(word)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Scrubbed(sys.stdout), _Scrubbed(sys.stderr)
    try:
        yield
    except Exception:
        text = traceback.format_exc()
        if scrub(text) == text:
            raise
        print(text, file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        sys.stdout, sys.stderr = before


def guard_arguments(args: argparse.Namespace) -> str | None:
    """URIs among the arguments become `Location`s, whose text hides credentials; those of the recipe are remembered.
    Returns what is wrong where a URI stands for something that has to be local."""
    for name, value in vars(args).items():
        if isinstance(value, str) and not isinstance(value, Location) and "://" in value:
            setattr(args, name, Location(value))
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and _URI.match(str(path)) and not path.exists():
                return f"{path} is a URI; here only a local path will do"
    recipe = getattr(args, "recipe", None)
    if isinstance(recipe, Path) and recipe.is_file():
        with recipe.open("rb") as file:
            remember(file.read(_RECIPE_BYTES).decode("utf-8", "replace"))
    return None
