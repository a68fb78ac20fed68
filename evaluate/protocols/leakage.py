"""Leakage: whether new views come of geometry, or of the order of frames and of what a camera smuggles in.

Every clip of the validation split is rendered as it is, and again with one thing changed; the target stays the same, so
the PSNR says what the network used:

    order          the numbers of the input views are shuffled: how much it knows of time
    recoloured     the cameras are those found in the same clip with red, green and blue exchanged, on the scene of the
                   true colours: a path is a path, whatever the colours; loss here is what cameras knew of the picture
    other cameras  the cameras are those of a clip of another sequence: what cameras are needed for
    other scene    the scene is that of another sequence: what the cameras alone tell of the picture. It is to be no
                   better than another clip's rendering as it is ("unrelated")
    focal          the focal length of the targets is wrong by a factor; and exchanged for that of another sequence

A network that is given its cameras (LVSM) finds none in recoloured clips and cannot smuggle; with "free" geometry there
is no focal length. Those numbers are left blank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from brickyard.evaluate.images import psnr
from brickyard.evaluate.protocols.protocol import Measured, Protocol
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import Column
from brickyard.evaluate.unseen_clips import ClipsConfig, UnseenClip, UnseenClips
from brickyard.train.models.cameras import Cameras
from brickyard.train.models.view_network import Look, ViewNetwork

CHANGES = {
    "order": "inputs in another order",
    "recoloured": "cameras of the recoloured clip",
    "other_cameras": "cameras of another clip",
    "other_scene": "scene of another clip",
    "unrelated": "another clip's rendering",
    "focal": "wrong focal length",
    "other_focal": "focal length of another clip",
}


@dataclass(frozen=True, kw_only=True)
class LeakageConfig(ClipsConfig):
    """What is changed.

    Attributes:
        factor: of the wrong focal length.
    """

    factor: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor <= 0:
            raise ValueError("factor must be positive")


class Leakage(Protocol[LeakageConfig]):
    """See the module's text."""

    config = LeakageConfig
    needs = ViewNetwork
    columns = (
        Column(metric="psnr", title="PSNR dB", digits=2),
        *(Column(metric=f"psnr_{name}", title=f"PSNR dB, {words}", digits=2) for name, words in CHANGES.items()),
        Column(metric="left_out", title="clips left out", digits=0),
    )

    def run(self, subject: Subject, config: LeakageConfig) -> Measured:
        network = subject.network
        assert isinstance(network, ViewNetwork)
        clips = UnseenClips(subject.corpus, network, config, posed=False, what="leakage")
        numbers: dict[str, list[float]] = {f"psnr{'_' * bool(name)}{name}": [] for name in ("", *CHANGES)}
        mode, scenes = network.training, 0
        network.eval()
        with torch.no_grad():
            for here, other in _paired(Seen(clip=clip, look=clip.look(network)) for clip in clips):
                scenes += 1
                found = _alone(network, here, config.factor)
                found |= {} if other is None else _beside(network, here, other)
                for name, images in found.items():
                    numbers[name] += _psnr(images, here.clip.real)
        network.train(mode)
        means: dict[str, float | None] = {n: float(np.mean(v)) if v else None for n, v in numbers.items()}
        means["left_out"] = float(len(clips.left_out))
        files = {"leakage-left-out.txt": clips.list_of_left_out} if clips.left_out else {}
        return Measured(metrics=means, scenes=(0, scenes), files=files)


PROTOCOL = Leakage()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A clip and what the network made of it."""

    clip: UnseenClip
    look: Look

    @property
    def targets(self) -> Tensor:
        """What the cameras of the targets tell."""
        return self.look.told[:, self.clip.inputs :]


def _paired(clips: Iterable[Seen]) -> Iterator[tuple[Seen, Seen | None]]:
    """Each clip with the last one of another sequence; those of the first sequence with the first of the second, or
    None where there is but one."""
    waiting: list[Seen] = []
    latest: dict[str, Seen] = {}
    for here in clips:
        other = next((seen for name, seen in latest.items() if name != here.clip.sequence), None)
        if other is None:
            waiting.append(here)
        else:
            yield from ((one, here) for one in waiting)
            waiting.clear()
            yield here, other
        # of the two sequences that were met last, one is another than the next clip's
        latest.pop(here.clip.sequence, None)
        latest = {here.clip.sequence: here, **dict(list(latest.items())[:1])}
    yield from ((one, None) for one in waiting)


def _alone(network: ViewNetwork, here: Seen, factor: float) -> dict[str, Tensor]:
    """Renderings of a clip as it is, and with changes that need no other."""
    scene, inputs = here.look.scene, here.clip.inputs
    found = {"psnr": network.render(scene, here.targets)}
    shuffled = network.look(here.clip.batch.images, inputs, _shuffled(here.clip), here.clip.given)
    found["psnr_order"] = network.render(shuffled.scene, shuffled.told[:, inputs:])
    if not network.posed:
        recoloured = network.look(here.clip.batch.images.flip(2), inputs, here.clip.batch.number)
        found["psnr_recoloured"] = network.render(scene, recoloured.told[:, inputs:])
    if network.tells_poses:
        wrong = _focal(here.look.cameras.views(inputs), here.look.cameras.intrinsics[:, inputs:, :2] * factor)
        found["psnr_focal"] = network.render(scene, network.tell(wrong))
    return found


def _beside(network: ViewNetwork, here: Seen, other: Seen) -> dict[str, Tensor]:
    """Renderings with a part of another clip's."""
    found = {
        "psnr_other_cameras": network.render(here.look.scene, other.targets),
        "psnr_other_scene": network.render(other.look.scene, here.targets),
        "psnr_unrelated": network.render(other.look.scene, other.targets),
    }
    if network.tells_poses:
        inputs = here.clip.inputs
        theirs = other.look.cameras.intrinsics[:, inputs:, :2]
        told = network.tell(_focal(here.look.cameras.views(inputs), theirs))
        found["psnr_other_focal"] = network.render(here.look.scene, told)
    return found


def _shuffled(clip: UnseenClip) -> Tensor:
    """The numbers of the views, those of the inputs turned by one: no input keeps its own."""
    number = clip.batch.number
    return torch.cat((number[:, : clip.inputs].roll(1, 1), number[:, clip.inputs :]), 1)


def _focal(cameras: Cameras, focal: Tensor) -> Cameras:
    return replace(cameras, intrinsics=torch.cat((focal, cameras.intrinsics[..., 2:]), -1))


def _psnr(found: Tensor, real: Tensor) -> list[float]:
    return [float(psnr(one.float().clamp(0, 1), other)) for one, other in zip(found[0], real, strict=True)]
