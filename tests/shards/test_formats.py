"""Corpora of every format version that ever left the house are still read, to the value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import FORMAT_VERSION
from brickyard.shards.scene import Scene
from brickyard.shards.stream import Stream
from brickyard.shards.verify import verify
from tests.worlds import toy_scene

CORPORA = Path(__file__).parent / "corpora"


def as_of_format_1(scene: Scene) -> Scene:
    """The toy scene without what format 1 had no place for."""
    assert scene.points is not None
    points = replace(scene.points, return_number=None, return_count=None, elongation=None)
    views = tuple(replace(view, rolling_shutter=None, semantic={}, instance=None) for view in scene.views)
    return replace(scene, world_crs=None, part=None, points=points, views=views)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_an_older_corpus_is_read(version: int) -> None:
    corpus = Corpus.open(CORPORA / f"format-{version}")
    assert corpus.manifest["format"] == version
    assert verify(corpus).problems == ()
    assert corpus.index["whole"].null_count == len(corpus) == 3
    for number in range(3):
        expected, found = as_of_format_1(toy_scene(number)), corpus.scene(number)
        assert found.identity == expected.identity
        assert expected.points is not None
        assert found.points is not None
        assert np.abs(found.points.xyz - expected.points.xyz).max() <= 0.002
        assert np.array_equal(found.points.instance, expected.points.instance)
        assert (found.part, found.world_crs, found.points.elongation) == (None, None, None)
        for view, wanted in zip(found.views, expected.views, strict=True):
            assert view.image == wanted.image
            assert (view.rolling_shutter, view.semantic, view.instance) == (None, {}, None)
    stream = Stream(corpus, ["points/xyz", "views/*/pairs"], batch=2, seed=0, epochs=1)
    assert sum(len(batch) for batch in stream) == 3
