"""Which scenes a protocol trains and scores on, and which of their points may be looked at: data-efficient splits.

A share of the training scenes, or a few labelled points in each, as in the data-efficient benchmark of ScanNet (Hou et
al., CVPR 2021, arXiv 2012.09165): 1, 5, 10, 20 % of the scenes; 20, 50, 100, 200 points a scene. The official choices
are files that only the user can have; they are named in the recipe. Without them the choice is drawn: a scene's place
in the order is a digest of its key and `draw_seed`, so it stays the same on every machine, 1 % of the scenes are among
the 5 %, 20 points among the 50, and adding scenes to a corpus moves few others. Results say which of the two it was.

The image-to-lidar publications have rules instead of lists (read from SLidR's code): of nuScenes, whole drives, every
100th in the order of the dataset's table, counted from the hundredth; of SemanticKITTI, every 100th scan of the sorted
list, counted from the first. A corpus keeps the order of its dataset, so the rules are followed on its rows.

A list of scenes is a text file, one scene a line: a scene's id, its whole key, or its sequence. A list of points is a
folder with `<scene id>.npy` (integers) or `.txt` (numbers), or one text file of lines "<scene id> number number ...",
or a file of the official lists (see `evaluate.official_lists`); the numbers count the points of the raw scan from 0,
which is the order of the corpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from brickyard.evaluate.official_lists import WHERE, is_saved, read_saved
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy

_MAX_LIST_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What every protocol is told: the scenes that it scores.

    Attributes:
        dataset: evaluate on this dataset of the corpus only.
        val_split: of the corpus; its scenes are scored.
        val_scenes: only so many of them, drawn as a share of the training scenes is; None scores all.
        threads: of the stream.
    """

    dataset: str | None = None
    val_split: str = "val"
    val_scenes: int | None = field(default=None, metadata={"before": None})
    threads: int = 2

    def __post_init__(self) -> None:
        if self.threads < 1 or (self.val_scenes is not None and self.val_scenes < 1):
            raise ValueError("threads and val_scenes must be positive")

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers beside the settings themselves; JSON, for the fingerprint."""
        return {}

    def reduced(self, *, fraction: float | None = None, points: int | None = None) -> Self:
        """The same on a share of the training scenes, or on so many labelled points in each."""
        raise RecipeError("a protocol that trains nothing has no data-efficient split: leave out what follows the @")


@dataclass(frozen=True, kw_only=True)
class DataConfig(SceneConfig):
    """What protocols with training scenes are told.

    Attributes:
        taxonomy: of the labels, such as "nuscenes16".
        train_split: of the corpus.
        fraction: share of the training scenes that is used, at least one scene.
        every: how that share is chosen: None draws scenes; "sequence" takes every n-th sequence whole, in the order of
            the corpus and from the n-th on; "scene" every n-th scene from the first on. 1 % has n = 100.
        scene_list: file with the training scenes, instead of a drawn share (`fraction` then only says which share the
            list is).
        points_per_scene: of the training scenes, only so many points keep their labels.
        points_list: file or folder with those points, instead of drawn ones (`points_per_scene` then only says how
            many they are).
        draw_seed: of what is drawn.
    """

    taxonomy: str = "nuscenes16"
    train_split: str = "train"
    fraction: float | None = None
    every: Literal["sequence", "scene"] | None = field(default=None, metadata={"before": None})
    scene_list: Path | None = None
    points_per_scene: int | None = None
    points_list: Path | None = None
    draw_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError("fraction must be in (0, 1]")
        if self.every is not None and self.fraction is not None and abs(1 / self.fraction - self.stride) > 1e-6:
            raise ValueError(f"every n-th {self.every}: fraction must be 1 / n, found {self.fraction}")
        if self.points_per_scene is not None and self.points_per_scene < 1:
            raise ValueError("points_per_scene must be positive")

    @property
    def identity(self) -> dict[str, Any]:
        labels = taxonomy(self.taxonomy)
        return {"taxonomy": [labels.name, labels.version, list(labels.classes)]}

    def reduced(self, *, fraction: float | None = None, points: int | None = None) -> Self:
        if fraction is not None:
            return replace(self, fraction=fraction)
        return replace(self, points_per_scene=points)

    @property
    def stride(self) -> int:
        """The n of `every`."""
        return 1 if self.fraction is None else round(1 / self.fraction)

    @property
    def choice(self) -> str:
        """In words, what of the training data is used and who chose it."""
        words = []
        if self.scene_list is not None:
            words.append(f"scenes of {self.scene_list.name}")
        elif self.fraction is not None and self.every is not None:
            words.append(f"{100 * self.fraction:g} % of the scenes, every {self.stride}th {self.every}")
        elif self.fraction is not None:
            words.append(f"{100 * self.fraction:g} % of the scenes, drawn by seed {self.draw_seed}")
        if self.points_list is not None:
            words.append(f"labelled points of {self.points_list.name}")
        elif self.points_per_scene is not None:
            words.append(f"{self.points_per_scene} labelled points a scene, drawn by seed {self.draw_seed}")
        return "; ".join(words) or "all"


def split_rows(corpus: Corpus, config: SceneConfig, split: str) -> NDArray[np.int64]:
    """All rows of a split; raises `RecipeError` where there is none."""
    rows = corpus.select(split=split, dataset=config.dataset)
    if not len(rows):
        raise RecipeError(f"the corpus has no scene of split {split!r} and dataset {config.dataset!r} to probe")
    return rows


def val_rows(corpus: Corpus, config: SceneConfig) -> NDArray[np.int64]:
    """The rows that are scored, ascending; raises `RecipeError` where there is none."""
    rows = split_rows(corpus, config, config.val_split)
    return rows if config.val_scenes is None else _drawn(corpus, rows, config.val_scenes, seed=0)


def train_rows(corpus: Corpus, config: DataConfig) -> NDArray[np.int64]:
    """The training rows, ascending, after the choice of scenes.

    Raises:
        RecipeError: no scenes; a list that cannot be read, or names none of them; fewer sequences than every n-th.
    """
    rows = split_rows(corpus, config, config.train_split)
    if config.scene_list is not None:
        return _listed(corpus, rows, config.scene_list)
    if config.fraction is None:
        return rows
    if config.every == "scene":
        return rows[:: config.stride]
    if config.every == "sequence":
        return _sequences(corpus, rows, config.stride)
    return _drawn(corpus, rows, max(1, round(config.fraction * len(rows))), seed=config.draw_seed)


def shuffled_rows(corpus: Corpus, config: DataConfig, seed: int = 0) -> NDArray[np.int64]:
    """The training rows in a random order; by default in one that protocols share, and with it what they encode."""
    return np.random.default_rng(seed).permutation(train_rows(corpus, config))


def _drawn(corpus: Corpus, rows: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    place = np.array([_digest(seed, corpus.keys[row]) for row in rows.tolist()], np.uint64)
    return np.sort(rows[np.argsort(place, kind="stable")[:count]])


def _sequences(corpus: Corpus, rows: NDArray[np.int64], stride: int) -> NDArray[np.int64]:
    """The rows of every `stride`-th sequence, from that one on."""
    names = corpus.index.column("sequence").to_pylist()
    number = {name: place for place, name in enumerate(dict.fromkeys(names[row] for row in rows.tolist()), 1)}
    chosen = [row for row in rows.tolist() if number[names[row]] % stride == 0]
    if not chosen:
        raise RecipeError(
            f"every {stride}th sequence of {len(number)} is none: take a larger share, such as"
            f" @{100 / len(number):.3g}%, or build the whole training split"
        )
    return np.array(chosen, np.int64)


def _listed(corpus: Corpus, rows: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
    wanted = {line.strip() for line in _read_text(path).splitlines() if line.strip()}
    scene_ids, sequences = (corpus.index.column(name).to_pylist() for name in ("scene_id", "sequence"))
    names = {row: {corpus.keys[row], scene_ids[row], sequences[row]} for row in rows.tolist()}
    chosen = [row for row in rows.tolist() if names[row] & wanted]
    missing = sorted(wanted - set().union(*names.values()))
    if missing:
        raise RecipeError(
            f"{path}: {len(missing)} of its {len(wanted)} scenes are not in the training split, {missing[0]!r} first;"
            " build them, or take them out of the list"
        )
    return np.array(chosen, np.int64)


class LabelledPoints:
    """Which points of a training scene keep their labels; all, unless the config says otherwise."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._lines: Mapping[str, NDArray[np.int64]] | None = None
        if config.points_list is not None and not config.points_list.is_dir():
            path = config.points_list
            self._lines = read_saved(path) if path.is_file() and is_saved(path) else _read_lines(path)

    @property
    def few(self) -> bool:
        """Whether labels are taken away."""
        return self._config.points_list is not None or self._config.points_per_scene is not None

    def keep(self, key: str, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels (N,) of the scene `key`, with UNLABELLED for all points but the chosen ones."""
        if not self.few:
            return labels
        if self._config.points_list is not None:
            chosen = self._listed(key)
            if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(labels):
                raise RecipeError(
                    f"{self._config.points_list}: scene {key} has {len(labels)} points, but the list names"
                    f" {chosen.min()}..{chosen.max()}: it belongs to another version of the scan"
                )
        else:
            assert self._config.points_per_scene is not None
            known = np.flatnonzero(labels != UNLABELLED)
            order = np.random.default_rng(_digest(self._config.draw_seed, key)).permutation(known)
            chosen = order[: self._config.points_per_scene]
        result = np.full_like(labels, UNLABELLED)
        result[chosen] = labels[chosen]
        return result

    def _listed(self, key: str) -> NDArray[np.int64]:
        path, scene = self._config.points_list, key.rpartition("/")[2]
        assert path is not None
        if self._lines is not None:
            if scene not in self._lines:
                raise RecipeError(f"{path} has no line for scene {scene!r}")
            return self._lines[scene]
        for file, read in ((path / f"{scene}.npy", _read_npy), (path / f"{scene}.txt", _read_numbers)):
            if file.is_file():
                return read(file)
        raise RecipeError(f"{path} has neither {scene}.npy nor {scene}.txt")


def _digest(seed: int, key: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed} {key}".encode())


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise RecipeError(f"{path} has more than {_MAX_LIST_BYTES >> 20} MiB, which no list of scenes has")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as problem:
        raise RecipeError(f"{path} cannot be read, it is not there; {WHERE}") from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise RecipeError(f"{path} cannot be read as a list: {problem}") from problem


def _integers(words: list[str], where: str) -> NDArray[np.int64]:
    try:
        return np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as problem:
        raise RecipeError(f"{where}: expected numbers of points: {problem}") from problem


def _read_lines(path: Path) -> dict[str, NDArray[np.int64]]:
    lines = [line.split() for line in _read_text(path).splitlines()]
    return {words[0]: _integers(words[1:], f"{path} line {number}") for number, words in enumerate(lines, 1) if words}


def _read_numbers(path: Path) -> NDArray[np.int64]:
    return _integers(_read_text(path).split(), str(path))


def _read_npy(path: Path) -> NDArray[np.int64]:
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise RecipeError(f"{path} has more than {_MAX_LIST_BYTES >> 20} MiB, which no list of points has")
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise RecipeError(f"{path} cannot be read as an array: {problem}") from problem
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise RecipeError(f"{path} holds {array.dtype} of shape {array.shape}; expected a row of integers")
    return array.astype(np.int64)
