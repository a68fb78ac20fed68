"""Which corpora a training reads, and how much of each: the recipe's `train.corpora`, or the command line's instead.

    --corpus rooms/ --corpus streets/=0.5 --selection chosen.parquet

A selection knows which corpus it was made over, so the order of the options is of no matter.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brickyard.infra.recipe import absolute_root
from brickyard.shards.cache import CacheConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError, RecipeError
from brickyard.shards.selection import Selection, read_selection
from brickyard.shards.storage import Store
from brickyard.shards.uri import Location
from brickyard.shards.visits import Portion
from brickyard.train.loop import TrainConfig, portions_of

_WEIGHTED = re.compile(r"(?P<root>.+)=(?P<weight>\d+(?:\.\d*)?(?:e-?\d+)?)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """A corpus to train on.

    Attributes:
        root: folder or URI; `${NAME}` in it is a variable of the environment.
        weight: its share of the visits, relative to the weights of the others.
        dataset, split: train on these of its scenes only; null takes what `train` says.
        selection: file that `brickyard select` wrote for it, instead of `dataset` and `split`.
    """

    root: str
    weight: float = 1.0
    dataset: str | None = None
    split: str | None = None
    selection: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight must be positive and finite, found {self.weight}")
        if self.selection is not None and (self.dataset or self.split):
            raise ValueError("a selection says which scenes: leave out dataset and split")
        if self.selection is not None and "://" in self.selection:
            raise ValueError("selection must be a local file")

    def located(self, folder: Path) -> CorpusConfig:
        """The same with absolute places, relative ones from `folder` on; a `Location` hides a URI's credentials."""
        selection = None if self.selection is None else absolute_root(self.selection, folder)
        return dataclasses.replace(self, root=absolute_root(self.root, folder), selection=selection)


def from_arguments(corpora: Sequence[str]) -> tuple[CorpusConfig, ...]:
    """Those of `--corpus`: a folder or URI, with "=WEIGHT" behind it where it has one. What is there under the whole
    name is a folder without a weight, and what stands in the query of a URI belongs to that."""
    return tuple(_from_argument(text).located(Path.cwd()) for text in corpora)


def _from_argument(text: str) -> CorpusConfig:
    text = text.whole if isinstance(text, Location) else text
    found = _WEIGHTED.fullmatch(text)
    if found is None or "?" in text or ("://" not in text and Path(text).expanduser().exists()):
        return CorpusConfig(root=text)
    try:
        return CorpusConfig(root=found["root"], weight=float(found["weight"]))
    except ValueError as problem:
        raise RecipeError(f"--corpus {Location(text) if '://' in text else text}: {problem}") from problem


def open_portions(
    corpora: Sequence[CorpusConfig],
    selections: Sequence[Path],
    config: TrainConfig,
    cache: CacheConfig | None,
    begun: Sequence[str] = (),
) -> tuple[tuple[CorpusConfig, ...], tuple[Portion, ...]]:
    """(corpora as they are used, what is trained on of each).

    Args:
        corpora: with absolute places.
        selections: of the command line; each replaces what the corpus that it was made over has.
        begun: fingerprints of the corpora of a run that is gone on with. Where one has grown since, the run goes on
            with the scenes of then.

    Raises:
        RecipeError: no corpus, or two selections of one; as `portions_of`.
        CorpusError: a selection of none of the corpora; as `Corpus.open` and `Selection.rows`.
    """
    if not corpora:
        raise RecipeError("nothing to train on: give --corpus FOLDER, or list `train.corpora` in the recipe")
    opened = [Corpus.open(entry.root, cache=cache) for entry in corpora]
    if len(begun) == len(opened):
        opened = [one.as_it_was(then) if one.known_as(then) else one for one, then in zip(opened, begun, strict=True)]
    chosen: dict[int, str] = {}
    for path in selections:
        place = str(path.resolve())
        made_over = _read(place).corpus
        numbers = [n for n, corpus in enumerate(opened) if corpus.known_as(made_over)]
        if not numbers:
            there = ", ".join(f"{corpus.store.uri} is {corpus.manifest['digest']}" for corpus in opened)
            raise CorpusError(f"{path}: the selection was made over the corpus {made_over}, {there}: select again")
        if len(numbers) > 1 or numbers[0] in chosen:
            raise RecipeError(f"{path}: there is another selection, or another corpus, that is the same: list the"
                              " corpora in the recipe, `train.corpora`, with the selection of each")  # fmt: skip
        chosen[numbers[0]] = place
    used = [
        dataclasses.replace(entry, selection=chosen[n], dataset=None, split=None) if n in chosen else entry
        for n, entry in enumerate(corpora)
    ]
    portions = tuple(_portion(entry, corpus, config) for entry, corpus in zip(used, opened, strict=True))
    return tuple(used), portions_of(config, portions)


def _portion(entry: CorpusConfig, corpus: Corpus, config: TrainConfig) -> Portion:
    if entry.selection is not None:
        rows = _read(entry.selection).rows(corpus, config.seed)
        return Portion(corpus=corpus, rows=rows, weight=entry.weight)
    own = dataclasses.replace(config, dataset=entry.dataset or config.dataset, split=entry.split or config.split)
    (portion,) = portions_of(own, corpus)
    return dataclasses.replace(portion, weight=entry.weight)


def _read(place: str) -> Selection:
    folder, _, name = place.rpartition("/")
    return read_selection(Store(folder or "/"), name)
