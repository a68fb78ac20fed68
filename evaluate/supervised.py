"""Training of a classifier on labelled scenes, and its score on every raw point of the validation scenes.

It is a training like any other: `train.loop` makes the steps, on one device or under torchrun, writes checkpoints and
the curves, keeps the best, and goes on where it was stopped. Its folder is a run's folder, so `brickyard show` and
`brickyard runs` read it. The published settings (see `evaluate.protocols.segmentation`) run the network at every step,
frozen or not, because augmentation changes its input; that takes a GPU and hours.

The score is per point, by fragments (`evaluate.fragments`); ranks share the scenes, and their counts are added up.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from brickyard.evaluate.features import frozen
from brickyard.evaluate.fragments import PLAIN, VARIANTS, Variant, predict
from brickyard.evaluate.labels import label_field
from brickyard.evaluate.metrics import confusion_matrix, mean_iou
from brickyard.evaluate.scores import ClassScores, score
from brickyard.evaluate.segment import Segment, SupervisedConfig, reader
from brickyard.evaluate.segmenter import Segmenter, adapted
from brickyard.evaluate.splits import DataConfig, LabelledPoints, train_rows, val_rows
from brickyard.evaluate.weights import weights_digest
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.shards.taxonomy import taxonomy
from brickyard.train.loop import TrainConfig, train
from brickyard.train.running.distributed import Group
from brickyard.train.running.records import SUMMARY
from brickyard.train.running.watching import Watch
from brickyard.train.students.base import Exported, Student
from brickyard.train.students.export import load_exported

_CHECKPOINT_EVERY = 500


def supervised(student: Student, corpus: Corpus, config: SupervisedConfig, folder: Path | None = None) -> ClassScores:
    """Train on a copy of the student, then score; the student is not changed.

    Args:
        folder: of the training, which all ranks see; one that holds this very training goes on from there, or is
            scored at once where it is over. None trains in a temporary one.

    Raises:
        RecipeError: scenes without labels, an impossible combination, a folder of something else.
        Interrupted: somebody asked to stop; the same call goes on.
        BrickyardError: the loss is not finite; the message names the scenes.
    """
    rows, held_out = train_rows(corpus, config), val_rows(corpus, config)
    with Group.join(str(student.device)) as group:
        model = trained(student, corpus, config, folder)
        mine = held_out[group.rank :: group.world]
        confusion = confusions(
            model, corpus, config, mine, variants=VARIANTS[config.test_variants], most_turns=config.most_turns
        )
        shared = group.share({"confusion": confusion.tolist()})
    total = np.sum([np.array(rank["confusion"], np.int64) for rank in shared], axis=0)
    return score(total, taxonomy(config.taxonomy).classes, (len(rows), len(held_out)))


def confusions(
    model: Segmenter,
    corpus: Corpus,
    config: SupervisedConfig,
    rows: NDArray[np.int64],
    *,
    variants: Sequence[Variant],
    most_turns: int,
) -> NDArray[np.int64]:
    """int64 (classes, classes), truth by row: of every raw point of the scenes."""
    classes = len(model.config.classes)
    confusion = np.zeros((classes, classes), np.int64)
    if not len(rows):
        return confusion
    stream = Stream(
        corpus,
        (*model.student.fields, label_field(config.taxonomy)),
        batch=1,
        seed=config.seed,
        rows=rows,
        threads=config.threads,
        prepare=reader(model.student, config, LabelledPoints(DataConfig())),
        epochs=1,
        shuffle=False,
    )
    bf16 = config.bf16 and model.device.type == "cuda"
    for items in stream:
        for item in items:
            with torch.autocast("cuda", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
                scores = predict(model.classify, item.cloud, variants, most_turns=most_turns).scores
            confusion += confusion_matrix(item.labels.numpy(), scores.argmax(1).cpu().numpy(), classes)
    return confusion


def trained(student: Student, corpus: Corpus, config: SupervisedConfig, folder: Path | None = None) -> Segmenter:
    """The segmenter after training, in evaluation mode; arguments and errors as of `supervised`."""
    rows = train_rows(corpus, config)
    domain = str(corpus.index.column("domain")[int(rows[0])])
    device = student.device
    student = adapted(student, grid=config.grid, domain=domain)
    if config.kind != "finetune":
        student = frozen(student, corpus, rows, measure=config.calibrate, threads=config.threads)
    settings = Segment(
        weights=weights_digest(student),
        protocol=replace(config, threads=SupervisedConfig.threads),  # decides no number
        domain=domain,
        student=student,
    )
    with Group.join(str(device)) as group, _place(folder, group) as out, _undisturbed():
        loop = loop_of(config, len(rows), str(group.device))
        summary = train(loop, settings, corpus, out, rows=rows, watch=_validation(config, corpus, loop))
        model = load_exported(out / SUMMARY.rpartition("/")[0], device)
        assert isinstance(model, Segmenter)
        if config.scored == "best" and summary["best"]:
            best = out / "checkpoints" / f"step-{int(summary['best']['step']):06d}" / "weights.safetensors"
            weights = load_file(best, device=str(device))
            model.load_state_dict({name.removeprefix("student."): value for name, value in weights.items()})
        group.barrier()
    return model.eval()


def loop_of(config: SupervisedConfig, scenes: int, device: str) -> TrainConfig:
    """The loop's settings for a protocol on so many training scenes."""
    steps = config.steps or max(1, round(config.epochs * scenes / config.batch))
    return TrainConfig(
        steps=steps,
        batch=config.batch // config.accumulate,
        accumulate=config.accumulate,
        optimiser=config.optimiser,
        schedule=config.schedule,
        lr=config.lr,
        warmup_share=config.warmup,
        start_factor=config.start_factor,
        final_factor=config.final_factor,
        momentum=config.momentum,
        dampening=config.dampening,
        momentum_cycle=config.momentum_cycle,
        weight_decay=config.weight_decay,
        clip=config.clip,
        explode_factor=None,  # on few scenes the loss comes near 0, and many times nothing is nothing
        bf16=config.bf16,
        seed=config.seed,
        split=config.train_split,
        dataset=config.dataset,
        checkpoint_every=max(1, steps // config.validations) if config.validations else _CHECKPOINT_EVERY,
        keep_last=1,
        logs=(),
        threads=config.threads,
        device=device,
    )


def _validation(config: SupervisedConfig, corpus: Corpus, loop: TrainConfig) -> Watch | None:
    """What is measured now and then in the training, if anything."""
    if not config.validations:
        return None
    rows = val_rows(corpus, config)

    def measure(network: Exported) -> Mapping[str, float]:
        assert isinstance(network, Segmenter)
        return {"miou": mean_iou(confusions(network, corpus, config, rows, variants=PLAIN, most_turns=1))}

    return Watch(every=loop.checkpoint_every, network="student", measure=measure, score="miou")


@contextlib.contextmanager
def _place(folder: Path | None, group: Group) -> Iterator[Path]:
    """The folder of a training, or a temporary one that all ranks of this machine share."""
    if folder is not None:
        yield folder
        return
    made = tempfile.mkdtemp(prefix="brickyard-supervised-") if group.rank == 0 else ""
    try:
        yield Path(group.share({"folder": made})[0]["folder"])
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """The random states, which a training sets, are as before."""
    state: Any = np.random.get_state()  # noqa: NPY002 - libraries may use the global generator
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
