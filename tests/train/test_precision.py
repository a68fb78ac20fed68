"""Outside their networks, objectives compute in float32 whatever autocast says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.augment import CropConfig
from brickyard.train.objectives import PPKT, Loss, Objective, ScaLR, SLidR, Sonata, STSLidR
from brickyard.train.objectives.prototypes import PrototypeHead
from brickyard.train.objectives.sonata_images import ImageTerm
from brickyard.train.precision import float32_island, settle
from brickyard.train.students.point import PointStudent, PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.views.crops import CropConfig as CropViewConfig
from brickyard.train.views.views import ViewConfig
from tests.train.rings import ring_corpus
from tests.train.spy import one_thread

CROP = CropConfig(height=32, width=64, min_pairs=20)
PAIRED: dict[str, Any] = {"student": UNetConfig(network="tiny"), "crop": CROP, "pixel_stride": 4}
OBJECTIVES = {
    "ppkt": PPKT(**PAIRED, weighting="neighbours", balance="votes"),
    "slidr": SLidR(**PAIRED),
    "stslidr": STSLidR(**PAIRED),
    "stslidr-alpha": STSLidR(**PAIRED, weighting="similarity"),
    "adaptive": STSLidR(**PAIRED, weighting="adaptive", balance="clusters"),
    "scalr": ScaLR(student=PAIRED["student"], crop=CROP),
    "sonata": Sonata(
        student=PointStudentConfig(network="tiny", inputs=("xyz", "intensity"), size=0.2),
        views=ViewConfig(crop=CropViewConfig(points=600)), prototypes=32, hidden=32, dimensions=16, upcast=1,
        images=ImageTerm(crop=replace(CROP, flip=0.0)),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=2)


def shielded(network: nn.Module) -> None:
    """A network that autocast does not reach: what is left for it to change lies outside."""
    forward = network.forward

    def without(*args: Any, **options: Any) -> Any:
        with float32_island(torch.device("cpu")):
            return forward(*args, **options)

    network.forward = without  # type: ignore[method-assign]


def networks(objective: Objective) -> Iterator[nn.Module]:
    for module in objective.modules():
        if isinstance(module, PointStudent | PrototypeHead):
            yield module
    for owner in objective.modules():
        yield from (getattr(owner, "_frozen", None) or ())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_autocast_changes_nothing_outside_the_networks(name: str, corpus: Corpus) -> None:
    objective = OBJECTIVES[name].build()
    for network in networks(objective):
        shielded(network)
    stream = Stream(corpus, objective.fields, batch=2, rows=np.arange(2), prepare=objective.prepare, threads=1)
    items = next(iter(stream))

    def loss(enabled: bool) -> Loss:
        torch.manual_seed(0)
        batch = objective.collate(items, torch.device("cpu"))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found: Loss = objective(batch)
        return found

    plain, cast = loss(False), loss(True)
    assert plain.usable and plain.total.item() > 0
    assert cast.total.dtype == torch.float32 and torch.equal(cast.total, plain.total)


@pytest.mark.parametrize("wanted", [True, False])
def test_tf32_reaches_sparse_convolutions(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from spconv import constants
    from spconv.pytorch import ops

    assert ops.constants is constants  # which its products read
    monkeypatch.setattr(constants, "SPCONV_ALLOW_TF32", not wanted)
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    attention = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        settle(torch.device("cpu"), tf32=wanted)
        assert constants.SPCONV_ALLOW_TF32 is not wanted
        settle(torch.device("cuda"), tf32=wanted)
        assert constants.SPCONV_ALLOW_TF32 is wanted
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is wanted
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
        torch.backends.cuda.enable_cudnn_sdp(attention)
