"""Figures of clips: planted defects change the figure that is theirs, and the index can be asked for them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from brickyard.curate.clip_figures import DAMAGED, FIGURES, ClipFiguresConfig, add_clip_figures
from brickyard.shards.convert import convert
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError, SceneError
from brickyard.shards.scene import Scene, View
from brickyard.shards.selection import select
from brickyard.shards.storage import Store
from tests.train.planes import clip_corpus, plane_clip

SIZE, STEP = (480, 360), 10
WORLD = np.random.default_rng(0).integers(0, 255, (15, 30, 3)).astype(np.uint8)
WIDE = np.asarray(Image.fromarray(WORLD).resize((900, 450), Image.Resampling.NEAREST))


def frame(place: int) -> Image.Image:
    """A window onto a wide picture."""
    return Image.fromarray(WIDE[45 : 45 + SIZE[1], place : place + SIZE[0]])


def clip(pictures: list[Image.Image], number: int = 0) -> Scene:
    scene = plane_clip(number, frames=len(pictures), size=(40, 30))

    def shown(view: View, picture: Image.Image) -> View:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=92)
        return replace(view, image=file.getvalue(), width=SIZE[0], height=SIZE[1])

    views = tuple(shown(view, picture) for view, picture in zip(scene.views, pictures, strict=True))
    return replace(scene, views=views)


def figures(pictures: list[Image.Image]) -> dict[str, float]:
    return dict(add_clip_figures(clip(pictures), ClipFiguresConfig()).figures)


@pytest.fixture(scope="module")
def moving() -> list[Image.Image]:
    return [frame(STEP * k) for k in range(17)]


def test_a_moving_clip(moving: list[Image.Image]) -> None:
    scene = clip(moving)
    found = add_clip_figures(scene, ClipFiguresConfig()).figures
    assert found.keys() == FIGURES.keys()
    assert found["motion"] == pytest.approx(STEP / SIZE[0], rel=0.15)
    assert found["still_share"] == 0 == found["cuts"]
    assert 0.4 < found["brightness"] < 0.6 and found["dark_share"] < 0.05
    places = np.array([view.scene_from_camera[:3, 3] for view in scene.views])  # type: ignore[index]
    assert found["baseline_m"] == pytest.approx(np.median(np.linalg.norm(np.diff(places, axis=0), axis=1)))
    assert found["turn_degrees"] == pytest.approx(np.degrees(0.12 / 16), rel=1e-6)


def test_stillness_darkness_cuts_and_blur_are_told(moving: list[Image.Image]) -> None:
    plain = figures(moving)
    still = figures([*moving[:5], *[moving[4]] * 12])
    assert still["still_share"] == pytest.approx(12 / 16) and still["motion"] == 0
    dark = figures([picture.point(lambda value: value * 0.01) for picture in moving])
    assert dark["dark_share"] > 0.99 and dark["brightness"] < 0.02 and dark["sharpness"] == 0
    bright = figures([picture.point(lambda value: 255) for picture in moving])
    assert bright["bright_share"] > 0.99 and bright["motion"] == 0
    slow = [frame(k) for k in range(16)]
    other = [picture.transpose(Image.Transpose.ROTATE_180) for picture in slow]
    assert figures(slow)["cuts"] == 0 and figures(slow[:8] + other[8:])["cuts"] == 1
    blurred = [[p.filter(ImageFilter.GaussianBlur(radius)) for p in moving] for radius in (0.5, 1, 2)]
    blurs = [figures(pictures)["sharpness"] for pictures in blurred]
    assert plain["sharpness"] > blurs[0] > blurs[1] > blurs[2]


def test_single_frames_have_none(moving: list[Image.Image]) -> None:
    assert add_clip_figures(clip(moving[:1]), ClipFiguresConfig()).figures == {}


@pytest.mark.parametrize("damaged", [1, 16, 17])
def test_frames_that_cannot_be_decoded_cost_no_clip(moving: list[Image.Image], damaged: int) -> None:
    scene = clip(moving)
    views = tuple(replace(v, image=v.image[:500]) if k < damaged else v for k, v in enumerate(scene.views))
    found = add_clip_figures(replace(scene, views=views), ClipFiguresConfig())
    assert found.dropped[DAMAGED] == damaged and found.views == views
    assert ("motion" in found.figures) == (damaged == 1) and "baseline_m" in found.figures
    if damaged == 1:
        assert found.figures["motion"] == pytest.approx(STEP / SIZE[0], rel=0.15)
        assert found.figures["sharpness"] > 0


def test_what_they_mean_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs/recipes.md").read_text()
    assert all(f"| `{name}` | {meaning} |" in page for name, meaning in FIGURES.items())


def test_the_index_has_them_and_select_knows_their_names(tmp_path: Path, moving: list[Image.Image]) -> None:
    scenes = [
        add_clip_figures(clip(pictures, number), ClipFiguresConfig())
        for number, pictures in enumerate([moving, [moving[0]] * 17])
    ]
    bare = replace(clip(moving, 2), figures={})
    corpus = clip_corpus(tmp_path / "corpus", [*scenes, bare])
    assert dict(corpus.scene(0).figures) == dict(scenes[0].figures)
    assert select(corpus, at_most={"still_share": 0.5}).keys == ("planes/clip-000",)
    assert select(corpus, at_least={"still_share": 0.5}).keys == ("planes/clip-001",), "unknown is not met"
    with pytest.raises(CorpusError, match=r"no number 'stillness' in the index; there are .*still_share"):
        select(corpus, at_least={"stillness": 1})
    convert(corpus, Store(tmp_path / "tars"), "webdataset")
    again = Corpus.open(tmp_path / "tars")
    assert again.index.column("figures").to_pylist() == corpus.index.column("figures").to_pylist()


@pytest.mark.parametrize("wrong", [{"motion": float("nan")}, {"motion": 1}, {"Motion": 1.0}])
def test_what_is_no_figure_is_refused(wrong: dict[str, float], moving: list[Image.Image]) -> None:
    with pytest.raises(SceneError, match="figure"):
        replace(clip(moving[:2]), figures=wrong).validate()
