"""Layers: new fields for the scenes of a committed corpus, in files of their own.

    corpus/layers/<name>/      manifest.json, index.parquet, shards/, parts/: a small corpus, committed like any other

Shards are immutable, so another set of superpixels or a teacher's cached features are written beside them, by the same
commit protocol (kill it, run it again). `LayeredCorpus.open(root, layers=["slic300"])` then has the fields
"slic300/views/0/superpixels" and so on, verified like all others; whoever does not ask for the layer never sees it.
Scenes that a corpus has grown by have no such fields until the layer is written once more, which makes theirs alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.codecs import Allocate, Spec, fresh
from brickyard.shards.convert import rows_by_shard, summary_of
from brickyard.shards.corpus import Corpus, check_shape
from brickyard.shards.documents import Every, read_document
from brickyard.shards.encode import FORMAT_VERSION, HEADER, EncodedScene, SceneHeader, decode_field
from brickyard.shards.errors import CorpusError, CorruptDataError
from brickyard.shards.index import Address
from brickyard.shards.lock import only_writer
from brickyard.shards.parts import read_part
from brickyard.shards.storage import Store

Annotate = Callable[[int], Mapping[str, tuple[bytes, Spec]]]
Progress = Callable[[int, int], None]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_TAKEN = ("points", "views", "header", "annotations")
_RESERVED = ("described",)


def layer_store(store: Store, name: str) -> Store:
    """Where a layer of the corpus in `store` lies."""
    return store.below(f"layers/{name}")


def layer_names(store: Store) -> list[str]:
    """Committed and unfinished layers of a corpus."""
    return [name.rstrip("/") for name in store.list("layers") if name.endswith("/")]


def write_layer(
    corpus: Corpus,
    name: str,
    annotate: Annotate,
    *,
    provenance: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Compute and commit a layer, shard by shard; returns its manifest.

    Args:
        name: lower-case letters, digits, - and _; it begins the names of the layer's fields.
        annotate: row of the index -> field ("points/feature", "views/3/superpixels") -> what an encoder of
            `shards.codecs` returned. A scene without fields is left out of the layer.
        provenance: what made it, with all parameters, as JSON. Another provenance is another layer: continuing an
            unfinished one with it is refused.

    Raises:
        CorpusError: a bad name, the folder holds another layer, or another process writes there.
    """
    if name in _RESERVED:
        raise CorpusError(f"a layer cannot be called {name!r}: it has a meaning of its own")

    def made(row: int) -> EncodedScene | None:
        fields = annotate(row)
        return _annotated(corpus, row, fields) if fields else None

    return commit_layer(corpus, name, made, provenance=provenance, progress=progress)


def commit_layer(
    corpus: Corpus,
    name: str,
    make: Callable[[int], EncodedScene | None],
    *,
    provenance: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """As `write_layer`, with `make` giving the whole entry of a row, None for none."""
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise CorpusError(f"a layer cannot be called {name!r}: lower-case letters, digits, - and _, and not {_TAKEN}")
    store = layer_store(corpus.store, name)
    fingerprint = {"layer": name, "base": corpus.origin, "provenance": dict(provenance)}
    build = fingerprint_digest(fingerprint)
    with only_writer(store):
        start_build(store, fingerprint)
        shards = rows_by_shard(corpus)
        for done, (task, rows) in enumerate(shards):
            progress(done, len(shards))
            if read_part(store, task, build) is None:
                scenes = [scene for row in rows if (scene := make(row)) is not None]
                commit_task(store, task, build, scenes, [])
        progress(len(shards), len(shards))
        return finish_build(store, [task for task, _ in shards], build, [], fingerprint)


def open_layer(base: Corpus, name: str) -> Corpus:
    """A committed layer of a corpus, itself a corpus without scenes of its own. Raises `CorpusError`."""
    store = layer_store(base.store, name)
    if not _NAME.fullmatch(name) or not store.exists():
        there = ", ".join(layer_names(base.store)) or "none"
        raise CorpusError(f"{base.store.uri} has no layer {name!r}; its layers: {there}")
    layer = Corpus.open(store)
    if layer.manifest.get("base") != base.origin:
        raise CorpusError(f"{store.uri} is a layer of another corpus ({layer.manifest.get('base')}): write it again")
    return layer


def _annotated(corpus: Corpus, row: int, fields: Mapping[str, tuple[bytes, Spec]]) -> EncodedScene:
    """A scene of a layer: its header has nothing but the specs of its fields."""
    header = {"format": FORMAT_VERSION, "fields": {field: spec for field, (_, spec) in fields.items()}}
    return EncodedScene(
        identity=corpus.header(row).identity,
        header=json.dumps(header, separators=(",", ":"), allow_nan=False).encode(),
        blobs={field: blob for field, (blob, _) in fields.items()},
        summary=summary_of(corpus, row),
    )


class LayeredCorpus(Corpus):
    """A corpus together with some of its layers, whose fields are called "<layer>/<field>".

    Attributes:
        layers: name -> the layer, itself a corpus without scenes of its own.
    """

    layers: dict[str, Corpus]

    @classmethod
    def open(cls, root: str | os.PathLike[str] | Store, *, layers: Sequence[str] = (), **options: Any) -> LayeredCorpus:
        """Open a committed corpus and committed layers of it; options as of `Corpus.open`. Raises `CorpusError`."""
        base = super().open(root, **options)
        assert isinstance(base, LayeredCorpus)
        base.layers = {name: open_layer(base, name) for name in layers}
        return base

    def addresses(self, row: int) -> dict[str, Address]:
        places = super().addresses(row)
        for name, layer in self.layers.items():
            if (other := layer.find(self.keys[row])) is not None:
                found = layer.addresses(other)
                places |= {f"{name}/{field}": place for field, place in found.items() if field != HEADER}
        return places

    def fetch(self, row: int, places: Mapping[str, Address], allocate: Allocate = fresh) -> dict[str, memoryview]:
        own = {field: place for field, place in places.items() if field.partition("/")[0] not in self.layers}
        return super().fetch(row, own, allocate)

    def header(self, row: int, ahead: Mapping[str, memoryview] | None = None) -> SceneHeader:
        header = super().header(row, ahead or {})
        for name, layer in self.layers.items():
            if (other := layer.find(self.keys[row])) is not None:
                header.fields |= {f"{name}/{field}": spec for field, spec in _specs(layer, other).items()}
        return header

    def read_field(
        self,
        row: int,
        header: SceneHeader,
        field: str,
        places: Mapping[str, Address],
        allocate: Allocate = fresh,
        *,
        ahead: Mapping[str, memoryview] | None = None,
    ) -> Any:
        name, _, rest = field.partition("/")
        if name not in self.layers:
            return super().read_field(row, header, field, places, allocate, ahead=ahead or {})
        layer, key = self.layers[name], self.keys[row]
        other = layer.find(key)
        if other is None or field not in places:
            raise CorruptDataError("the layer has no such field", shard=f"layers/{name}", scene=key, field=field)
        check_shape(layer.store, layer.shard(other), header, rest, key=key, layer=name)
        blob = layer.read_blob(other, rest, places[field], allocate)
        shard = f"layers/{name}/{layer.shard(other)}"
        return decode_field(header.fields, field, blob, allocate, shard=shard, scene=key)


def _specs(layer: Corpus, row: int) -> dict[str, Spec]:
    """Field -> spec of a scene of a layer."""
    shard, key = layer.shard(row), layer.keys[row]
    places = layer.addresses(row)
    if HEADER not in places:
        raise CorruptDataError("the index has no address", shard=shard, scene=key, field=HEADER)
    damaged = partial(CorruptDataError, shard=shard, scene=key, field=HEADER)
    blob = layer.read_blob(row, HEADER, places[HEADER])
    table = read_document(blob, "the header", {"format": int, "fields": Every(dict)}, error=damaged)
    if table["format"] > FORMAT_VERSION:
        raise CorpusError(
            f"{layer.store.uri} has format {table['format']}, this program reads up to {FORMAT_VERSION}: update it"
        )
    fields: dict[str, Spec] = table["fields"]
    return fields
