"""Poses: the cameras that a network finds by itself, beside the true ones.

Of every clip of the validation split whose poses are known; clips without are left out, counted and listed. The network
is shown the images of inputs and targets, never a pose. Its frame and unit are its own, so what is compared needs
neither, or is aligned first (see `evaluate.camera_errors`): shares of all pairs of views whose relative rotation, whose
direction of translation, and whose both are right to 5, 15 and 30 degrees; the path's error after a similarity, in
metres and as a share of the path's extent, where 1 says no more than that the camera is somewhere; the focal length.
Beside the network stand a camera that does not turn and a path that is straight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from brickyard.evaluate.camera_errors import (
    Float64,
    path_error,
    path_extent,
    rotation_errors,
    still,
    straight,
    translation_errors,
    umeyama,
)
from brickyard.evaluate.camera_paths import path_picture
from brickyard.evaluate.pictured import Pictured
from brickyard.evaluate.protocols.protocol import Measured, Protocol
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import Column
from brickyard.evaluate.unseen_clips import ClipsConfig, UnseenClips
from brickyard.shards.errors import RecipeError
from brickyard.train.models.rayzer import RayZerNetwork
from brickyard.train.models.view_network import ViewNetwork
from brickyard.train.students.base import Exported

DEGREES = (5, 15, 30)


@dataclass(frozen=True, kw_only=True)
class PosesConfig(ClipsConfig):
    """Which cameras are compared: of all views of each window.

    Attributes:
        pictures: so many clips' paths are drawn for the page of the run.
    """

    pictures: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pictures < 0 or self.views < 3:
            raise ValueError("pictures must not be negative, and of fewer than 3 views there is no path")


class Poses(Protocol[PosesConfig]):
    """See the module's text."""

    config = PosesConfig
    needs = RayZerNetwork
    columns = (
        *(
            Column(metric=f"{name}_{degrees}{suffix}", title=f"{title} right to {degrees}°{words}, %", percent=True)
            for name, suffix, title, words in (
                ("rotation", "", "rotation", ""),
                ("rotation", "_still", "rotation", ", of a camera that does not turn"),
                ("translation", "", "direction", ""),
                ("pose", "", "rotation and direction", ""),
            )
            for degrees in DEGREES
        ),
        Column(metric="path", title="path, m", digits=3, less_is_better=True),
        Column(metric="path_share", title="path, share of its extent", digits=3, less_is_better=True),
        Column(
            metric="path_share_straight", title="path, share of its extent, straight", digits=3, less_is_better=True
        ),
        Column(metric="focal", title="focal length, error %", percent=True, less_is_better=True),
        Column(metric="left_out", title="clips left out", digits=0),
    )

    def check(self, name: str, network: Exported) -> None:
        super().check(name, network)
        if isinstance(network, ViewNetwork) and not network.tells_poses:
            raise RecipeError(f'protocol {name!r}: with "free" geometry a camera is no pose; take it off the protocols')

    def run(self, subject: Subject, config: PosesConfig) -> Measured:
        network = subject.network
        assert isinstance(network, RayZerNetwork)
        clips = UnseenClips(subject.corpus, network, config, posed=True, what="poses")
        numbers: dict[str, list[float]] = defaultdict(list)
        pictures: list[Pictured] = []
        mode, scenes = network.training, 0
        network.eval()
        for clip in clips:
            scenes += 1
            with torch.no_grad():
                found = clip.look(network).cameras
            assert clip.batch.poses is not None and clip.batch.intrinsics is not None
            poses, true = found.poses[0].double().cpu().numpy(), clip.batch.poses[0].double().cpu().numpy()
            for name, value in compared(poses, true, np.array(clip.times)):
                numbers[name].append(value)
            focal, real = (float(values[0, :, :2].mean()) for values in (found.intrinsics, clip.batch.intrinsics))
            numbers["focal"].append(abs(focal / real - 1))
            if len(pictures) < config.pictures:
                aligned = umeyama(poses[:, :3, 3], true[:, :3, 3])
                drawn = path_picture(true, poses, aligned, np.argsort(clip.times))
                title = f"predicted after alignment, {numbers['path'][-1]:.3f} m off in the mean"
                pictures.append(Pictured(scene=clip.key, title=title, pictures=(("Camera paths", drawn),)))
        network.train(mode)
        means = {name: float(np.nanmean(values)) for name, values in numbers.items()}
        means["left_out"] = float(len(clips.left_out))
        files = {"poses-left-out.txt": clips.list_of_left_out} if clips.left_out else {}
        return Measured(metrics=means, scenes=(0, scenes), pictures=tuple(pictures), files=files)


PROTOCOL = Poses()


def compared(found: Float64, true: Float64, times: NDArray[np.int64]) -> Iterator[tuple[str, float]]:
    """(name, number) of one clip's poses (V, 4, 4), world from camera, beside the true ones; see the columns."""
    rotation, ways = rotation_errors(found, true), translation_errors(found, true)
    unmoved, known = rotation_errors(still(true), true), np.isfinite(ways)
    for degrees in DEGREES:
        yield f"rotation_{degrees}", float((rotation <= degrees).mean())
        yield f"rotation_{degrees}_still", float((unmoved <= degrees).mean())
        yield f"translation_{degrees}", float((ways[known] <= degrees).mean()) if known.any() else np.nan
        both = np.maximum(rotation, ways)[known]
        yield f"pose_{degrees}", float((both <= degrees).mean()) if known.any() else np.nan
    centres = true[:, :3, 3]
    extent = path_extent(centres)
    error, line = path_error(found[:, :3, 3], centres), path_error(straight(times), centres)
    yield "path", error
    yield "path_share", error / extent if extent > 0 else np.nan
    yield "path_share_straight", line / extent if extent > 0 else np.nan
