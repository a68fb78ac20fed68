"""Image-to-lidar distillation in Lightning: Brickyard's objective and stream, Lightning's trainer.

    pip install lightning
    python docs/examples/lightning_distillation.py path/to/corpus path/to/run
    python docs/examples/lightning_distillation.py path/to/corpus path/to/run chosen.parquet

The second line trains on the scenes that `brickyard select corpus/ --split train --out chosen.parquet` chose.

The objective is an ordinary `nn.Module`, the stream an ordinary `IterableDataset`. A run that is resumed goes on with
the batch after the last one it trained on: each scene of an epoch is seen once, however often the run was stopped.
Lightning fetches a batch ahead, so what counts is not where the dataset stands but how many batches were trained on.
`num_workers` stays 0, because the stream's threads are faster.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from brickyard.shards.corpus import Corpus
from brickyard.shards.selection import read_selection
from brickyard.shards.storage import Store
from brickyard.train.data import StreamDataset
from brickyard.train.objectives.objective import ObjectiveConfig


class Distillation(lightning.LightningModule):
    """An objective of `train.objectives`; its student is what is kept."""

    def __init__(self, settings: ObjectiveConfig, lr: float = 1e-3) -> None:
        super().__init__()
        self.objective, self.lr = settings.build(), lr
        self.batches = 0

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        self.batches += 1
        loss = self.objective(batch)
        self.log("loss", loss.total, batch_size=len(batch.keys))
        return loss.total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Scenes(lightning.LightningDataModule):
    """Batches of a corpus for an objective, ready on its device."""

    def __init__(self, corpus: Corpus, model: Distillation, batch: int, **options: Any) -> None:
        super().__init__()
        self.model, self.batch = model, batch
        objective = model.objective
        self.options = {"prepare": objective.prepare, "choose": objective.choose, "collate": self._collate, **options}
        self.corpus = corpus

    def _collate(self, items: list[Any]) -> Any:
        return self.model.objective.collate(items, self.model.device)

    def train_dataloader(self) -> DataLoader[Any]:
        """Made when torch.distributed runs, so that every rank gets its share."""
        dataset = StreamDataset(self.corpus, self.model.objective.fields, batch=self.batch, **self.options)
        dataset.load_state_dict(dataset.state_after(self.model.batches))
        return DataLoader(dataset, batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, number: int) -> Any:
        return batch  # `_collate` has put it there

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.model.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.batches = state["batches"]


def main(
    corpus: str, out: str, settings: ObjectiveConfig, *, selection: str | None = None, batch: int = 4, steps: int = 100
) -> Distillation:
    """Train for so many steps, going on from `out`/last.ckpt if it is there; returns the trained module.

    Args:
        selection: file written by `brickyard select`; all scenes without one.
    """
    model = Distillation(settings)
    scenes = Corpus.open(corpus)
    rows = None
    if selection is not None:
        chosen = Path(selection).resolve()
        rows = read_selection(Store(chosen.parent), chosen.name).rows(scenes, seed=0)
    data = Scenes(scenes, model, batch, rows=rows)
    last = Path(out) / "last.ckpt"
    trainer = lightning.Trainer(max_steps=steps, accelerator="auto", logger=False, default_root_dir=out)
    trainer.fit(model, datamodule=data, ckpt_path=str(last) if last.exists() else None)
    trainer.save_checkpoint(last)
    return model


if __name__ == "__main__":
    from brickyard.train.objectives import SLidR

    main(sys.argv[1], sys.argv[2], SLidR(), selection=sys.argv[3] if len(sys.argv) > 3 else None)
