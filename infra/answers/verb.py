"""`brickyard evaluate --predictions`: the recipe's segmenter, trained as for its score, answers an official server.

What it needs is looked at before anything is trained. The training is the protocol's own and lies in the same folder,
so after an evaluation nothing is trained again. Under torchrun all ranks train, and one of them predicts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from brickyard.evaluate.predictions.targets import TARGETS
from brickyard.evaluate.protocols.registry import Chosen
from brickyard.evaluate.records import TRAININGS
from brickyard.evaluate.segment import SupervisedConfig
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.supervised import trained
from brickyard.infra.answers.write import Wanted
from brickyard.infra.verbs.judged import Judged
from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import Every, read_file
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene_list import read_scene_list
from brickyard.shards.storage import Store
from brickyard.train.running.distributed import Group

_ASKED = Every((bool, int, str, [str]))


def check_arguments(args: argparse.Namespace) -> None:
    """Raise `RecipeError` for options that go with others."""
    if (args.predictions is None) != (args.to is None):
        raise RecipeError(f"--predictions DIR and --to go together; targets are {', '.join(TARGETS)}")
    for name in ("split", "raw", "about", "scenes"):
        if args.predictions is None and getattr(args, name) is not None:
            raise RecipeError(f"--{name} goes with --predictions")


def segmenter_of(chosen: Sequence[Chosen], target: str) -> Chosen:
    """The one protocol that trains a segmenter in the target's classes; raises `RecipeError` where it is not one."""
    labels = TARGETS[target].taxonomy
    found = [one for one in chosen if isinstance(one.config, SupervisedConfig) and one.config.taxonomy == labels]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise RecipeError(
            f"--to {target} takes one protocol of `evaluate.protocols` that trains a segmenter in the classes of"
            f" {labels}, such as {target}-decoder-tiny or segmentation; the recipe has {names}"
        )
    return found[0]


def write_predictions(
    args: argparse.Namespace, judged: Judged, corpus: Corpus, chosen: Sequence[Chosen], device: str
) -> dict[str, Any]:
    """Train the segmenter (or find it trained) and write what the server takes; returns what was written (JSON)."""
    one = segmenter_of(chosen, args.to)
    config: Any = one.config
    wanted = Wanted(
        corpus,
        target=args.to,
        split=args.split or config.val_split,
        out=args.predictions,
        raw=None if args.raw is None else Store(args.raw),
        about=None if args.about is None else read_file(args.about, _ASKED, error=RecipeError),
        scenes=None if args.scenes is None else read_scene_list(args.scenes),
    )
    with Group.join(device) as group:
        network = judged.network(group.device)
        one.protocol.check(one.name, network)
        subject = Subject(network, corpus, trainings=judged.folder / TRAININGS)
        model = trained(subject.student, corpus, config, subject.folder(config))
        chief = group.rank == 0
    whose = {"protocol": one.name, "run": str(judged.folder), "corpus": corpus.fingerprint}
    return whose | (wanted.write(model, config) if chief else {}) | {"out": str(args.predictions)}


def told(result: dict[str, Any]) -> str:
    """What was written, for people."""
    count, official, scores = result["files"], result["official_files"], result["scores"]
    of = "" if official in (None, count) else f" (the whole split has {official:,}; the server wants all)"
    lines = [f"{result['out']}: {count:,} files for {result['target']}{of}, {result['points']:,} points, read again"]
    if scores is not None:
        ours, theirs = (
            100 * scores[name] if scores[name] is not None else float("nan") for name in ("miou", "tool_miou")
        )
        lines.append(f"mIoU {ours:.2f} %, by the rules of {scores['tool']}'s tool {theirs:.2f} %")
    return "\n".join(lines)
