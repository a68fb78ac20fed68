"""The corpus page: counts, licences, quarantine, then scenes as pictures, so that a person can judge the data.

One file, at most `max_bytes`; scenes are taken in the order given until they are enough or the page is full. How many
of the scenes and of their points and views are drawn is said. About a second a scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from brickyard.evaluate.show.camera import UndecodableImageError, camera_pictures, is_wide
from brickyard.evaluate.show.cloud import cloud_pictures, figure
from brickyard.evaluate.show.colour import RGB, css, depth_colours, spread
from brickyard.evaluate.show.html import Html, cards, chips, count, page, size, table, tag
from brickyard.evaluate.show.raster import data_uri
from brickyard.evaluate.show.summary import CorpusSummary
from brickyard.shards.scene import Scene, View
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

MAX_SCENES = 12
_TAKEN = {
    "all": "No split of its sources was left out (splits: all).",
    "train": "Built from training scenes alone (splits: train).",
}
MAX_VIEWS = 6
MAX_QUARANTINED = 200
MAX_PAGE_BYTES = 20 << 20

_TERMS = {
    "LicenseRef-ScanNet-TOU": "ScanNet terms of use: non-commercial research and education under a signed agreement; "
    "neither the data nor data derived from them may be passed on.",
    "LicenseRef-ScanNetPP": "ScanNet++ terms of use: non-commercial research under a signed agreement; not to be "
    "passed on.",
    "LicenseRef-Waymo-Open-Dataset": "Waymo dataset licence: non-commercial; models trained on it fall under the same "
    "terms.",
    "LicenseRef-S3DIS": "S3DIS terms: non-commercial research after registration.",
    "LicenseRef-Structured3D": "Structured3D terms of use: research only, under a signed form; not to be passed on.",
    "LicenseRef-Apple-ARKitScenes": "Apple's ARKitScenes terms: non-commercial research; passed on only under the same "
    "notice. Ask before any commercial use.",
    "LicenseRef-Aria-ASE": "Aria Synthetic Environments Dataset License: research, accepted at sign-up; not to be "
    "passed on.",
    "LicenseRef-Matterport-Academic": "Matterport's End User License Agreement for Academic Use of Model Data: "
    "academic, non-commercial; the data may not be passed on.",
    "CC0-1.0": "Public domain: any use. Simulated worlds are under it.",
    "Apache-2.0": "Any use; keep notices.",
    "MIT": "Any use; keep the notice.",
}
_CLAUSES = {
    "BY": "name the authors",
    "NC": "no commercial use",
    "SA": "what is derived carries the same licence",
    "ND": "no derived works may be passed on",
}


def corpus_page(
    summary: CorpusSummary,
    scenes: Iterable[Scene],
    out: Path,
    *,
    choice: str = "",
    max_scenes: int = MAX_SCENES,
    max_bytes: int = MAX_PAGE_BYTES,
) -> int:
    """Write the page of a corpus.

    Args:
        scenes: those to draw; they are read one at a time and not kept.
        out: HTML file; it appears only when it is whole.
        choice: in words, how these were chosen among the scenes of the corpus.
        max_scenes, max_bytes: limits of the page.

    Returns:
        The number of scenes drawn.
    """
    head = _head(summary)
    sections: list[Html] = []
    used, why = len(head.encode()) + 16384, choice
    for scene in scenes:
        if len(sections) == max_scenes:
            why = f"the first {max_scenes} of those given"
            break
        section = scene_section(scene)
        used += len(section.encode())
        if used > max_bytes:
            why = f"another would take the page beyond {size(max_bytes)}"
            break
        sections.append(section)
    note = tag("p", _shown(summary, len(sections), why), class_="soft")
    foot = tag("footer", "Written by brickyard; this file loads nothing from anywhere.")
    store = Store(out.absolute().parent)
    store.write(out.name, page(summary.name, head, tag("h2", "Scenes"), note, sections, foot))
    store.close()
    return len(sections)


def _shown(summary: CorpusSummary, drawn: int, why: str) -> str:
    """How many scenes of how many the page shows, and why no more."""
    there = sum(split.scenes for split in summary.splits)
    if not there:
        return "The corpus holds no scene."
    if drawn == there:
        return f"All {count(there)} scenes are drawn." if there > 1 else "Its only scene is drawn."
    return f"{count(drawn)} of {count(there)} scenes are drawn" + (f": {why}." if why else ".")


def _head(summary: CorpusSummary) -> Html:
    splits = summary.splits
    figures = [
        (count(sum(s.scenes for s in splits)), "scenes"),
        (count(sum(s.points for s in splits)), "points"),
        (count(sum(s.views for s in splits)), "views"),
        (count(sum(s.pairs for s in splits)), "point-pixel pairs"),
        (size(sum(s.bytes for s in splits)), "stored"),
        (count(len(summary.quarantined)), "quarantined"),
    ]
    rows = [
        (s.dataset, s.split, count(s.scenes), count(s.points), count(s.views), count(s.pairs), size(s.bytes))
        for s in splits
    ]
    return tag(
        "div",
        tag("header", tag("p", "Corpus", class_="eyebrow"), tag("h1", summary.name)),
        None if summary.fingerprint is None else tag("p", "Build ", tag("code", summary.fingerprint), class_="soft"),
        cards(figures),
        tag("h2", "Datasets"),
        None if summary.taken is None else tag("p", _TAKEN[summary.taken], class_="soft"),
        table(("Dataset", "Split", "Scenes", "Points", "Views", "Pairs", "Stored"), rows, numbers=range(2, 7)),
        tag("h2", "Licences"),
        table(
            ("Licence", "Datasets", "What it means"),
            [(tag("code", name), ", ".join(sets), licence_terms(name)) for name, sets in summary.licences.items()],
        ),
        _quarantine(summary.quarantined),
    )


def licence_terms(licence: str) -> str:
    """What a licence id asks of the user, in short; the licence itself decides."""
    if licence in _TERMS:
        return _TERMS[licence]
    if licence.startswith("CC-BY"):
        clauses = [_CLAUSES[part] for part in licence.split("-")[1:] if part in _CLAUSES]
        return "Creative Commons: " + "; ".join(clauses) + "."
    return "Not known here: read the dataset's own terms before use."


def _quarantine(entries: Sequence[tuple[str, str]]) -> Html:
    if not entries:
        return tag("p", "No scene was quarantined.", class_="soft", style="margin-top:16px")
    more = len(entries) - MAX_QUARANTINED
    return tag(
        "div",
        tag("h2", "Quarantined"),
        table(("Scene", "Reason"), [(tag("code", key), reason) for key, reason in entries[:MAX_QUARANTINED]]),
        tag("p", f"... and {more} more.", class_="soft") if more > 0 else None,
    )


def scene_section(scene: Scene) -> Html:
    """One scene: its cloud from outside, then what each camera sees."""
    clouds = cloud_pictures(scene)
    near, far = depth_range(scene.views)
    has_pairs = any(view.pairs is not None and len(view.pairs) for view in scene.views)
    shown = _evenly(scene.views, MAX_VIEWS)
    views = [_view_figures(scene, view, near, far) for view in shown]
    return tag(
        "section",
        tag("h2", scene.identity.key),
        chips(_facts(scene)),
        tag("div", [figure(cloud, scene.views) for cloud in clouds.pictures], class_="row") if clouds.points else None,
        tag("p", clouds.note, class_="soft") if clouds.points else None,
        _class_legend(scene, clouds.taxonomy) if clouds.taxonomy else None,
        tag("p", "This scene has no points.", class_="soft") if scene.points is None else None,
        tag("p", "This scene has no views.", class_="soft") if not scene.views else None,
        _depth_legend(near, far) if has_pairs else None,
        views,
        tag("p", f"{len(shown)} of {len(scene.views)} views.", class_="soft")
        if len(shown) < len(scene.views)
        else None,
        class_="scene",
    )


def _facts(scene: Scene) -> list[str]:
    identity, points, views = scene.identity, scene.points, scene.views
    facts = [identity.domain, f"split {identity.split}", f"version {identity.version}", identity.licence]
    if points is not None:
        facts.append(f"{count(len(points))} points")
        low, high = (points.xyz.min(axis=0), points.xyz.max(axis=0)) if len(points) else (np.zeros(3), np.zeros(3))
        facts.append(" x ".join(f"{extent:.1f}" for extent in high - low) + " m")
    facts.append(f"{len(views)} view" + "s" * (len(views) != 1))
    pairs = sum(len(view.pairs) for view in views if view.pairs is not None)
    if pairs:
        seen = sum(int(view.pairs.visible.sum()) for view in views if view.pairs is not None)
        facts.append(f"{count(pairs)} pairs, {seen / pairs:.0%} visible")
    return facts + [f"dropped: {what} ({number})" for what, number in scene.dropped.items() if number]


def _view_figures(scene: Scene, view: View, near: float, far: float) -> Html:
    title = tag("h3", view.name)
    notes = []
    if scene.points is not None and view.pairs is None:
        why = "its pose is unknown" if view.scene_from_camera is None else "no correspondences are stored"
        notes.append(tag("p", f"No points are drawn: {why}.", class_="soft"))
    try:
        pictures = camera_pictures(view, near, far)
    except UndecodableImageError as error:
        return tag("div", title, tag("p", f"The image cannot be shown: {error}", class_="note"))
    figures = [_picture(pictures.image, f"{view.width} x {view.height}, as shipped ({size(len(view.image))})")]
    if pictures.superpixels is not None and view.superpixels is not None:
        used = len(np.unique(view.superpixels.labels))
        figures.append(_picture(pictures.superpixels, f"{used} superpixels: {view.superpixels.provenance}"))
    if pictures.points is not None and view.pairs is not None:
        seen = int(view.pairs.visible.sum())
        words = f"{count(len(view.pairs))} points, {count(seen)} visible: {view.pairs.provenance}"
        figures.append(_picture(pictures.points, words))
    return tag("div", title, notes, tag("div", figures, class_="row wide" if is_wide(view) else "row"))


def _picture(picture: RGB, caption: str) -> Html:
    height, width = picture.shape[:2]
    image = tag("img", src=data_uri(picture), alt=caption, width=width, height=height)
    return tag("figure", tag("div", image, class_="stack"), tag("figcaption", caption))


def depth_range(views: Sequence[View]) -> tuple[float, float]:
    """Depths in metres at the ends of a scene's colour scale: 2nd and 98th percentile over all views."""
    depths = [view.pairs.depth for view in views if view.pairs is not None and len(view.pairs)]
    if not depths:
        return 1.0, 10.0
    near, far = spread(np.concatenate(depths))
    near = max(near, 0.05)
    return near, max(far, near * 1.5)


def _depth_legend(near: float, far: float) -> Html:
    stops = ", ".join(css(rgb) for rgb in depth_colours(np.geomspace(near, far, 17), near, far))
    ticks = [near * (far / near) ** (i / 4) for i in range(5)]
    labels = [
        tag("span", f"{t:.2g} m" if t < 10 else f"{t:.0f} m", style=f"left:{25 * i}%") for i, t in enumerate(ticks)
    ]
    return tag(
        "div",
        tag("div", labels, class_="bar", style=f"background:linear-gradient(90deg, {stops})"),
        tag(
            "span",
            tag("i", class_="dot", style=f"background:{css(depth_colours(np.array(near), near, far))}"),
            "visible, by depth",
        ),
        tag("span", tag("i", class_="ring"), "hidden behind another surface"),
        class_="legend",
        style="margin-top:22px",
    )


def _class_legend(scene: Scene, name: str) -> Html:
    """The classes that occur, by how many points they have."""
    assert scene.points is not None
    labels, classes = scene.points.semantic[name], taxonomy(name)
    ids, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    entries = [(classes.classes[i], css(classes.palette[i])) for i in ids[order] if i < len(classes.classes)]
    if (labels < 0).any():
        entries.append((f"unlabelled {np.mean(labels < 0):.0%}", "#606670"))
    return tag("p", [tag("span", tag("i", style=f"background:{rgb}"), word) for word, rgb in entries], class_="legend")


def _evenly(views: Sequence[View], limit: int) -> Sequence[View]:
    if len(views) <= limit:
        return views
    return [views[round(i * (len(views) - 1) / (limit - 1))] for i in range(limit)]
