"""Errors are for people: each names the dataset, scene, file and place, what was expected, and what to do next."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def without_addresses(text: str) -> str:
    """The text without addresses in memory, as libraries print them: reasons are stored, and must be the same in every
    build."""
    return _ADDRESS.sub("", text)


class BrickyardError(Exception):
    """Base of every error this project raises on purpose; its text is shown to the user as it is."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_addresses(arg) if isinstance(arg, str) else arg for arg in args))


NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError)
"""What parsing raises when bytes say something impossible; turned into an error that names the place."""


class RecipeError(BrickyardError):
    """A recipe (YAML) that cannot be used: unknown key, wrong type, impossible value."""


class CorpusError(BrickyardError):
    """A corpus that cannot be opened, or a build that may not be continued."""


class SceneError(BrickyardError):
    """A Scene that breaks the contract of `shards.scene` (shape, dtype, range, frame)."""


class UnfitSceneError(BrickyardError):
    """A scene that is whole but does not do for what it was read for, such as a clip that is too short. A `choose` or
    `prepare` raises it, and the stream takes another scene and counts it; its text names no scene, the stream does."""


class ImageError(BrickyardError):
    """Bytes that are no whole JPEG or PNG; `offset` is the place among them where that shows."""

    def __init__(self, problem: str, offset: int) -> None:
        super().__init__(problem)
        self.offset = offset

    def __reduce__(self) -> tuple[object, ...]:
        return (ImageError, (str(self), self.offset))


class RawDataError(BrickyardError):
    """Raw input that cannot become a Scene. The build quarantines the scene with this text and goes on.

    Args:
        problem: what was found and what was expected, in one sentence.
        dataset: dataset name, such as "kitti".
        path: the offending file, relative to the dataset's root where possible.
        scene: scene id, if known.
        offset: byte offset in the file, if the file is binary.
        line: line number (from 1), if the file is text.
        hint: what the user can do next.
    """

    def __init__(
        self,
        problem: str,
        *,
        dataset: str,
        path: str,
        scene: str | None = None,
        offset: int | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem, self.dataset, self.path = problem, dataset, path
        self.scene, self.offset, self.line, self.hint = scene, offset, line, hint
        place = path
        if offset is not None:
            place += f" at byte {offset}"
        if line is not None:
            place += f" line {line}"
        subject = f"{dataset} scene {scene}" if scene else dataset
        super().__init__(f"{subject}: {place}: {problem}" + (f" ({hint})" if hint else ""))

    def __reduce__(self) -> tuple[object, ...]:
        fields = dict(vars(self))
        return (_rebuild_raw_data_error, (fields.pop("problem"), fields))


def _rebuild_raw_data_error(problem: str, fields: dict[str, object]) -> RawDataError:
    return RawDataError(problem, **fields)  # type: ignore[arg-type]


class CorruptDataError(BrickyardError):
    """Stored bytes that are not the bytes that were written.

    Args:
        problem: what was found and what was expected.
        shard: shard file, relative to the corpus.
        scene: scene id.
        field: field of the scene, such as "points/xyz".
    """

    def __init__(self, problem: str, *, shard: str, scene: str | None = None, field: str | None = None) -> None:
        self.problem, self.shard, self.scene, self.field = problem, shard, scene, field
        subject = f"shard {shard}" + (f", scene {scene}" if scene else "") + (f", field {field}" if field else "")
        super().__init__(f"{subject}: {problem}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_corrupt_data_error, (self.problem, self.shard, self.scene, self.field))


def _rebuild_corrupt_data_error(problem: str, shard: str, scene: str | None, field: str | None) -> CorruptDataError:
    return CorruptDataError(problem, shard=shard, scene=scene, field=field)
