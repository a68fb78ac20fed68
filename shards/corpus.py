"""A committed corpus, open for reading.

    corpus/
      manifest.json          written last: what this corpus is; without it there is no corpus
      index.parquet          one row per scene, the address of every blob
      shards/NNNNN-<digest>.parquet (or .tar, the WebDataset container)
      parts/NNNNN.parquet    the commit record of each shard
      build.json             the fingerprint of the build that may continue here

Every read is checked against the digest in the index.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from brickyard.shards.cache import Cache, CacheConfig
from brickyard.shards.codecs import Allocate, fresh
from brickyard.shards.documents import MAX_BYTES, Every, Maybe, check_document, read_document
from brickyard.shards.encode import FORMAT_VERSION, HEADER, SceneHeader, decode_field, decode_scene
from brickyard.shards.errors import NONSENSE, CorpusError, CorruptDataError
from brickyard.shards.fetch import fetch, from_cache
from brickyard.shards.index import MAX_INDEX_BYTES, Address, Quarantined, read_index
from brickyard.shards.quarantine import MOVED, MOVED_SHAPE, get_lists
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store, digest64

MANIFEST = "manifest.json"
INDEX = "index.parquet"
MAX_BLOB_BYTES = 2**31 - 1024
MANIFEST_FORMAT = FORMAT_VERSION + 1
"""Newest format of a manifest: one more than that of the scenes where long lists lie in files of their own."""

_REASONS = [{"key": str, "reason": str}]
_SHAPE = {
    "format": int,
    "digest": str,
    "index_digest": str,
    "fingerprint": str,
    "scenes": int,
    "shards": [{"name": str, "bytes": int, "digest": str, "scenes": int}],
    "totals": Every(Every(int)),
    "licences": Every([str]),
    "quarantined": _REASONS,
    "notices": Maybe(_REASONS),
    MOVED: Maybe(Every(MOVED_SHAPE)),
    "was": Maybe([{"corpus": str, "fingerprint": str, "scenes": int}]),
}
_SHARD_NAME = re.compile(r"shards/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_MAX_OFFSET = 1 << 50
_BOMB_FLOOR, _BOMB_RATIO = 32 << 20, 100
NOTHING: Mapping[str, memoryview] = {}


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Digest of a manifest's content, all but the entry "digest" that holds it."""
    content = {name: value for name, value in manifest.items() if name != "digest"}
    return f"{digest64(json.dumps(content, sort_keys=True).encode()):016x}"


def read_manifest(data: bytes, place: str) -> dict[str, Any]:
    """The manifest that the bytes hold, checked against its own digest. Raises `CorpusError`, naming `place`."""
    manifest = read_document(data, place, {"format": int}, hint="the corpus is damaged")
    newest = manifest["format"]
    if newest > MANIFEST_FORMAT:
        raise CorpusError(f"{place} has format version {newest}, this program reads up to {MANIFEST_FORMAT}: update it")
    check_document(manifest, place, _SHAPE, hint="the corpus is damaged")
    if manifest_digest(manifest) != manifest["digest"]:
        raise CorpusError(f"{place} is damaged: it does not match its own digest")
    for shard in manifest["shards"]:
        if not _SHARD_NAME.fullmatch(shard["name"]):
            raise CorpusError(f"{place} is damaged: it has a shard called {shard['name'][:80]!r}")
    return manifest


def _is_manifest(data: bytes) -> bool:
    """Whether the bytes are a manifest, unchanged."""
    try:
        return bool(read_manifest(data, MANIFEST))
    except CorpusError:
        return False


def check_shape(store: Store, shard: str, header: SceneHeader, field: str, *, key: str, layer: str = "") -> None:
    """Refuse a decompression bomb: a field must have the size that the scene's points or image give it, and whatever it
    is, not a hundred times the size of its whole shard.

    Raises:
        CorruptDataError: naming `shard`, scene and field (of `layer`, in whose names `field` is without the layer's).
    """
    spec = header.fields.get(f"{layer}/{field}" if layer else field)
    group, _, name = field.partition("/")
    number, _, name = name.partition("/")
    wanted: list[Any] | None = None
    try:
        if spec is None or "shape" not in spec:
            return
        if group == "points" and header.points is not None:
            wanted = [header.points["count"]]
        elif group == "views" and (name in ("superpixels", "instance") or name.startswith("semantic.")):
            wanted = [header.views[int(number)]["height"], header.views[int(number)]["width"]]
        found = list(spec["shape"])[: len(wanted or ())]
        size = math.prod(int(n) for n in spec["shape"]) * int(str(spec["dtype"])[-1])
    except NONSENSE as problem:
        raise CorruptDataError(f"impossible spec: {problem!r}", shard=shard, scene=key, field=field) from problem
    if wanted is not None and found != wanted:
        raise CorruptDataError(f"shape {found} where the scene has {wanted}", shard=shard, scene=key, field=field)
    if size > _BOMB_FLOOR and size > _BOMB_RATIO * (store.size(shard) or 0):
        bomb = f"{size} bytes, more than {_BOMB_RATIO} times the size of its shard"
        raise CorruptDataError(f"it would decompress to {bomb}", shard=shard, scene=key, field=field)


class Corpus:
    """Read access to a corpus; use `Corpus.open`.

    Attributes:
        store: where it lies.
        manifest: the JSON object of manifest.json, with the lists that lie in files of their own.
        index: one row per scene (see `shards.index.SCHEMA`).
        cache: where fetched blobs are kept, or None.
        newer: scenes that have come since, where this is the corpus `as_it_was`.
    """

    newer = 0

    def __init__(
        self, store: Store, manifest: dict[str, Any], index: pa.Table, cache: CacheConfig | None = None
    ) -> None:
        self.store, self.manifest, self.index = store, manifest, index
        self.cache = Cache(cache, manifest["digest"]) if cache is not None else None
        self._keys: list[str] = index.column("key").to_pylist()
        self._rows = {key: row for row, key in enumerate(self._keys)}
        self._shards: list[str] = index.column("shard").to_pylist()
        blobs = index.column("blobs").combine_chunks()
        self._starts: NDArray[np.int64] = np.asarray(blobs.offsets, np.int64)
        self._fields = blobs.values.field("field").dictionary_encode()
        self._offset, self._length, self._digest = (
            blobs.values.field(name).to_numpy(zero_copy_only=False) for name in ("offset", "length", "digest")
        )

    @classmethod
    def open(cls, root: str | os.PathLike[str] | Store, *, cache: CacheConfig | None = None) -> Corpus:
        """Open a committed corpus; raises `CorpusError` if there is none, or it is newer or damaged.

        Args:
            cache: keeps fetched blobs on a local disk, for corpora on an object store or a slow network folder.
        """
        store = (root if isinstance(root, Store) else Store(root)).refuse_links()
        if not store.exists(MANIFEST):
            unfinished = store.exists("build.json")
            raise CorpusError(
                f"{store.uri} holds an unfinished build: run the same `brickyard build` again to complete it"
                if unfinished
                else f"{store.uri} is not a corpus (it has no {MANIFEST})"
            )
        try:
            data = store.read(MANIFEST, whole=_is_manifest, most=MAX_BYTES)
        except FileNotFoundError as problem:
            raise CorpusError(f"{store.uri}/{MANIFEST} is damaged: {problem}") from problem
        manifest = read_manifest(data, f"{store.uri}/{MANIFEST}")
        manifest |= get_lists(store, manifest)
        digest = manifest["index_digest"]
        try:
            data = store.read(INDEX, whole=lambda data: f"{digest64(data):016x}" == digest, most=MAX_INDEX_BYTES)
        except FileNotFoundError as problem:
            raise CorpusError(f"{store.uri} has no {INDEX}") from problem
        if f"{digest64(data):016x}" != digest:
            raise CorpusError(f"{store.uri}/{INDEX} is damaged: its digest is not the one in {MANIFEST}")
        corpus = cls(store, manifest, read_index(data, INDEX)[0], cache)
        if unknown := set(corpus._shards) - {entry["name"] for entry in manifest["shards"]}:
            raise CorpusError(f"{store.uri}/{INDEX} names {min(unknown)[:80]!r}, a shard that {MANIFEST} does not know")
        return corpus

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def points_per_scene(self) -> NDArray[np.int64]:
        """Points of every row, int64 (N,)."""
        return np.asarray(self.index.column("n_points").to_numpy(), np.int64)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the build (configuration, code, inputs)."""
        return str(self.manifest["fingerprint"])

    @property
    def origin(self) -> str:
        """Digest of the corpus that this one has grown from in the beginning, its own if it has not."""
        former = self.manifest.get("was") or [{"corpus": self.manifest["digest"]}]
        return str(former[0]["corpus"])

    def known_as(self, name: str) -> bool:
        """Whether this corpus is the one of this digest or fingerprint, or has grown from it."""
        former = [(entry["corpus"], entry["fingerprint"]) for entry in self.manifest.get("was", [])]
        return any(name in names for names in [(self.manifest["digest"], self.fingerprint), *former])

    def as_it_was(self, name: str) -> Corpus:
        """The corpus of this digest or fingerprint, which this one is or has grown from: the same shards, the first
        rows of the index. What its manifest says of contents (totals, lists) is today's.

        Raises:
            CorpusError: it is neither.
        """
        if name in (self.manifest["digest"], self.fingerprint):
            return self
        for number, entry in enumerate(former := self.manifest.get("was", [])):
            if name in (entry["corpus"], entry["fingerprint"]):
                then = {"digest": entry["corpus"], "fingerprint": entry["fingerprint"], "scenes": entry["scenes"]}
                manifest = self.manifest | then | {"was": former[:number]}
                corpus = type(self)(self.store, manifest, self.index.slice(0, entry["scenes"]))
                corpus.cache, corpus.newer = self.cache, len(self) - len(corpus)
                return corpus
        there = ", ".join(entry["corpus"] for entry in former)
        grown = f" and has grown from {there}" if there else ""
        raise CorpusError(f"{self.store.uri} is {self.manifest['digest']}{grown}; it was never {name}")

    @property
    def quarantine(self) -> list[Quarantined]:
        """The scenes that were left out, with reasons."""
        return [Quarantined(**entry) for entry in self.manifest["quarantined"]]

    @property
    def keys(self) -> list[str]:
        """ "dataset/scene_id" of every row."""
        return self._keys

    def find(self, key: str) -> int | None:
        """Row of a scene key, or None."""
        return self._rows.get(key)

    def row(self, key: str) -> int:
        """Row of a scene key; a unique beginning or ending of it will do. Raises `CorpusError` otherwise."""
        if key in self._rows:
            return self._rows[key]
        if not self._keys:
            raise CorpusError(f"{self.store.uri} holds no scenes")
        close = [k for k in self._keys if k.startswith(key) or k.endswith(key)]
        if len(close) == 1:
            return self._rows[close[0]]
        what = f"{len(close)} scenes match" if close else "there is no scene"
        raise CorpusError(f"{what} {key!r} in {self.store.uri}; scenes are named like {self._keys[0]!r}")

    def select(self, *, dataset: str | None = None, split: str | None = None) -> NDArray[np.int64]:
        """Rows of one dataset and/or split, in index order."""
        mask = np.ones(len(self), bool)
        for column, wanted in (("dataset", dataset), ("split", split)):
            if wanted is not None:
                mask &= pc.equal(self.index.column(column), wanted).to_numpy()
        return np.flatnonzero(mask).astype(np.int64)

    def shard(self, row: int) -> str:
        """Shard file of a row."""
        return self._shards[row]

    def addresses(self, row: int) -> dict[str, Address]:
        """Field name (and "header") -> address, in file order."""
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        names = self._fields[start:end].to_pylist()
        return {
            name: Address(int(self._offset[i]), int(self._length[i]), int(self._digest[i]))
            for i, name in enumerate(names, start)
        }

    def fetch(self, row: int, places: Mapping[str, Address], allocate: Allocate = fresh) -> dict[str, memoryview]:
        """Verified blobs of a row, by few requests (see `shards.fetch`), for the parameter `ahead` of other methods.

        Nothing where single reads are as good: from a local disk without a cache.
        """
        if self.store.local and self.cache is None:
            return {}
        shard = self._shards[row]
        sane = {field: place for field, place in places.items() if 0 <= place.length <= MAX_BLOB_BYTES}
        try:
            return fetch(self.store, self.cache, shard, sane, allocate)
        except FileNotFoundError:
            return {}  # the single reads will say so, with the field's name
        except OSError as problem:
            raise CorpusError(f"{self.store.uri}/{shard} cannot be read: {problem}") from problem

    def read_blob(
        self,
        row: int,
        field: str,
        address: Address,
        allocate: Allocate = fresh,
        *,
        ahead: Mapping[str, memoryview] = NOTHING,
    ) -> memoryview:
        """The verified bytes of a blob; raises `CorruptDataError` naming shard, scene and field."""
        if field in ahead:
            return ahead[field]
        shard, key = self._shards[row], self._keys[row]
        if not 0 <= address.offset <= _MAX_OFFSET or not 0 <= address.length <= MAX_BLOB_BYTES:
            raise CorruptDataError("the index gives an impossible address", shard=shard, scene=key, field=field)
        if self.cache is not None and (blob := from_cache(self.cache, shard, address, allocate)) is not None:
            return blob
        try:
            size = self.store.size(shard) if address.length > 1 << 20 else None
            if size is not None and address.offset + address.length > size:
                ends = f"the shard ends after {size} bytes, before the blob does"
                raise CorruptDataError(ends, shard=shard, scene=key, field=field)
            memory = allocate(address.length)
            for _ in range(self.store.rereads + 1):  # bytes can be damaged on their way, too
                count = self.store.read_into(shard, address.offset, memory)
                if whole := count == address.length and digest64(memory) == address.digest:
                    break
        except FileNotFoundError as problem:
            raise CorruptDataError("the shard is missing", shard=shard, scene=key, field=field) from problem
        except OSError as problem:  # the machine's trouble, not the scene's: no reason to replace it by another
            raise CorpusError(f"{self.store.uri}/{shard} cannot be read: {problem}") from problem
        if count != address.length:
            short = f"{count} of {address.length} bytes are there"
            raise CorruptDataError(short, shard=shard, scene=key, field=field)
        if not whole:
            wrong = f"digest of the {count} bytes at offset {address.offset} is not the recorded one"
            raise CorruptDataError(wrong, shard=shard, scene=key, field=field)
        if self.cache is not None:
            self.cache.put(shard, address, memory)
        return memory

    def header(self, row: int, ahead: Mapping[str, memoryview] = NOTHING) -> SceneHeader:
        """The verified header of a scene."""
        places, shard, key = self.addresses(row), self._shards[row], self._keys[row]
        if HEADER not in places:
            raise CorruptDataError("the index has no address", shard=shard, scene=key, field=HEADER)
        try:
            return SceneHeader(self.read_blob(row, HEADER, places[HEADER], ahead=ahead))
        except NONSENSE as problem:
            text = f"unreadable header: {problem!r}"
            raise CorruptDataError(text, shard=shard, scene=key, field=HEADER) from problem

    def read_field(
        self,
        row: int,
        header: SceneHeader,
        field: str,
        places: Mapping[str, Address],
        allocate: Allocate = fresh,
        *,
        ahead: Mapping[str, memoryview] = NOTHING,
    ) -> Any:
        """A verified, decoded field (see `shards.codecs.decode`); `places` are the row's addresses, `ahead` the blobs
        that `fetch` has brought already."""
        shard, key = self._shards[row], self._keys[row]
        if field not in places:
            raise CorruptDataError("the index has no address", shard=shard, scene=key, field=field)
        check_shape(self.store, shard, header, field, key=key)
        blob = self.read_blob(row, field, places[field], allocate, ahead=ahead)
        return decode_field(header.fields, field, blob, allocate, shard=shard, scene=key)

    def scene(self, key: str | int) -> Scene:
        """A whole scene, by key or row, verified and validated."""
        row = self.row(key) if isinstance(key, str) else key
        places = self.addresses(row)
        ahead = self.fetch(row, places)
        header = self.header(row, ahead)
        try:
            return decode_scene(
                header, lambda field: self.read_field(row, header, field, places, ahead=ahead)
            ).validate()
        except NONSENSE as problem:
            text = f"the header does not describe a scene: {problem!r}"
            raise CorruptDataError(text, shard=self._shards[row], scene=self._keys[row], field=HEADER) from problem
