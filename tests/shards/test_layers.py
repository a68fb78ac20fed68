"""New fields beside immutable shards: committed, verified, streamed; unseen by whoever does not ask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from brickyard.shards.codecs import Spec, encode_array, encode_rows
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError, CorruptDataError
from brickyard.shards.layers import LayeredCorpus, layer_names, layer_store, write_layer
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from brickyard.shards.verify import verify
from tests.worlds import toy_corpus, toy_scene


def heights(corpus: Corpus, calls: list[int] | None = None, stop: int | None = None) -> object:
    def annotate(row: int) -> Mapping[str, tuple[bytes, Spec]]:
        if calls is not None:
            calls.append(row)
        if row == stop:
            raise KeyboardInterrupt
        scene = corpus.scene(row)
        if not scene.views:
            return {}
        assert scene.points is not None
        image = np.full((40, 64), row, np.uint16)
        height = scene.points.xyz[:, 2] - scene.points.xyz[:, 2].min()
        return {"points/height": encode_array(height), "views/0/superpixels": encode_rows(image)}

    return annotate


def test_a_layer_is_streamed_with_the_scenes_it_belongs_to(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_layer(corpus, "height", heights(corpus), provenance={"made": "by a test"})  # type: ignore[arg-type]
    assert all(path.read_bytes() == data for path, data in before.items())
    assert layer_names(corpus.store) == ["height"]
    assert verify(Corpus.open(layer_store(corpus.store, "height"))).problems == ()
    layered = LayeredCorpus.open(tmp_path, layers=["height"])
    fields = ["points/xyz", "height/points/*", "height/views/*"]
    samples = [sample for items in Stream(layered, fields, batch=4, epochs=1, threads=2) for sample in items]
    assert len(samples) == 12
    for sample in samples:
        if not sample.views:
            assert sample.fields == ["points/xyz"]
            continue
        xyz = sample["points/xyz"].dequantise()
        assert np.allclose(sample["height/points/height"], xyz[:, 2] - xyz[:, 2].min())
        assert sample["height/views/0/superpixels"].tolist() == np.full((40, 64), sample.row).tolist()
    assert layered.scene(3).identity == toy_scene(3).identity
    plain = next(iter(Stream(Corpus.open(tmp_path), ["*"], batch=1)))[0]
    assert not any(name.startswith("height/") for name in plain.fields)


def test_an_interrupted_layer_goes_on(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_layer(corpus, "h", heights(corpus, stop=7), provenance={})  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="unfinished"):
        LayeredCorpus.open(tmp_path, layers=["h"])
    with pytest.raises(CorpusError, match="different build"):
        write_layer(corpus, "h", heights(corpus), provenance={"other": 1})  # type: ignore[arg-type]
    calls: list[int] = []
    write_layer(corpus, "h", heights(corpus, calls), provenance={})  # type: ignore[arg-type]
    assert min(calls) == 5  # the first shard was committed
    write_layer(corpus, "h", heights(corpus, calls := []), provenance={})  # type: ignore[arg-type]
    assert calls == []


def test_damage_in_a_layer_is_named(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path)
    write_layer(corpus, "h", heights(corpus), provenance={})  # type: ignore[arg-type]
    layer = Corpus.open(layer_store(corpus.store, "h"))
    place = layer.addresses(0)["points/height"]
    path = tmp_path / "layers" / "h" / layer.shard(0)
    data = bytearray(path.read_bytes())
    data[place.offset + 30] ^= 4
    path.write_bytes(data)
    layered = LayeredCorpus.open(tmp_path, layers=["h"])
    with pytest.raises(CorruptDataError, match="scene-000, field points/height"):
        list(Stream(layered, ["h/points/height"], batch=4, epochs=1))
    assert len(list(Stream(layered, ["points/xyz"], batch=4, epochs=1))) == 3


def test_layers_of_other_corpora_and_bad_names_are_refused(tmp_path: Path) -> None:
    corpus, other = toy_corpus(tmp_path / "a"), toy_corpus(tmp_path / "b", scenes=5)
    write_layer(other, "h", heights(other), provenance={})  # type: ignore[arg-type]
    (tmp_path / "b" / "layers").rename(tmp_path / "a" / "layers")
    with pytest.raises(CorpusError, match="another corpus"):
        LayeredCorpus.open(tmp_path / "a", layers=["h"])
    with pytest.raises(CorpusError, match="has no layer 'g'; its layers: h"):
        LayeredCorpus.open(tmp_path / "a", layers=["g"])
    for name in ("views", "../x", "A", ""):
        with pytest.raises(CorpusError, match="cannot be called"):
            write_layer(corpus, name, heights(corpus), provenance={})  # type: ignore[arg-type]
    assert Store(tmp_path).below("a").exists("manifest.json")
