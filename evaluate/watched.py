"""A protocol that is asked now and then while a network trains: cheap, on the same few scenes every time.

    measured = Watched(every=500, network="teacher", chosen=choose("knn", ProbeConfig(...)))
    train(config, settings, corpus, out, watch=measured.watch(corpus))

Its numbers are in the log of the run as "watch_miou" and so on, and the checkpoint with the best one is kept (see
`train.running.watching`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from brickyard.evaluate.protocols.registry import Chosen
from brickyard.evaluate.splits import DataConfig, split_rows
from brickyard.evaluate.subject import Subject
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.running.watching import Watch
from brickyard.train.students.base import Exported


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What is asked, when, and of which network.

    Attributes:
        every: steps.
        network: which of the objective's, see `train.objectives.objective.Objective.networks`.
        chosen: the protocol and its settings.
        train_scenes, val_scenes: at most so many scenes, unless the settings say `fraction` or `val_scenes`.
    """

    every: int
    network: str
    chosen: Chosen
    train_scenes: int = 20
    val_scenes: int = 10

    def watch(self, corpus: Corpus) -> Watch:
        """For the loop; raises `RecipeError` where the corpus has no such scenes, or no number says what is better."""
        protocol, config = self.chosen.protocol, self._small(corpus)
        better = [column for column in protocol.columns if not column.less_is_better]
        if not better:
            raise RecipeError(
                f"watch.protocol {self.chosen.name!r} has no number of which more is better; take another"
            )

        def measure(network: Exported) -> Mapping[str, float]:
            protocol.check(self.chosen.name, network)
            metrics = protocol.run(Subject(network, corpus), config).metrics
            found = {column.metric: metrics.get(column.metric) for column in protocol.columns}
            return {name: float(value) for name, value in found.items() if value is not None}

        return Watch(every=self.every, network=self.network, measure=measure, score=better[0].metric)

    def _small(self, corpus: Corpus) -> Any:
        """The protocol's settings with the sizes of the subset."""
        config = self.chosen.config
        if config.val_scenes is None:
            config = replace(config, val_scenes=self.val_scenes)
        split_rows(corpus, config, config.val_split)
        if isinstance(config, DataConfig):
            there = len(split_rows(corpus, config, config.train_split))
            if config.fraction is None and config.scene_list is None and there > self.train_scenes:
                config = replace(config, fraction=self.train_scenes / there, every=None)
        return config
