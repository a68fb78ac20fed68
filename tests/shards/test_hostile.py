"""A corpus made by somebody who means harm: digests are right, and what they protect is nonsense.

Whoever writes a corpus can write its digests, too. So here every digest is made right after the damage, and each input
must be refused within a second (of the processor, whatever else the machine does) and 256 MiB, measured in another
process; one that does not answer within 30 s hangs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.codecs import encode_array
from brickyard.shards.containers import ContainerName
from brickyard.shards.corpus import INDEX, MANIFEST, Corpus, manifest_digest
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import BrickyardError, CorpusError, CorruptDataError
from brickyard.shards.export.pointcept import export_pointcept
from brickyard.shards.index import SCHEMA, read_index, write_index
from brickyard.shards.layers import LayeredCorpus, write_layer
from brickyard.shards.seal import UNSEALED, seal
from brickyard.shards.selection import read_selection
from brickyard.shards.stats import stats
from brickyard.shards.storage import Store, digest64
from brickyard.shards.stream import Stream
from brickyard.shards.verify import verify
from tests.worlds import toy_corpus, toy_scene


def corpus_with_header(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Corpus:
    encoded = encode_scene(toy_scene(0))
    header = json.loads(encoded.header)
    changed = change(header)
    data = changed if isinstance(changed, bytes) else json.dumps(header).encode()
    store = Store(folder)
    build = fingerprint_digest({})
    start_build(store, {})
    commit_task(store, 0, build, [replace(encoded, header=data)], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)


def field(name: str, **change: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header["fields"][name].update(change)


NONSENSE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dtype that numpy would parse": field("points/xyz", dtype="(1,i4"),
    "dtype of objects": field("points/xyz", dtype="|O"),
    "endless shape": lambda h: json.dumps(h).replace("[400, 3]", "[1e999, 3]", 1).encode(),
    "bomb": field("points/color", shape=[2**29, 3]),
    "step of nan": lambda h: json.dumps(h).replace('"step": 0.00', '"step": NaN, "x": 0.00', 1).encode(),
    "step of zero": field("points/xyz", step=0),
    "step beyond float": field("points/xyz", step=10**400),
    "origin too short": field("points/xyz", origin=[0.0, 0.0]),
    "empty palette": field("points/intensity", table=[]),
    "codec of another kind": field("points/xyz", codec="octahedral"),
    "unknown codec": field("points/xyz", codec="pickle"),
    "spec is a number": lambda h: h["fields"].update({"points/xyz": 5}),
    "fields is a list": lambda h: h.update(fields=[{}]),
    "views are numbers": lambda h: h.update(views=[1, 2]),
    "points without their facts": lambda h: h.update(points={}),
    "identity misses names": lambda h: h.update(identity={}),
    "an unknown camera model": lambda h: h["views"][0].update(camera_model="fisheye9"),
    "a camera model by number": lambda h: h["views"][0].update(camera_model=5),
    "an unknown image format": lambda h: h["views"][0].update(image_format="gif"),
    "no size of a view": lambda h: h["views"][0].pop("width"),
    "counts of what was dropped in words": lambda h: h.update(dropped={"x": "many"}),
    "a name twice": lambda h: json.dumps(h).replace('"format"', '"points": null, "format"', 1).encode(),
    "superpixels of another image": field("views/0/superpixels", shape=[4000, 4000]),
    "too many pairs": field("views/0/pairs", count=10**9),
    "deeply nested": lambda h: b"[" * 100_000 + b"]" * 100_000,
    "not JSON": lambda h: b"\xff\xfe",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_an_error_that_names_the_scene(tmp_path: Path, what: str) -> None:
    corpus = corpus_with_header(tmp_path, NONSENSE[what])
    with pytest.raises(BrickyardError, match="toy/scene-000"):
        corpus.scene(0)
    with pytest.raises(CorruptDataError):
        list(Stream(corpus, ("*",), batch=1, epochs=1))
    assert any("toy/scene-000" in problem for problem in verify(corpus, deep=True).problems)


@pytest.mark.parametrize(
    "change",
    [{"shards": 5}, {"shards": [{}]}, {"quarantined": [{"x": 1}]}, {"format": "one"}, {"index_digest": None}],
)
def test_a_nonsense_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    corpus_with_header(tmp_path, lambda header: None)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text()) | change
    path.write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    with pytest.raises(CorpusError):
        Corpus.open(tmp_path)


def test_many_shards_need_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brickyard.shards import storage

    monkeypatch.setattr(storage, "_OPEN_FILES", 4)
    store = Store(tmp_path)
    for number in range(20):
        store.write(f"{number}", bytes([number]) * 10)
    assert [store.read_range(f"{n}", 3, 1)[0] for n in range(20)] == list(range(20))
    assert len(store._open) == 4


# Bounded: a second and 256 MiB, whatever is read

MAX_SECONDS, MAX_GROWTH = 1.0, 256 << 20
Elsewhere = Callable[[Callable[[Path], object], Path], str]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Runs `read(folder)` in another process and gives the text of its error, if that is one of ours, in time and
    space. An intact corpus is read there first, so that imports and pools do not count."""
    intact = tmp_path_factory.mktemp("intact")
    toy_corpus(intact, scenes=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(_warm, (intact,))

        def refused(read: Callable[[Path], object], folder: Path) -> str:
            error, text, seconds, growth = pool.apply_async(_refused, (read, folder)).get(timeout=200)
            assert issubclass(error, BrickyardError), (error, text)
            assert seconds < MAX_SECONDS, (seconds, text)
            assert growth < MAX_GROWTH, (growth, text)
            return str(text)

        yield refused


def _warm(folder: Path) -> None:
    read_everything(folder)
    for name in ("brickyard.train.augment", "brickyard.curate.images", "brickyard.evaluate.show.camera"):
        with suppress(ModuleNotFoundError):
            import_module(name)


def _refused(read: Callable[[Path], object], folder: Path) -> tuple[type, str, float, int]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = _memory("VmRSS"), time.process_time()
    error: type = type(None)
    text = ""
    try:
        read(folder)
    except Exception as problem:
        error, text = type(problem), str(problem)[:500]
    return error, text, time.process_time() - began, _memory("VmHWM") - before


def _memory(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def read_everything(folder: Path, fields: tuple[str, ...] = ("*",)) -> None:
    for _ in Stream(Corpus.open(folder), fields, batch=1, epochs=1):
        pass


def read_layer(folder: Path) -> None:
    for _ in Stream(LayeredCorpus.open(folder, layers=["l"]), ("*",), batch=1, epochs=1):
        pass


def read_chosen(folder: Path) -> None:
    read_selection(Store(folder), "chosen.parquet")


def resign(folder: Path, index: bytes | None = None, **changes: Any) -> None:
    """Put another index or other entries into a corpus, and make every digest right again."""
    if index is not None:
        (folder / INDEX).write_bytes(index)
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    manifest["index_digest"] = f"{digest64((folder / INDEX).read_bytes()):016x}"
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def corpus_with_index(folder: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    corpus = toy_corpus(folder, scenes=2)
    rows = corpus.index.to_pylist()
    change(rows)
    resign(folder, write_index(pa.Table.from_pylist(rows, schema=SCHEMA), {}).to_pybytes())


def blob(**values: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda rows: rows[1]["blobs"][2].update(values)


def shard(name: str) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda rows: [row.update(shard=name) for row in rows]


ADDRESSES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "negative offset": blob(offset=-1),
    "most negative offset": blob(offset=-(2**63)),
    "offset behind the end": blob(offset=2**40),
    "largest offset": blob(offset=2**63 - 1),
    "offset and length that overflow together": blob(offset=2**63 - 5, length=10),
    "negative length": blob(length=-8),
    "huge length": blob(length=2**62),
    "length of all memory": blob(length=2**31 - 2000),
    "length a little behind the end": blob(offset=0, length=10**6),
    "another blob's place": lambda rows: blob(**(rows[1]["blobs"][4] | {"field": rows[1]["blobs"][2]["field"]}))(rows),
    "every blob is the whole shard": lambda rows: [b.update(offset=0, length=4) for b in rows[1]["blobs"]],
    "no blobs": lambda rows: rows[1].update(blobs=[]),
    "a field of no scene": blob(field="points/\0"),
    "shard above": shard("../../../../etc/passwd"),
    "shard at the root": shard("/etc/passwd"),
    "shard is a folder": shard("shards"),
    "shard is the manifest": shard(MANIFEST),
}


@pytest.mark.parametrize("what", ADDRESSES)
def test_a_hostile_index_is_refused(tmp_path: Path, what: str) -> None:
    corpus_with_index(tmp_path, ADDRESSES[what])
    with pytest.raises(BrickyardError, match=r"shards|index"):
        read_everything(tmp_path)


def test_hostile_addresses_are_refused_at_once(tmp_path: Path, elsewhere: Elsewhere) -> None:
    corpus_with_index(tmp_path, lambda rows: [blob(length=2**31 - 2000, offset=1)([rows[0], row]) for row in rows])
    assert "ends after" in elsewhere(read_everything, tmp_path)


MANIFESTS: dict[str, Mapping[str, Any]] = {
    "a shard above": {"shards": [{"name": "../x", "bytes": 1, "digest": "", "scenes": 1}]},
    "a shard with a line break": {"shards": [{"name": "shards/a\n", "bytes": 1, "digest": "", "scenes": 1}]},
    "a format beyond numbers": {"format": 1e400},
    "a huge format": {"format": 10**300},
    "no shards": {"shards": []},
    "quarantined by number": {"quarantined": [5]},
    "licences in a list": {"licences": ["CC0-1.0"]},
    "datasets of a licence by number": {"licences": {"CC0-1.0": 5}},
    "totals of nothing": {"totals": None},
    "a list that lies above": {"moved": {"quarantined": {"file": "../x", "digest": "0", "entries": 1}}},
    "notices by name": {"notices": {"x": 1}},
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_hostile_manifest_is_refused(tmp_path: Path, what: str) -> None:
    toy_corpus(tmp_path, scenes=1)
    resign(tmp_path, **MANIFESTS[what])
    with pytest.raises(CorpusError):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"x": NaN}', '{"x": 1, "x": 2}', '{"x": "many"}', "{" * 10_000])
def test_counts_in_the_index_that_are_none_are_a_sentence(tmp_path: Path, text: str) -> None:
    corpus_with_index(tmp_path, lambda rows: rows[1].update(dropped=text))
    with pytest.raises(CorpusError, match=r"index\.parquet: what scene toy/scene-001 dropped "):
        stats(Corpus.open(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "5", '{"layout": 1e999}', "{" * 10_000])
def test_a_damaged_record_of_an_export_is_a_sentence(tmp_path: Path, text: str) -> None:
    corpus, out = toy_corpus(tmp_path / "c", scenes=1), tmp_path / "out"
    export_pointcept(corpus, Store(out))
    (out / "export.json").write_text(text)
    with pytest.raises(CorpusError, match=r"export\.json .*: remove the folder and export again"):
        export_pointcept(corpus, Store(out))


def test_files_that_never_end_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate((MANIFEST, INDEX)):
        folder = tmp_path / str(number)
        toy_corpus(folder, scenes=1)
        os.truncate(folder / name, 1 << 40)
        with pytest.raises(CorpusError, match=rf"{name} has \d+ bytes"):
            Corpus.open(folder)


def test_a_pipe_in_place_of_a_file_holds_nobody_up(tmp_path: Path, elsewhere: Elsewhere) -> None:
    for number, name in enumerate((MANIFEST, INDEX, "shard")):
        folder = tmp_path / str(number)
        corpus = toy_corpus(folder, scenes=1)
        path = folder / (corpus.shard(0) if name == "shard" else name)
        path.unlink()
        os.mkfifo(path)
        assert stat.S_ISFIFO(path.stat().st_mode)
        elsewhere(read_everything, folder)


# Parquet that is small on disk only


def repeated(rows: int, **texts: str) -> bytes:
    """An index of so many equal rows."""
    row = {"n_points": 1, "n_views": 0, "n_pairs": 0, "raw_bytes": 0, "blobs": []}
    row |= {field.name: texts.get(field.name, "x") for field in SCHEMA if field.type == pa.string()}
    table = pa.Table.from_pylist([row], schema=SCHEMA).take(pa.array(np.zeros(rows, int)))
    sink = pa.BufferOutputStream()  # `write_index` writes nothing that its reader refuses
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", write_page_checksum=True, store_schema=False) as writer:
        writer.add_key_value_metadata({"brickyard": "{}"} | UNSEALED)
        writer.write_table(table, row_group_size=8192)
    return bytes(seal(sink.getvalue()))


def test_what_is_written_is_never_refused_as_a_bomb() -> None:
    """An honest index whose texts compress as well as a bomb's is stored as it is."""
    row = {"n_points": 1, "n_views": 0, "n_pairs": 0, "raw_bytes": 0, "blobs": []}
    row |= {field.name: "x" * 10_000 for field in SCHEMA if field.type == pa.string()}
    table = pa.Table.from_pylist([row] * 800, schema=SCHEMA)
    with pytest.raises(CorpusError):
        read_index(repeated(800, **{name: text for name, text in row.items() if isinstance(text, str)}), "zstd")
    assert read_index(bytes(write_index(table, {})), "index")[0] == table


def footer(elements: int, schema: bytes, groups: bytes = b"\x19\x0c", rows: int = 0) -> bytes:
    """A Parquet file that is a footer only: a list of `elements` schema elements (claimed), row groups, a row count."""
    claimed = b"\x15\x02\x19\xfc" + varint(elements)
    data = claimed + schema + b"\x16" + varint(2 * rows) + groups + b"\x00"
    return b"PAR1" + data + struct.pack("<I", len(data)) + b"PAR1"


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


GROUP = b"\x35\x00\x18\x01a\x15\x02\x00"
"""A schema element called "a" with one child."""
LEAF = b"\x15\x02\x25\x00\x18\x01x\x00"
PARQUETS: dict[str, Callable[[], bytes]] = {
    "one text of 80 MB": lambda: repeated(1, key="x" * 80_000_000),
    "a text of 100 kB, 1000 times": lambda: repeated(1000, sequence="x" * 100_000),
    "a million rows": lambda: repeated(1_000_000),
    "a schema 4000 deep": lambda: footer(4001, GROUP * 4000 + LEAF),
    "a schema a million deep": lambda: footer(1_000_001, GROUP * 1_000_000 + LEAF),
    "a list of 2^31 claimed": lambda: footer(2**31 - 1, GROUP + LEAF),
    "2^31 row groups claimed": lambda: footer(2, GROUP + LEAF, b"\x19\xfc" + varint(2**31 - 1)),
    "2^60 rows claimed": lambda: footer(2, GROUP + LEAF, rows=2**60),
    "more children than elements": lambda: footer(2, b"\x35\x00\x18\x01a\x15" + varint(2**32 - 2) + b"\x00" + LEAF),
    "a footer that is longer than the file": lambda: b"PAR1" + b"\xff\xff\xff\x7fPAR1",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("what", PARQUETS)
def test_hostile_parquet_is_refused_in_time_and_space(tmp_path: Path, elsewhere: Elsewhere, what: str) -> None:
    toy_corpus(tmp_path, scenes=1)
    resign(tmp_path, PARQUETS[what]())
    assert "index.parquet" in elsewhere(read_everything, tmp_path)


def test_an_honest_index_of_many_scenes_is_not_refused(tmp_path: Path) -> None:
    """The guard's bounds must leave room: 20,000 scenes with names as long as names get."""
    row = toy_corpus(tmp_path, scenes=1).index.to_pylist()[0]
    rows = [row | {"key": f"toy/{'long-' * 20}{n}", "scene_id": f"{'long-' * 20}{n}"} for n in range(20_000)]
    resign(tmp_path, bytes(write_index(pa.Table.from_pylist(rows, schema=SCHEMA), {})))
    assert len(Corpus.open(tmp_path)) == 20_000


def test_a_hostile_selection_is_refused(tmp_path: Path, elsewhere: Elsewhere) -> None:
    table = pa.table({"key": ["x" * 80_000_000], "weight": pa.array([1], pa.float32()), "reason": [""]})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", store_schema=False) as writer:
        writer.add_key_value_metadata({"brickyard-selection": '{"corpus": "", "about": {}}'} | UNSEALED)
        writer.write_table(table)
    (tmp_path / "chosen.parquet").write_bytes(seal(sink.getvalue()))
    assert "chosen.parquet" in elsewhere(read_chosen, tmp_path)
    with pytest.raises(BrickyardError, match="leaves the folder"):
        read_selection(Store(tmp_path), "../chosen.parquet")


# Bombs in the blobs


def zeros(*shape: int, dtype: str = "|u1") -> tuple[bytes, dict[str, Any]]:
    return encode_array(np.zeros(shape, dtype))


def with_field(name: str, value: tuple[bytes, dict[str, Any]], **points: Any) -> Callable[[Path], None]:
    """A function that writes a corpus whose scene has one more field, or another one in its place."""

    def write(folder: Path) -> None:
        encoded = encode_scene(toy_scene(0))
        header = json.loads(encoded.header)
        header["fields"][name] = value[1]
        header["points"].update(points)
        for view in header["views"] if points else []:
            view.update(width=6000, height=6000)
        changed = replace(encoded, header=json.dumps(header).encode(), blobs=encoded.blobs | {name: value[0]})
        store, build = Store(folder), fingerprint_digest({})
        start_build(store, {})
        commit_task(store, 0, build, [changed], [])
        finish_build(store, 1, build, [], {})

    return write


SIZE = 100_000_000
BOMBS: dict[str, Callable[[], Callable[[Path], None]]] = {
    "views/1/depth": lambda: with_field("views/1/depth", zeros(10000, 10000)),
    "views/0/pairs": lambda: with_field("views/0/pairs", zeros(SIZE)),
    "points/ring": lambda: with_field("points/ring", zeros(SIZE), count=SIZE),
    "views/0/instance": lambda: with_field("views/0/instance", zeros(6000, 6000, dtype="<i4"), count=400),
    "points/more": lambda: with_field("points/more", zeros(400, SIZE // 400)),
}


@pytest.mark.parametrize("field", BOMBS)
def test_a_decompression_bomb_is_refused(tmp_path: Path, elsewhere: Elsewhere, field: str) -> None:
    """Also where points and image are said to be as large as the field."""
    BOMBS[field]()(tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "shards").iterdir()) < 4_000_000
    assert "times the size of its shard" in elsewhere(partial(read_everything, fields=(field,)), tmp_path)


def test_a_bomb_in_a_layer_is_refused(tmp_path: Path, elsewhere: Elsewhere) -> None:
    write_layer(toy_corpus(tmp_path, scenes=1), "l", lambda row: {"extra/x": zeros(SIZE)}, provenance={})
    assert "times the size of its shard" in elsewhere(read_layer, tmp_path)
    for name in ("../l", "l/../../x", "", "."):
        with pytest.raises(BrickyardError, match=r"no layer|leaves the folder|not a corpus"):
            LayeredCorpus.open(tmp_path, layers=[name])


# Tar


@pytest.mark.parametrize("name", ["../../../../tmp/x", "/etc/passwd", "a\0b", "\xff" * 50])
def test_hostile_tar_headers_mean_nothing(tmp_path: Path, name: str) -> None:
    """No read path of ours parses a tar: with every member renamed, of absurd size, and a link, all scenes are the
    same ones."""
    container: ContainerName = "webdataset"
    corpus = toy_corpus(tmp_path, scenes=2, container=container)
    before = [corpus.scene(row) for row in range(2)]
    path = tmp_path / corpus.shard(0)
    data = bytearray(path.read_bytes())
    for row in range(2):
        for place in corpus.addresses(row).values():
            start = place.offset - 512
            data[start : start + 100] = name.encode("latin-1")[:100].ljust(100, b"\0")
            data[start + 124 : start + 136] = b"77777777777\0"
            data[start + 156 : start + 157] = b"2"  # a symbolic link
            data[start + 157 : start + 168] = b"/etc/passwd"
    path.write_bytes(data)
    again = Corpus.open(tmp_path)
    for row, scene in enumerate(before):
        assert repr(again.scene(row)) == repr(scene)


# Images


def png(width: int, height: int) -> bytes:
    """A picture of so many pixels in a few bytes: the header says it, hardly any data follows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    mark = b"\x89PNG\r\n\x1a\n"
    return mark + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def view(width: int, height: int, says: tuple[int, int] | None) -> Any:
    """A view with a picture of that size; the scene says the same of it, or another size."""
    wide, high = says or (width, height)
    return replace(toy_scene(0).views[0], image=png(width, height), width=wide, height=high, pairs=None)


def crop(width: int, height: int, says: tuple[int, int] | None, folder: Path) -> None:
    from brickyard.train.augment import Box, CropConfig, crop_image

    size = says or (width, height)
    crop_image(png(width, height), size, Box(top=0, left=0, height=64, width=64), CropConfig(), flip=False)


def superpixels(width: int, height: int, says: tuple[int, int] | None, folder: Path) -> None:
    from brickyard.curate.images import decode_rgb

    decode_rgb(toy_scene(0), view(width, height, says))


def page(width: int, height: int, says: tuple[int, int] | None, folder: Path) -> None:
    from brickyard.evaluate.show.camera import UndecodableImageError, decode

    try:
        decode(view(width, height, says))
    except UndecodableImageError as problem:  # shown on the page, in the picture's place
        raise CorruptDataError(str(problem), shard="") from problem


@pytest.mark.parametrize("decoder", [crop, superpixels, page])
@pytest.mark.parametrize("says", [None, (64, 40)])
@pytest.mark.parametrize("size", [(60000, 60000), (20000, 8000)])
def test_an_image_bomb_is_refused(
    tmp_path: Path, elsewhere: Elsewhere, size: tuple[int, int], says: tuple[int, int] | None, decoder: Any
) -> None:
    """Whether or not the scene agrees with the picture's header, nothing of it is decoded."""
    pytest.importorskip("torch")
    assert re.search(r"pixels|\d+x\d+", elsewhere(partial(decoder, *size, says), tmp_path))
