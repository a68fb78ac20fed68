"""Frames of the stream as views: a few of a scan, evenly spread, or all of a clip in order.

A frame without a pose is of no use to a scan (it is left out and counted) but is a frame of a clip like any other.
A view of a scan carries its label images (2.5 MB of memory for each label set, 5 MB for the instances).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.agreement import agreement
from brickyard.ingest.clips import spread_evenly
from brickyard.ingest.scan import Scan
from brickyard.ingest.scannet import annotation, images, sens
from brickyard.ingest.scannet.plan import clip_frames
from brickyard.shards.scene import Float64, Points, View

MAX_PROBES = 20_000
MIN_VERTICES = 1000
"""Of a mesh that depth is held against."""
MIN_AGREEMENT = 0.5
"""Median share of the vertices at or in front of the measured surfaces that lie on them."""


@dataclass(frozen=True, kw_only=True)
class _Stream:
    """A `.sens` file, and where its world lies in the scene."""

    path: str
    header: sens.SensHeader
    alignment: Float64


def scan_views(
    scan: Scan, alignment: Float64, points: Points, objects: annotation.Objects | None,
    table: annotation.LabelTable | None,
) -> list[View]:  # fmt: skip
    """The chosen frames; candidates that cannot be used are counted in `scan.dropped`.

    Args:
        alignment: float64 (4, 4), scene from the world of the files.
        points: of the scan, which the depth images are held against.
        objects: of the scan, which instance images are held against; None if the scan has none.
        table: ids of the raw categories, None without the .tsv.
    """
    path, details = scan.path("sens"), scan.ref.details
    if path is None or details["max_frames"] == 0:
        return []
    header = sens.read_header(scan.files, path)
    frames = sens.read_frames(scan.files, path, header)
    times = sens.times_ns(frames)
    candidates = frames[:: details["frames_every"]]
    tracked = [frame for frame in candidates if np.isfinite(frame.pose).all()]
    usable = [frame for frame in tracked if frame.color_bytes]
    reasons = {"invalid pose": len(candidates) - len(tracked), "frame without image": len(tracked) - len(usable)}
    scan.dropped.update({reason: count for reason, count in reasons.items() if count})
    chosen = [usable[i] for i in spread_evenly(len(usable), details["max_frames"])]
    stream = _Stream(path=path, header=header, alignment=alignment)
    views = [_read_view(scan, stream, frame, times[frame.number]) for frame in chosen]
    _check_place(scan, views, points)
    return _with_labels(scan, views, chosen, objects, table)


def clip_views(scan: Scan, alignment: Float64) -> list[View]:
    """The frames of a clip in the stream's order, those without a valid pose included; no label images."""
    path, details = scan.ref.files["sens"], scan.ref.details
    header = sens.read_header(scan.files, path)
    stop = details["last"] + 1
    if stop > header.frames:
        raise scan.files.error(
            path, f"{header.frames} frames are declared, the plan saw {stop}", offset=header.start - 8,
            hint="the file has changed; plan again",
        )  # fmt: skip
    frames = sens.read_frames(scan.files, path, header, stop)
    times = sens.times_ns(frames)
    members = [n for n in clip_frames(stop, details["clips"]["rate_hz"]) if n >= details["first"]]
    usable = [frames[n] for n in members if frames[n].color_bytes]
    lost = sum(not np.isfinite(frame.pose).all() for frame in usable)
    reasons = {"invalid pose": lost, "frame without image": len(members) - len(usable)}
    scan.dropped.update({reason: count for reason, count in reasons.items() if count})
    if len(usable) < 2:
        raise scan.files.error(path, f"of {len(members)} frames {len(usable)} have an image, a clip needs two")
    stream = _Stream(path=path, header=header, alignment=alignment)
    return [_read_view(scan, stream, frame, times[frame.number]) for frame in usable]


def _check_place(scan: Scan, views: list[View], points: Points) -> None:
    """Count a stream whose depth hardly ever meets the mesh: two streams that were exchanged are whole, each of them.

    Frames differ much in how well they fit, so all of them together are judged, and only what is far off.
    """
    if len(points) < MIN_VERTICES:
        return
    probes = points.xyz[:: max(1, len(points) // MAX_PROBES)]
    shares = [agreement(view, probes)[0] for view in views if view.depth is not None]
    if shares and float(np.median(shares)) < MIN_AGREEMENT:
        scan.dropped["stream whose depth does not meet the mesh: perhaps of another scan"] += 1


def _read_view(scan: Scan, stream: _Stream, frame: sens.SensFrame, time: int | None) -> View:
    path, header = stream.path, stream.header
    tracked, rotation = np.isfinite(frame.pose).all(), frame.pose[:3, :3]
    if tracked:
        rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
        if not (rigid and np.allclose(frame.pose[3], (0, 0, 0, 1))):
            raise scan.files.error(
                path, f"frame {frame.number}: the pose is not a rigid transform", offset=frame.offset
            )
    return View(
        name=f"frame-{frame.number:06d}",
        image=sens.read_color(scan.files, path, header, frame),
        image_format=header.color_format,
        width=header.color_size[0],
        height=header.color_size[1],
        intrinsics=header.color_intrinsics,
        scene_from_camera=stream.alignment @ frame.pose if tracked else None,
        timestamp_ns=time,
        depth=sens.read_depth(scan.files, path, header, frame) if scan.ref.details["read_depth"] else None,
    )


def _with_labels(
    scan: Scan, views: list[View], frames: list[sens.SensFrame], objects: annotation.Objects | None,
    table: annotation.LabelTable | None,
) -> list[View]:  # fmt: skip
    """The views with the label images that the scan has; what is missing or contradicts the objects is counted."""
    labels, instances = _open_images(scan, "label_images"), _open_images(scan, "instance_images")
    if labels is None and instances is None:
        return views
    if labels is not None and table is None:
        scan.dropped["nyu40 of label images: the label table (.tsv) is missing"] += 1
    nyu40 = annotation.nyu40_ids(table) if table else None
    result = []
    for view, frame in zip(views, frames, strict=True):
        size = (view.width, view.height)
        raw = images.read_image(scan.files, labels, frame.number, size) if labels else None
        instance = images.read_image(scan.files, instances, frame.number, size) if instances else None
        if (labels and raw is None) or (instances and instance is None):
            scan.dropped["frame without label image"] += 1
        fits = instance is None or objects is None or annotation.instances_fit(instance, raw, objects, table or {})
        if not fits:
            scan.dropped["instance image of another annotation"] += 1
            instance = None
        result.append(replace(
            view,
            semantic={} if raw is None else _semantic(scan, raw, nyu40),
            instance=None if instance is None else instance.astype(np.int32),
        ))  # fmt: skip
    return result


def _open_images(scan: Scan, kind: str) -> images.ImageSet | None:
    path, folder = scan.path(kind), scan.ref.details.get("image_folders", {}).get(kind)
    if path is not None:
        return images.open_zip(scan.files, path)
    return None if folder is None else images.open_folder(scan.files, folder)


def _semantic(scan: Scan, raw: NDArray[np.uint16], nyu40: NDArray[np.uint16] | None) -> dict[str, NDArray[np.int16]]:
    """Label sets of an image of ScanNet ids; the sets of nyu40 need the table."""
    sets = {"scannet200": annotation.map_labels(raw, "scannet200")}
    if nyu40 is not None:
        coarse = nyu40[raw]
        unknown = int((np.bincount(raw.ravel(), minlength=1)[1:] > 0)[nyu40[1 : int(raw.max()) + 1] == 0].sum())
        if unknown:
            scan.dropped["label image: id without nyu40 class"] += unknown
        sets = {name: annotation.map_labels(coarse, name) for name in ("nyu40", "scannet20")} | sets
    return sets
