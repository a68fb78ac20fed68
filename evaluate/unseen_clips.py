"""Clips that a network has never seen, cut into inputs and targets the same way on every machine.

Of a clip's frames, a window is taken where a digest of the clip's key says, and of the window its first frame, its last
and others evenly between them, in the order of time. Which of them are inputs is "even", spread evenly from the first
to the last, or "random", by the same digest: then a target can lie at an end, where no input is behind it. A clip that
will not do (too short, lenses that bend rays, no poses where they are needed) is left out, and remembered with the
reason.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch
import xxhash

from brickyard.evaluate.splits import SceneConfig, val_rows
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError, UnfitSceneError
from brickyard.shards.stream import Stream
from brickyard.train.models.view_network import Given, Look, ViewNetwork
from brickyard.train.objectives.clips import Clip, ClipBatch, Draw, join_clips, read_clip, usable_frames

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Sample

Views = Literal["even", "random"]
Timed: TypeAlias = "tuple[Clip, tuple[int, ...], Any]"


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(SceneConfig):
    """Which views of the clips.

    Attributes:
        inputs, targets: views that the scene is made of, and views that are rendered.
        window: frames from the first view to the last.
        split: which views are inputs, see the module's text.
        windows: of each clip.
        posed: take only frames whose camera is known, so that networks that need it and others see the same.
    """

    inputs: int = 16
    targets: int = 8
    window: int = 96
    split: Views = "even"
    windows: int = 1
    posed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.inputs, self.targets, self.windows) < 1:
            raise ValueError("inputs, targets and windows must be positive")
        if self.window < self.views:
            raise ValueError(f"a window must hold {self.views} views, found {self.window} frames")
        if self.split not in get_args(Views):
            raise ValueError('split is "even" or "random"')

    @property
    def views(self) -> int:
        return self.inputs + self.targets


@dataclass(frozen=True, kw_only=True)
class UnseenClip:
    """A clip on its way to a network, alone in its batch.

    Attributes:
        sequence: that it was cut from. times: frames of the views, counted from the window's first.
        beside: what was asked for beside the images.
    """

    key: str
    sequence: str
    times: tuple[int, ...]
    batch: ClipBatch
    inputs: int
    beside: Any = None

    @property
    def given(self) -> Given | None:
        """The true cameras, where they are known."""
        poses, intrinsics = self.batch.poses, self.batch.intrinsics
        return None if poses is None or intrinsics is None else (poses, intrinsics)

    @property
    def real(self) -> torch.Tensor:
        """The targets as they are, (T, 3, size, size)."""
        return self.batch.images[0, self.inputs :]

    def look(self, network: ViewNetwork) -> Look:
        """What a network makes of it."""
        return network.look(self.batch.images, self.inputs, self.batch.number, self.given)


class UnseenClips:
    """The clips of the validation split; iterating reads them.

    Args:
        posed: whether cameras are needed.
        what: asks, for messages.
        fields: that are read beside the images, and what `beside` makes of them and of the views of a window.

    Attributes:
        left_out: key -> why, of the clips that would not do, once they were met.
    """

    def __init__(
        self, corpus: Corpus, network: ViewNetwork, config: ClipsConfig, *, posed: bool, what: str,
        fields: tuple[str, ...] = (), beside: Callable[[Sample, Draw], Any] = lambda sample, drawn: None,
    ) -> None:  # fmt: skip
        self._fields, self._beside = fields, beside
        self._corpus, self._config, self._what = corpus, config, what
        self._size, self._device = int(network.config.size), network.device
        self._posed = posed or config.posed or network.posed
        self.left_out: dict[str, str] = {}

    def __iter__(self) -> Iterator[UnseenClip]:
        """The clips in the order of the corpus, the windows of each one after another.

        Raises:
            RecipeError: no clip will do.
        """
        rows, found = val_rows(self._corpus, self._config), 0
        sequences = self._corpus.index.column("sequence").to_pylist()
        stream = Stream(
            self._corpus,
            ("views/*/image", *self._fields),
            batch=1,
            rows=rows,
            threads=self._config.threads,
            prepare=self._prepare,
            epochs=1,
            shuffle=False,
        )
        for items in stream:
            for key, read in items:
                if isinstance(read, str):
                    self.left_out[key] = read
                    continue
                for clip, times, beside in read:
                    found += 1
                    batch = join_clips([clip], self._size, self._device)
                    sequence = sequences[self._corpus.row(key)]
                    yield UnseenClip(
                        key=key, sequence=sequence, times=times, batch=batch, inputs=self._config.inputs, beside=beside
                    )  # fmt: skip
        self._tell()
        if not found:
            raise RecipeError(
                f"none of the {len(rows)} clips of split {self._config.val_split!r} will do for {self._what}:"
                f" {self._reasons()[0][0]}"
            )

    def _prepare(self, sample: Sample, rng: np.random.Generator) -> tuple[str, str | list[Timed]]:
        del rng
        try:
            clips = []
            for number in range(self._config.windows):
                drawn, times = views_of(sample.header, sample.key, self._config, number, posed=self._posed)
                clip = read_clip(sample, drawn, self._size, posed=self._posed)
                clips.append((clip, times, self._beside(sample, drawn)))
        except UnfitSceneError as problem:
            return sample.key, str(problem)
        return sample.key, clips

    def _reasons(self) -> list[tuple[str, int]]:
        return Counter(self.left_out.values()).most_common()

    def _tell(self) -> None:
        for reason, count in self._reasons()[:5]:
            first = next(key for key, why in self.left_out.items() if why == reason)
            print(f"{self._what}: {count} clips left out, such as {first}: {reason}", file=sys.stderr, flush=True)

    @property
    def list_of_left_out(self) -> bytes:
        """A line for each, to be kept beside the results."""
        return "".join(f"{key}: {reason}\n" for key, reason in sorted(self.left_out.items())).encode()


def views_of(
    header: SceneHeader, key: str, config: ClipsConfig, number: int, *, posed: bool
) -> tuple[Draw, tuple[int, ...]]:
    """(the views of a window, those of the inputs first; the frame of each, counted from the window's first).

    Args:
        number: of the window, 0 to `config.windows` - 1.

    Raises:
        UnfitSceneError: the clip has no such window.
    """
    usable = usable_frames(header, posed=posed)
    if len(usable) < config.window:
        what = "frames with a known pose" if posed else "frames"
        raise UnfitSceneError(f"the clip has {len(usable)} {what}, the window {config.window}")
    rng = np.random.default_rng(xxhash.xxh3_64_intdigest(f"{key} {number}".encode()))
    start = int(rng.integers(len(usable) - config.window + 1))
    places = np.linspace(0, config.window - 1, config.views).round().astype(np.int64)
    if config.split == "even":
        chosen = np.linspace(0, config.views - 1, config.inputs).round().astype(np.int64)
    else:
        chosen = rng.permutation(config.views)[: config.inputs]
    inputs = np.isin(np.arange(config.views), chosen)
    order = np.concatenate((np.flatnonzero(inputs), np.flatnonzero(~inputs)))
    times = tuple(int(place) for place in places[order])
    frames = tuple(usable[start + time] for time in times)
    return Draw(frames=frames, number=order, inputs=config.inputs), times
