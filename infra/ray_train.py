"""Training on a Ray cluster: the same `train.loop.train`, run by Ray Train's workers instead of torchrun's processes.

Ray Train starts the workers where the cluster has room, joins them to one group and starts all of them again when one
is lost; the run then goes on from its newest checkpoint, as it does by hand. A training that cannot be gone on from
(such as a loss that is not finite) is not tried again. All workers must see the folder of the run and the corpus.

On one machine `torchrun --nproc-per-node 8 -m brickyard.infra.cli train ...` does the same without Ray.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.watched import Watched
from brickyard.infra.ray_cluster import cluster
from brickyard.shards.cache import CacheConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError
from brickyard.shards.visits import Portion
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives.objective import ObjectiveConfig
from brickyard.train.running.guards import Stopped
from brickyard.train.running.records import read_summary

RESTARTS = 3
_FAILED = "failed.txt"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A corpus of a training: `shards.visits.Portion`, where the corpus has to be opened.

    Attributes:
        corpus: folder or URI.
        fingerprint: of the corpus; it may have grown since.
        rows: of its index to train on, None for those the configuration chooses.
        weight: share of the visits.
    """

    corpus: str
    fingerprint: str
    rows: NDArray[np.int64] | None = None
    weight: float = 1.0

    @classmethod
    def of(cls, portion: Portion) -> Part:
        corpus = portion.corpus
        return cls(corpus=corpus.store.uri, fingerprint=corpus.fingerprint, rows=portion.rows, weight=portion.weight)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a worker needs to know.

    Attributes:
        parts: what is trained on. cache: of what is read from it.
        out: folder of the run, absolute.
        continue_with: see `train.loop.train`.
        watched: what is measured while training goes on, on the first part's corpus.
    """

    config: TrainConfig
    settings: ObjectiveConfig
    parts: tuple[Part, ...]
    out: str
    cache: CacheConfig | None = None
    continue_with: str | None = None
    watched: Watched | None = None

    def portions(self) -> list[Portion]:
        """The parts, opened."""
        corpora = [Corpus.open(part.corpus, cache=self.cache).as_it_was(part.fingerprint) for part in self.parts]
        return [Portion(corpus=c, rows=p.rows, weight=p.weight) for c, p in zip(corpora, self.parts, strict=True)]


def train_on_ray(training: Training, *, workers: int, address: str | None = None) -> dict[str, Any]:
    """Train with so many workers; returns the summary.

    Args:
        address: of a running cluster; a local one is started otherwise. There is one GPU for each worker where the
            cluster has them and the configuration does not say "cpu".

    Raises:
        BrickyardError: as `train.loop.train`, or workers kept getting lost.
    """
    with cluster(workers + 1, address) as ray:  # one more for Ray Train's controller
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        out = Path(training.out)
        state = out / "ray"
        (state / _FAILED).unlink(missing_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        gpus = training.config.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= workers
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"training": training},
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
            run_config=RunConfig(
                name="train", storage_path=str(state), failure_config=FailureConfig(max_failures=RESTARTS)
            ),
        )
        print(f"{workers} workers train; `brickyard runs {out}` says how far they are", file=sys.stderr, flush=True)
        _fit(trainer, state)
        shutil.rmtree(state, ignore_errors=True)
    summary = read_summary(out)
    if summary is None:
        raise BrickyardError(f"the workers ended without a summary in {out}; run the same command again")
    return summary


def _fit(trainer: Any, state: Path) -> None:
    failed = state / _FAILED
    try:
        trainer.fit()
    except Exception as problem:  # Ray wraps what a worker raised in types of its own
        if not failed.exists():
            raise BrickyardError(f"Ray Train gave up after {RESTARTS} restarts: {problem}") from problem
    if failed.exists():
        raise BrickyardError(failed.read_text())


def _worker(table: dict[str, Any]) -> None:
    """Runs on every worker, in the process group that Ray Train has joined."""
    training: Training = table["training"]
    failed = Path(training.out) / "ray" / _FAILED
    if failed.exists():
        raise RuntimeError("it failed already, and would fail again")
    config = training.config
    if config.device != "cpu":
        from ray.train.torch import get_device

        config = dataclasses.replace(config, device=str(get_device()))
    try:
        portions = training.portions()
        watch = training.watched.watch(portions[0].corpus) if training.watched else None
        train(config, training.settings, portions, training.out, continue_with=training.continue_with, watch=watch)
    except Stopped as problem:  # on all workers, so nobody waits for this one
        failed.write_text(str(problem))
    except BrickyardError as problem:
        failed.write_text(str(problem))
        raise
