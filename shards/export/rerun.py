"""A corpus as Rerun recordings, one per scene: split/scene.rrd, to be opened by `rerun a.rrd b.rrd`.

All recordings of a corpus have one id, so those that are opened together become one, with a tree for each scene:

    scenes/<key>                         text: identity and licence
    scenes/<key>/points                  in their own colours
    scenes/<key>/points/<taxonomy>       the same points by class
    scenes/<key>/cameras/<name>          pose; view i of the scene is at i of the timeline "view"
    scenes/<key>/cameras/<name>/image    pinhole and picture, as shipped; in it <taxonomy> and superpixels
    scenes/<key>/cameras/<name>/depth    depth picture with a pinhole of its own

Distortion is not drawn: of a fisheye there is the picture without a frustum. Scalars of points, instances and pairs
stay behind. A recording says when it was written, so two exports of a scene differ in bytes. It appears whole or not at
all, so a killed export goes on with the scenes that lack one. Costs a copy of a scene. Needs the extra `rerun`.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
from numpy.typing import NDArray

from brickyard.shards.corpus import Corpus
from brickyard.shards.export.folder import Progress, begin, finish, remove_temporaries
from brickyard.shards.export.pointcept import scene_folders
from brickyard.shards.lenses import LENSES
from brickyard.shards.scene import UNLABELLED, Points, Scene, View
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy, taxonomy_names

LAYOUT = "rerun"
TIMELINE = "view"
_FRAME = re.compile(r"frame-\d+")
_GREY = (128, 128, 128)
_HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
"""From our pixels, whose centres are whole numbers, to Rerun's, whose corners are."""


def export_rerun(corpus: Corpus, out: Store, *, progress: Progress = lambda done, total: None) -> dict[str, int]:
    """Write every scene; returns {"scenes", "points", "views"} (counts).

    Raises:
        CorpusError: `out` holds something else.
        CorruptDataError: a scene of the corpus is damaged.
    """
    begin(corpus, out, LAYOUT)
    names = [f"{folder}.rrd" for folder in scene_folders(corpus)]
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        remove_temporaries(out, folder)
    for row, name in enumerate(names):
        progress(row, len(names))
        if not out.exists(name):
            out.write(name, recording_bytes(corpus.scene(row), corpus.manifest["digest"]))
    progress(len(names), len(names))
    views = int(np.sum(corpus.index.column("n_views").to_numpy()))
    summary = {"scenes": len(names), "points": int(corpus.points_per_scene.sum()), "views": views}
    return finish(corpus, out, LAYOUT, summary)


def recording_bytes(scene: Scene, recording_id: str) -> bytes:
    """The bytes of an .rrd file; scenes of one `recording_id` are shown together."""
    with tempfile.TemporaryDirectory(prefix="brickyard-rerun-") as folder:
        path = Path(folder) / "scene.rrd"
        recording = _recording(recording_id)
        recording.save(path)
        _log_scene(recording, scene)
        recording.flush()
        recording.disconnect()
        return path.read_bytes()


def _recording(recording_id: str) -> Any:
    if hasattr(rr, "new_recording"):  # before 0.23
        return rr.new_recording("brickyard", recording_id=recording_id)
    return rr.RecordingStream("brickyard", recording_id=recording_id)


def _log_scene(recording: Any, scene: Scene) -> None:
    who = scene.identity
    root = ["scenes", *filter(None, who.key.split("/"))]
    text = f"{who.key}, {who.split}, sequence {who.sequence}; licence: {who.licence}"
    recording.log(root, rr.TextDocument(text), static=True)
    recording.log(root, rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    if scene.points is not None:
        _log_points(recording, [*root, "points"], scene.points)
    seen: set[str] = set()
    for number, view in enumerate(scene.views):
        if hasattr(recording, "set_time"):
            recording.set_time(TIMELINE, sequence=number)
        else:  # before 0.23
            recording.set_time_sequence(TIMELINE, number)
        name = _FRAME.sub("frames", view.name)  # the frames of one moving camera
        camera = [*root, "cameras", name]
        if name in seen:  # what this view lacks must not be that of the view before
            recording.log(camera, rr.Clear(recursive=True))
        seen.add(name)
        _log_view(recording, camera, view)


def _log_points(recording: Any, path: list[str], points: Points) -> None:
    recording.log(path, rr.Points3D(points.xyz, colors=points.color), static=True)
    for name, labels in points.semantic.items():
        ids = _class_ids(name, labels)
        recording.log([*path, name], _context(name, labels), rr.Points3D(points.xyz, class_ids=ids), static=True)


def _log_view(recording: Any, camera: list[str], view: View) -> None:
    if view.scene_from_camera is not None:
        pose = view.scene_from_camera
        recording.log(camera, rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
    image = [*camera, "image"]
    if not LENSES[view.camera_model].wide:
        recording.log(image, _pinhole(view.intrinsics, view.width, view.height))
    recording.log(image, rr.EncodedImage(contents=view.image, media_type=f"image/{view.image_format}"))
    for name, labels in view.semantic.items():
        recording.log([*image, name], _context(name, labels), rr.SegmentationImage(_class_ids(name, labels)))
    if view.superpixels is not None:
        recording.log([*image, "superpixels"], rr.SegmentationImage(view.superpixels.labels))
    if view.depth is not None:
        height, width = view.depth.values.shape
        if view.depth.along == "z":
            recording.log([*camera, "depth"], _pinhole(view.depth.intrinsics, width, height))
        recording.log([*camera, "depth"], rr.DepthImage(view.depth.values, meter=1 / view.depth.scale))


def _pinhole(intrinsics: NDArray[np.float64], width: int, height: int) -> Any:
    """Axes as ours: x right, y down, z forward."""
    return rr.Pinhole(image_from_camera=intrinsics + _HALF, resolution=[width, height])


def _classes(name: str, labels: NDArray[np.int16]) -> list[tuple[str, tuple[int, int, int] | None]]:
    """(name, colour) of every class id; of an unknown taxonomy its number, and the viewer picks a colour."""
    if name in taxonomy_names():
        known = taxonomy(name)
        return list(zip(known.classes, known.palette, strict=True))
    return [(str(number), None) for number in range(int(labels.max(initial=0)) + 1)]


def _class_ids(name: str, labels: NDArray[np.int16]) -> NDArray[np.uint16]:
    """Ids as they are; UNLABELLED, which is no id of Rerun's, comes after the last class."""
    return np.where(labels == UNLABELLED, len(_classes(name, labels)), labels).astype(np.uint16)


def _context(name: str, labels: NDArray[np.int16]) -> Any:
    classes = [*_classes(name, labels), ("unlabelled", _GREY)]
    return rr.AnnotationContext(
        [rr.AnnotationInfo(id=number, label=label, color=colour) for number, (label, colour) in enumerate(classes)]
    )
