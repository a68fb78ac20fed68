"""The corpus page: self-contained, escaped, honest about what is missing, and its dots are where they should be."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.evaluate.show import CorpusSummary, SplitCounts, corpus_page, summarise_corpus
from brickyard.evaluate.show.camera import HIDDEN, UndecodableImageError, camera_pictures, decode, outline
from brickyard.evaluate.show.cloud import HEIGHT as HIGH
from brickyard.evaluate.show.cloud import WIDTH as WIDE
from brickyard.evaluate.show.cloud import cloud_pictures, drawn_points, figure, fit, from_above, oblique, render
from brickyard.evaluate.show.colour import class_colours, depth_colours, turbo
from brickyard.evaluate.show.corpus import depth_range, licence_terms
from brickyard.evaluate.show.html import count, size
from brickyard.evaluate.show.raster import paint, shrink
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.scene import Correspondences, Domain, Identity, Points, Scene, Superpixels, View
from brickyard.shards.storage import Store
from tests.worlds import toy_corpus

WIDTH, HEIGHT = 160, 120


def stripes() -> NDArray[np.uint16]:
    """Superpixels 40 pixels wide."""
    return (np.arange(WIDTH) // 40).astype(np.uint16)[None].repeat(HEIGHT, 0)


def encoded(picture: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


def make_view(name: str = "front") -> View:
    rng = np.random.default_rng(3)
    chosen = np.arange(0, 400, 4, dtype=np.int32)
    pixel = np.column_stack([rng.integers(0, WIDTH, 100), rng.integers(0, HEIGHT, 100)]).astype(np.uint16)
    return View(
        name=name,
        image=encoded(rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)),
        image_format="png",
        width=WIDTH,
        height=HEIGHT,
        intrinsics=np.array([[100.0, 0, WIDTH / 2], [0, 100.0, HEIGHT / 2], [0, 0, 1]]),
        scene_from_camera=np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]]),
        superpixels=Superpixels(labels=stripes(), provenance="t"),
        pairs=Correspondences(
            point=chosen,
            pixel=pixel,
            depth=rng.uniform(2, 30, 100).astype(np.float32),
            visible=np.arange(100) % 5 > 0,
            provenance="test",
        ),
    )


def make_scene(scene_id: str = "0001", *, views: int = 2) -> Scene:
    rng = np.random.default_rng(7)
    xyz = rng.uniform((-20, -15, -2), (20, 15, 3), (400, 3)).astype(np.float32)
    points = Points(xyz=xyz, semantic={"nuscenes16": rng.integers(-1, 16, 400).astype(np.int16)})
    identity = Identity(
        dataset="toy",
        version="v1",
        split="train",
        sequence="s",
        scene_id=scene_id,
        timestamp_ns=None,
        domain="outdoor",
        licence="CC-BY-NC-SA-4.0",
    )
    cameras = tuple(make_view(f"camera {i}") for i in range(views))
    return Scene(identity=identity, world_from_scene=np.eye(4), points=points, views=cameras).validate()


def make_summary(**changes: object) -> CorpusSummary:
    split = SplitCounts(dataset="toy", split="train", scenes=2, points=81369, views=4, pairs=400, bytes=3 << 20)
    summary = CorpusSummary(name="toy corpus", splits=(split,), licences={"CC-BY-NC-SA-4.0": ("toy",)})
    return replace(summary, **changes)  # type: ignore[arg-type]  # any field


def make_page(
    tmp_path: Path, *scenes: Scene, summary: CorpusSummary | None = None, choice: str = "", **limits: int
) -> str:
    out = tmp_path / "page.html"
    corpus_page(summary or make_summary(), scenes, out, choice=choice, **limits)
    return out.read_text(encoding="utf-8")


class Links(HTMLParser):
    """Everything a browser could fetch or run, and whether elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "xlink:href")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_self_contained(tmp_path: Path) -> None:
    page = make_page(tmp_path, make_scene())
    parsed = Links(page)
    assert parsed.links and all(link.startswith("data:image/jpeg;base64,") for link in parsed.links)
    assert not {"script", "link", "iframe", "object", "embed", "a"} & set(parsed.tags)
    assert not parsed.open and not parsed.handlers
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", page))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    for link in parsed.links:
        Image.open(io.BytesIO(base64.b64decode(link.split(",", 1)[1]))).load()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "</title></style><script>alert(1)</script>\"'><img src=http://x onerror=y>\x00\ud800"
    view = replace(
        make_view(evil), superpixels=Superpixels(labels=np.zeros((HEIGHT, WIDTH), np.uint16), provenance=evil)
    )
    scene = replace(make_scene(evil), views=(view,), dropped={evil: 1})
    summary = make_summary(name=evil, quarantined=((evil, evil),), licences={evil: (evil,)}, fingerprint=evil)
    page = make_page(tmp_path, scene, summary=summary)
    assert page.count("&lt;script&gt;") > 8
    parsed = Links(page)
    assert "script" not in parsed.tags and not parsed.handlers and not parsed.open
    assert all(link.startswith("data:") for link in parsed.links)


def test_counts_licences_and_quarantine_are_told(tmp_path: Path) -> None:
    entries = tuple((f"toy/{i}", f"reason {i}") for i in range(250))
    page = make_page(tmp_path, summary=make_summary(quarantined=entries))
    for words in ("81\u202f369", "3.0 MiB", "no commercial use", "toy/199", "reason 199", "50 more"):
        assert words in page
    assert "toy/200" not in page
    assert "same licence" in licence_terms("CC-BY-NC-SA-3.0") and "same" not in licence_terms("CC-BY-4.0")
    assert "own terms" in licence_terms("LicenseRef-Whatever")
    assert (count(12_345_678), count(0), size(0), size(5 << 40)) == ("12.3 M", "0", "0 B", "5.0 TiB")


@pytest.mark.parametrize("taken", [None, "all", "train"])
def test_which_splits_were_built_is_told(tmp_path: Path, taken: str | None) -> None:
    split = SplitCounts(dataset="toy", split="train", scenes=1, points=1, views=0, pairs=0, bytes=1)
    summary = CorpusSummary(name="toy", splits=(split,), licences={}, taken=taken)
    corpus_page(summary, [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert [word for word in ("all", "train") if f"(splits: {word})" in page] == [word for word in (taken,) if word]


def test_what_a_scene_lacks_is_said(tmp_path: Path) -> None:
    scene = make_scene()
    assert scene.points is not None
    bare = replace(scene.views[0], pairs=None, superpixels=None)
    cases = {
        "This scene has no points.": replace(scene, points=None, views=(bare,)),
        "This scene has no views.": replace(scene, views=()),
        "its pose is unknown": replace(scene, views=(replace(bare, scene_from_camera=None),)),
        "no correspondences are stored": replace(scene, views=(bare,)),
        "400 points": replace(scene, points=replace(scene.points, semantic={})),
        "0 points": replace(scene, points=Points(xyz=np.zeros((0, 3), np.float32)), views=()),
        "1 points": replace(scene, points=Points(xyz=np.zeros((1, 3), np.float32)), views=()),
        "6 of 9 views": replace(scene, views=tuple(replace(bare, name=str(i)) for i in range(9))),
    }
    for words, case in cases.items():
        page = make_page(tmp_path, case.validate())
        assert words in page
        assert "By class" not in page or case.points is scene.points


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"not an image", "neither JPEG nor PNG"),
        (encoded(np.zeros((HEIGHT, WIDTH, 3), np.uint8))[:-40], "bytes, beginning with 89 50 4e 47"),
        (encoded(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "JPEG")[:300], "bytes, beginning with ff d8 ff"),
        (encoded(np.zeros((8, 9, 3), np.uint8)), "the file holds 9x8 pixels, the scene promises 160x120"),
    ],
)
def test_an_image_that_cannot_be_decoded_gives_its_reason(tmp_path: Path, image: bytes, reason: str) -> None:
    view = replace(make_view(), image=image)
    with pytest.raises(UndecodableImageError, match=re.escape(reason)):
        decode(view)
    page = make_page(tmp_path, replace(make_scene(), views=(view, make_view("good"))))
    assert "The image cannot be shown" in page and reason in page and "100 points" in page


def test_page_keeps_its_budgets(tmp_path: Path) -> None:
    scenes = [make_scene(str(i)) for i in range(4)]
    summary = make_summary(splits=(replace(make_summary().splits[0], scenes=4),))
    assert corpus_page(summary, iter(scenes), tmp_path / "a.html", max_scenes=2) == 2
    assert "the first 2 of those given" in (tmp_path / "a.html").read_text()
    one = len(make_page(tmp_path, scenes[0]).encode())
    limit = one + one // 2
    page = make_page(tmp_path, *scenes, summary=summary, max_bytes=limit)
    assert len(page.encode()) <= limit
    assert page.count('class="scene"') == 1 and "beyond" in page


def test_a_projected_point_is_drawn_at_its_pixel() -> None:
    """One visible and one hidden point on black, in an image that is shown at half its size."""
    width, height = 1280, 960
    view = replace(
        make_view(),
        image=encoded(np.zeros((height, width, 3), np.uint8)),
        width=width,
        height=height,
        superpixels=None,
        pairs=Correspondences(
            point=np.array([0, 1], np.int32),
            pixel=np.array([[400, 301], [900, 701]], np.uint16),
            depth=np.array([5, 5], np.float32),
            visible=np.array([True, False]),
            provenance="test",
        ),
    )
    picture = camera_pictures(view, 1.0, 25.0).points
    assert picture is not None and picture.shape == (480, 640, 3)
    lit = np.argwhere(picture.max(axis=2) > 40)
    dot, ring = lit[lit[:, 1] < 320], lit[lit[:, 1] >= 320]
    np.testing.assert_allclose(dot.mean(axis=0), (150.25, 199.75), atol=0.5)
    np.testing.assert_allclose(ring.mean(axis=0), (350.25, 449.75), atol=0.5)
    assert np.abs(dot - (150, 200)).max() <= 3
    np.testing.assert_array_equal(picture[150, 200], depth_colours(np.array(5.0), 1.0, 25.0))
    assert picture[350, 450].max() < 60 and 120 < picture[ring[:, 0], ring[:, 1]].max() <= max(HIDDEN)


def test_the_nearest_dot_lies_on_top() -> None:
    owner = paint((9, 9), np.array([[4.0, 4.0], [5.0, 4.0], [40.0, 4.0]]), 1.5)
    assert owner[4, 4] == 1 and owner[4, 5] == 1 and owner[4, 3] == 0 and owner[0, 0] == -1
    ring = paint((9, 9), np.array([[4.0, 4.0]]), 2.0, hole=1.5)
    assert ring[4, 4] == -1 and ring[4, 2] == 0
    assert shrink(np.full((4, 6, 3), 9, np.uint8)).tolist() == np.full((2, 3, 3), 9).tolist()


def test_superpixel_boundaries_lie_between_labels() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    marked = outline(image, Superpixels(labels=stripes(), provenance=""))
    assert np.flatnonzero(marked.any(axis=(0, 2))).tolist() == [40, 80, 120]


def test_plan_has_x_to_the_right_and_y_up_and_is_seen_from_above() -> None:
    square = np.array([(x, y, 0.0) for x in np.linspace(-4, 4, 30) for y in np.linspace(-3, 3, 30)])
    camera = fit(square, from_above())
    east, north, origin, high = camera.project(np.array([(2.0, 0, 0), (0, 2.0, 0), (0, 0, 0), (0, 0, 1.0)]))
    assert east[0] > origin[0] and abs(east[1] - origin[1]) < 1e-9 and north[1] < origin[1] and high[2] < origin[2]
    cloud = np.vstack([square, [(1.0, 1.0, 2.0)], [(1.0, 1.0, -2.0)]])
    colours = np.zeros((len(cloud), 3), np.uint8)
    colours[-2:] = (255, 0, 0), (0, 255, 0)
    picture = render(cloud, colours, camera, 1.0)
    column, row = np.rint(camera.project(np.array([(1.0, 1.0, 0)]))[0, :2]).astype(int)
    assert picture[row, column].tolist() == [255, 0, 0]


def test_oblique_view_is_a_rotation_with_up_pointing_up() -> None:
    rotation = oblique(np.random.default_rng(0).normal(size=(50, 3)) * (5, 2, 1))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0.999
    assert rotation[1, 2] < -0.5 and rotation[2, 2] < 0


def test_rooms_lose_their_ceiling() -> None:
    scene = make_scene()
    xyz = np.array([(x, 0, z) for x in (0.0, 30.0, 70.0) for z in (0.0, 1.0, 2.6)] * 20, np.float32)
    cases: list[tuple[Domain, float]] = [("indoor", 2.2), ("outdoor", 9), ("object", 9)]
    for domain, top in cases:
        case = replace(scene, identity=replace(scene.identity, domain=domain), points=Points(xyz=xyz))
        assert case.points is not None
        assert len(drawn_points(case, case.points)) == (xyz[:, 2] <= top).sum()


@pytest.mark.parametrize("place", [(0.0, 0.0), (470.0, -310.0), (5e4, 2e5)])
@pytest.mark.parametrize("reach", [2.0, 80.0, 3000.0])
def test_a_picture_covers_the_scene_wherever_it_lies(place: tuple[float, float], reach: float) -> None:
    """All points are inside each picture but the stray ones, which are counted; and they fill it."""
    rng = np.random.default_rng(3)
    centre = np.array((*place, 0.0))
    xyz = (rng.uniform((-reach, -0.7 * reach, 0), (reach, 0.7 * reach, 3), (1065, 3)) + centre).astype(np.float32)
    xyz[:3] = (9e5, 9e5, 0), (0, 0, 900), (-9e5, 0, 0)
    scene = replace(make_scene(), points=Points(xyz=xyz))
    assert scene.points is not None
    shown = drawn_points(scene, scene.points)
    assert shown.tolist() == list(range(3, 1065))
    found = cloud_pictures(scene)
    assert (found.drawn, found.points) == (1062, 1065) and "1\u202f062 of 1\u202f065 points" in found.note
    for cloud in found.pictures:
        pixels = cloud.camera.project(xyz[3:])[:, :2]
        assert (pixels >= 0).all() and (pixels <= (WIDE - 1, HIGH - 1)).all()
        assert (np.ptp(pixels, axis=0) > np.array((WIDE, HIGH)) * 0.9).any()
        bar = re.search(r"h([0-9.]+)v-4.*>([0-9.]+) m<", figure(cloud, ()))
        assert bar is not None and float(bar[2]) * cloud.camera.scale == pytest.approx(float(bar[1]), abs=0.1)


def test_the_page_says_how_much_it_shows(tmp_path: Path) -> None:
    page = make_page(tmp_path, make_scene(), choice="the one asked for")
    assert "1 of 2 scenes are drawn: the one asked for." in page and "All 400 points are drawn." in page
    assert "All 2 scenes are drawn." in make_page(tmp_path, make_scene("1"), make_scene("2"), choice="evenly")
    assert "The corpus holds no scene." in make_page(tmp_path, summary=make_summary(splits=()))


def test_labels_are_drawn_in_the_colours_of_their_taxonomy() -> None:
    found = cloud_pictures(make_scene())
    assert found.taxonomy == "nuscenes16" and found.pictures[-1].title == "By class (nuscenes16)"
    palette = ((1, 2, 3), (4, 5, 6))
    assert class_colours(np.array([1, 0, -1, 7]), palette).tolist() == [
        [4, 5, 6],
        [1, 2, 3],
        [96, 102, 112],
        [96, 102, 112],
    ]


def test_colour_scales_run_from_blue_to_red() -> None:
    blue, green, red = turbo(np.array([0.12, 0.5, 0.88])).astype(int)
    assert blue.argmax() == 2 and green.argmax() == 1 and red.argmax() == 0
    near, far, beyond = depth_colours(np.array([2.0, 50.0, 500.0]), 2.0, 50.0).astype(int)
    assert near.argmax() == 0 and far.argmax() == 2 and (far == beyond).all()


def test_a_corpus_is_summarised_and_its_scenes_are_drawn(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "corpus", scenes=6)
    summary = summarise_corpus(corpus, "toys")
    blobs = corpus.index.column("blobs").to_pylist()
    assert sum(s.scenes for s in summary.splits) == 6 and sum(s.points for s in summary.splits) == 6 * 400
    assert sum(s.bytes for s in summary.splits) == sum(blob["length"] for row in blobs for blob in row)
    assert summary.fingerprint == corpus.manifest["fingerprint"] and set(summary.licences) == set(
        corpus.manifest["licences"]
    )
    assert corpus_page(summary, (corpus.scene(key) for key in corpus.keys[:2]), tmp_path / "page.html") == 2


@pytest.mark.real
def test_dots_of_a_real_sweep_follow_its_depth(samples: Path, tmp_path: Path) -> None:
    """The lower a lidar point lies in the image of a street, the nearer it is; and the page holds all its pictures."""
    source = find_source("kitti_object")
    ref = next(iter(source.plan(Store(samples / "kitti" / "object"), source.options())))
    assert isinstance(ref, SceneRef)
    scene = add_correspondences(source.read(ref), CorrespondenceConfig())
    page = make_page(tmp_path, scene)
    assert page.count("data:image/jpeg") == 4 and len(page) < 2 << 20
    near, far = depth_range(scene.views)
    points = camera_pictures(scene.views[0], near, far).points
    assert points is not None
    bottom, middle = points[-60:].astype(int), points[150:200].astype(int)
    assert (bottom[..., 0] - bottom[..., 2]).mean() > 20 > (middle[..., 0] - middle[..., 2]).mean()
