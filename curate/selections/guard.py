"""Guard: nothing that somebody is going to be tested on may be trained on.

Out go the scenes of official val and test splits, those of the same sequence (a drive, the visits of a room), those of
the same drive under another dataset's name, and those that nearly look like them and have the same shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from brickyard.curate.selections.candidates import Bools, Candidates, Rows
from brickyard.curate.selections.neighbours import nearest_cells, pairs_between
from brickyard.curate.selections.pictures import same_pictures

ODOMETRY = {
    "00": "2011_10_03_drive_0027", "01": "2011_10_03_drive_0042", "02": "2011_10_03_drive_0034",
    "03": "2011_09_26_drive_0067", "04": "2011_09_30_drive_0016", "05": "2011_09_30_drive_0018",
    "06": "2011_09_30_drive_0020", "07": "2011_09_30_drive_0027", "08": "2011_09_30_drive_0028",
    "09": "2011_09_30_drive_0033", "10": "2011_09_30_drive_0034",
}  # fmt: skip
"""Sequences of KITTI's odometry (and SemanticKITTI) -> raw drives, as the odometry devkit's readme lists them."""
_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}")


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """What is kept apart.

    Attributes:
        splits: official splits that are not trained on.
        keep_evaluation_scenes: train on them all the same, for a final model that nobody will test.
        pictures: share of a scene's pictures from which it counts as one of them; 0 asks none.
        look_alike: cosine of embeddings (less the mean of all) from which a scene counts as one of them; 0 asks none.
        signature: cosine that signatures must reach, too, where both are known.
        same_sequence: scenes of a sequence that has guarded scenes are out.
    """

    splits: tuple[str, ...] = ("val", "test")
    keep_evaluation_scenes: bool = False
    pictures: float = 0.75
    look_alike: float = 0.97
    signature: float = 0.95
    same_sequence: bool = True


def guard(scenes: Candidates, config: GuardConfig, against: Candidates | None = None) -> None:
    """Leave out what is, or looks like, evaluation data.

    Args:
        against: scenes of another corpus, whose guarded splits count, too.
    """
    if config.keep_evaluation_scenes:
        scenes.notes.append("guard: evaluation scenes are kept, as the recipe says")
        return
    own = scenes.is_in("split", config.splits)
    guarded = [(scenes, np.flatnonzero(own))]
    if against is not None:
        guarded.append((against, np.flatnonzero(against.is_in("split", config.splits))))
    splits = scenes.text("split")
    rows = np.flatnonzero(own & (scenes.weight > 0))
    scenes.refuse(rows, lambda row: f"guard: of the official {splits[row]} split")
    scenes.notes.append(f"guard: {len(rows)} of the splits {', '.join(config.splits)} out")
    if config.same_sequence:
        _refuse_sequences(scenes, guarded)
    if config.pictures > 0:
        _refuse_pictures(scenes, guarded, config.pictures)
    if config.look_alike > 0:
        _refuse_look_alikes(scenes, guarded, config)


def sequence_names(scenes: Candidates) -> list[str]:
    """Of every scene, the name under which its sequence is known everywhere: a raw drive of KITTI, or dataset and
    sequence."""
    names = []
    for dataset, sequence in zip(scenes.text("dataset"), scenes.text("sequence"), strict=True):
        drive = _DRIVE.match(ODOMETRY.get(sequence, "") if dataset == "kitti_odometry" else sequence)
        names.append(f"kitti {drive[0]}" if drive and dataset.startswith("kitti") else f"{dataset} {sequence}")
    return names


def _refuse_sequences(scenes: Candidates, guarded: list[tuple[Candidates, Rows]]) -> None:
    named: dict[str, str] = {}
    for one, rows in guarded:
        names = sequence_names(one)
        for row in rows.tolist():
            if names[row].partition(" ")[2]:  # a dataset without sequences has nothing in common but that
                named.setdefault(names[row], one.keys[row])
    mine = sequence_names(scenes)
    rows = np.array([row for row in scenes.alive.tolist() if mine[row] in named], np.int64)
    scenes.refuse(rows, lambda row: f"guard: of the same sequence as {named[mine[row]]}, which is for evaluation")
    scenes.notes.append(f"guard: {len(rows)} of sequences with such scenes out")


def _refuse_pictures(scenes: Candidates, guarded: list[tuple[Candidates, Rows]], least: float) -> None:
    rows, told = scenes.alive, dict[int, str]()
    for one, theirs in guarded:
        if len(theirs):
            mine, other, _ = same_pictures(scenes.hashes().take(rows), one.hashes().take(theirs), least)
            for i, j in zip(mine.tolist(), other.tolist(), strict=True):
                told.setdefault(int(rows[i]), f"guard: its pictures are those of {one.keys[int(theirs[j])]}, "
                                "which is for evaluation")  # fmt: skip
    scenes.refuse(np.array(sorted(told), np.int64), lambda row: told[row])
    scenes.notes.append(f"guard: {len(told)} with pictures of such scenes out")


def _refuse_look_alikes(scenes: Candidates, guarded: list[tuple[Candidates, Rows]], config: GuardConfig) -> None:
    mean = scenes.mean("embedding")
    vectors, known = scenes.unit_vectors("embedding", mean)
    rows = scenes.alive[known[scenes.alive]]
    told: dict[int, str] = {}
    for one, theirs in guarded:
        other, there = one.unit_vectors("embedding", mean)
        theirs = theirs[there[theirs]]
        cells = scenes.cells()
        met = None if cells is None else (cells[1][rows], nearest_cells(other[theirs], cells[0]))
        a, b, cosine = pairs_between(vectors[rows], other[theirs], config.look_alike, met)
        alike = _alike(scenes, rows[a], one, theirs[b], config.signature)
        order = np.argsort(cosine[alike], kind="stable")  # the most similar one is told last, and stays
        for i, j, value in zip(a[alike][order], b[alike][order], cosine[alike][order], strict=True):
            told[int(rows[i])] = f"guard: looks like {one.keys[int(theirs[j])]} ({value:.4f}), which is for evaluation"
    scenes.refuse(np.array(sorted(told), np.int64), lambda row: told[row])
    scenes.notes.append(f"guard: {len(told)} that look like such scenes out")


def _alike(scenes: Candidates, mine: Rows, other: Candidates, theirs: Rows, least: float) -> Bools:
    """bool (P,): whether signatures of a row and a guarded one are similar, or not known of both."""
    if scenes.lacks("signature") or other.lacks("signature") or least <= 0:
        return np.ones(len(mine), bool)
    (one, known), (two, there) = (c.unit_vectors("signature") for c in (scenes, other))
    close = np.einsum("ij,ij->i", one[mine], two[theirs]) >= least
    return np.asarray(close | ~(known[mine] & there[theirs]))
