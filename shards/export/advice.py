"""What the reader of an export will miss, told while the export is made: from the index alone, no scene is read."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from brickyard.shards.corpus import Corpus

_LABELS = "points/semantic."
_OWN_CLASS = ("waymo",)
"""Outdoor datasets whose folders Pointcept's own class of that name reads."""


def advice(corpus: Corpus, layout: str) -> list[str]:
    """A sentence for each thing that is missing, dataset by dataset, in the order of the index."""
    rows: dict[str, list[int]] = defaultdict(list)
    table = corpus.index.select(["dataset", "domain", "dropped"]).to_pylist()
    for number, row in enumerate(table):
        rows[row["dataset"]].append(number)
    said = []
    for dataset, own in rows.items():
        fields = [set(corpus.addresses(number)) for number in own]
        clouds = [number for number, names in zip(own, fields, strict=True) if "points/xyz" in names]
        names_of = dict(zip(own, fields, strict=True))
        bare = [number for number in clouds if not any(name.startswith(_LABELS) for name in names_of[number])]
        said += _lost_labels(dataset, len(clouds), [json.loads(table[number]["dropped"]) for number in bare])
        if layout == "pointcept" and clouds:
            flat = sum("points/normal" not in names_of[number] for number in clouds)
            said += _for_pointcept(dataset, table[own[0]]["domain"], len(clouds), flat)
    return said


def _lost_labels(dataset: str, clouds: int, dropped: list[dict[str, int]]) -> list[str]:
    """`dropped`: what was left out of each scene without labels."""
    why = Counter(name for scene in dropped for name in scene if "label" in name)
    if not why:
        return []
    reason, count = why.most_common(1)[0]
    return [
        f"{dataset}: {count} of {clouds} scenes have no labels, their source left them out ({reason}); "
        "if its options can say which they are (see `brickyard sources`), build again with it"
    ]


def _for_pointcept(dataset: str, domain: str, clouds: int, flat: int) -> list[str]:
    said = []
    if flat and domain != "outdoor":
        said.append(
            f"{dataset}: {flat} of {clouds} scenes have no normals; Pointcept's configurations for S3DIS and Sonata "
            "need them: build with `curate: {normals: {neighbours: 16}}`"
        )
    if domain == "outdoor" and not dataset.startswith(_OWN_CLASS):
        said.append(
            f'{dataset}: open these folders with Pointcept\'s `type="DefaultDataset"`; its classes for nuScenes and '
            "SemanticKITTI read raw files and lists of their own"
        )
    return said
