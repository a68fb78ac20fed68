"""Is a corpus what it says it is? Every byte against its digest; on request, every promise of the contract.

The quick check reads each shard once: the digest of the whole file (which covers the container's own structure), and
where that fails, the digest of every blob, so that the report names scene and field. The deep check also decodes every
scene and every image, validates it, holds its header against the index, and reprojects its correspondences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xxhash

from brickyard.shards.cameras import project
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import XYZ_STEPS, summarise
from brickyard.shards.errors import BrickyardError, CorruptDataError, ImageError
from brickyard.shards.images import check, inspect
from brickyard.shards.index import METADATA
from brickyard.shards.scene import Scene, View
from brickyard.shards.storage import digest64

Progress = Callable[[int, int], None]
"""Is called with (scenes done, scenes in all)."""

ROUNDED = ("bounds_min", "bounds_max", "visible_share")
"""Columns of numbers that were computed before the coordinates were quantised."""

_ERROR_M = 0.004
"""How far a point may lie from where it was when its pixel was found, along each axis."""


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        problems: one sentence each; empty when all is well.
    """

    scenes: int
    blobs: int
    bytes: int
    problems: tuple[str, ...]


def verify(corpus: Corpus, *, deep: bool = False, progress: Progress = lambda done, total: None) -> Report:
    """Check a corpus. Never raises for damage: everything that is wrong is in the report."""
    problems: list[str] = []
    blobs = total_bytes = 0
    rows_of: dict[str, list[int]] = {}
    for row in range(len(corpus)):
        rows_of.setdefault(corpus.shard(row), []).append(row)
    expected = {str(entry["name"]): entry for entry in corpus.manifest["shards"]}
    for name in sorted(rows_of.keys() - expected.keys()):
        problems.append(f"shard {name}: the index uses it, but the manifest does not know it")
    done = 0
    for name, entry in expected.items():
        progress(done, len(corpus))
        count, size, found = _verify_shard(corpus, name, str(entry["digest"]), rows_of.get(name, []))
        blobs, total_bytes = blobs + count, total_bytes + size
        problems += found
        if len(rows_of.get(name, [])) != entry["scenes"]:
            problems.append(
                f"shard {name}: {len(rows_of.get(name, []))} scenes in the index, {entry['scenes']} written"
            )
        for row in rows_of.get(name, []):
            if deep and not found:
                problems += _verify_scene(corpus, row)
                progress(done, len(corpus))
            done += 1
    progress(len(corpus), len(corpus))
    return Report(len(corpus), blobs, total_bytes, tuple(problems))


def _verify_shard(corpus: Corpus, name: str, digest: str, rows: list[int]) -> tuple[int, int, list[str]]:
    """(blobs, bytes, problems) of one shard file."""
    try:
        data = corpus.store.read(name)
    except (OSError, BrickyardError) as problem:
        return 0, 0, [f"shard {name}: cannot be read: {problem}"]
    blobs, problems = 0, []
    whole = xxhash.xxh3_128_hexdigest(data) == digest
    view = memoryview(data)
    for row in rows:
        for field, place in Corpus.addresses(corpus, row).items():  # its own; a layer is verified for itself
            blobs += 1
            blob = view[place.offset : place.offset + place.length] if place.offset >= 0 else b""
            if len(blob) != place.length:
                wrong = f"{len(blob)} of {place.length} bytes are there"
            elif digest64(blob) != place.digest:
                wrong = f"digest of the {place.length} bytes at offset {place.offset} is not the recorded one"
            else:
                continue
            problems.append(str(CorruptDataError(wrong, shard=name, scene=corpus.keys[row], field=field)))
    if not whole and not problems:
        problems.append(f"shard {name}: bytes outside the scenes' blobs (the container's own structure) were changed")
    return blobs, len(data), problems


def _verify_scene(corpus: Corpus, row: int) -> list[str]:
    """Decode, validate and reproject one scene; hold it against its row of the index."""
    try:
        scene = corpus.scene(row)
    except BrickyardError as problem:
        return [str(problem)]
    subject = f"scene {corpus.keys[row]}"
    problems = [f"{subject}: {found}" for found in _contradictions(scene, corpus.index.slice(row, 1).to_pylist()[0])]
    for view in scene.views:
        if (damage := _image_problem(view)) is not None:
            problems.append(f"{subject}: view {view.name}: {damage}")
        error = reprojection_error(scene, view)
        if not error <= 1.0:
            where = "behind the camera or at another depth" if error == np.inf else f"off by {error:.1f} pixels"
            problems.append(f"{subject}: view {view.name}: a correspondence is {where}")
    return problems


def _contradictions(scene: Scene, entry: dict[str, Any]) -> Iterator[str]:
    """Where the header and fields of a scene say something else than its row of the index."""
    found = {name: getattr(scene.identity, name, None) for name in METADATA.names} | summarise(scene)
    step = max(XYZ_STEPS[scene.identity.domain])
    for name in METADATA.names:
        if name not in entry:
            continue  # a corpus of an earlier format
        ours, theirs = found[name], entry[name]
        if name in ROUNDED and ours is not None and theirs is not None:
            same = bool(np.allclose(ours, theirs, rtol=1e-6, atol=step))
        else:
            same = ours == theirs
        if not same:
            yield f"{name} is {str(ours)[:200]}, the index says {str(theirs)[:200]}"


def _image_problem(view: View) -> str | None:
    """What is wrong with the image of a view, all of it decoded."""
    try:
        header = inspect(view.image)
        if (header.format, header.size) != (view.image_format, (view.width, view.height)):
            promised = f"the scene promises {view.image_format} of {view.width}x{view.height}"
            return f"the image is {header.format} of {header.width}x{header.height}, {promised}"
        check(view.image)
    except ImageError as problem:
        return f"the image is damaged: {problem}"
    return None


def reprojection_error(scene: Scene, view: View) -> float:
    """Largest distance in pixels between a stored correspondence and the projection of its point, with the view's own
    camera model and, if the pairs were made so, its rolling shutter; infinite where the camera cannot see a point or
    its stored depth is more than 1 cm off."""
    if view.pairs is None or not len(view.pairs) or scene.points is None or view.scene_from_camera is None:
        return 0.0
    if "rolling_shutter=off" in view.pairs.provenance:
        view = replace(view, rolling_shutter=None)
    assert view.pairs is not None
    seen = project(scene.points.xyz[view.pairs.point], view)
    reach = seen.along("ray" if view.pairs.provenance.startswith("min_distance") else "z")
    wrong = ~np.isfinite(seen.uv).all(axis=1) | (np.abs(reach - view.pairs.depth) > 0.01)
    if wrong.any():
        return float("inf")
    beyond = np.abs(seen.uv - view.pairs.pixel).max(axis=1) - 0.5
    # Quantised points near the camera, or near the poles of a panorama, move by more than a pixel: allow what their own
    # error bound explains.
    far = np.flatnonzero(beyond > 0)
    places = scene.points.xyz[view.pairs.point[far]].astype(np.float64)
    for moved in _ERROR_M * np.eye(3):
        beyond[far] -= np.nan_to_num(np.abs(project(places + moved, view).uv - seen.uv[far]).max(axis=1))
    return float(np.maximum(beyond, 0).max())
