"""docs/format.md is enough: a reader written from it alone gives every value that ours gives, from either container."""

from __future__ import annotations

import ast
import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards import codecs
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.containers import ContainerName
from brickyard.shards.convert import convert
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.layers import LayeredCorpus, layer_store, write_layer
from brickyard.shards.scene import Points, Scene, View
from brickyard.shards.selection import select, write_selection
from brickyard.shards.storage import Store
from tests.shards import second_reader
from tests.worlds import toy_corpus

FORMAT_1 = Path(__file__).parent / "corpora/format-1"


def expected(scene: Scene) -> tuple[dict[str, Any], dict[str, Any]]:
    """(header without format, fields and point count; field -> value) as our reader sees the scene."""
    values: dict[str, Any] = {}
    header = dataclasses.asdict(dataclasses.replace(scene, points=None, views=()))
    if not header["figures"]:
        del header["figures"]
    if annotations := header.pop("annotations"):
        values["annotations"] = np.frombuffer(json.dumps(annotations).encode(), np.uint8)
    if scene.part is not None:
        for side in ("core_min", "core_max"):
            header["part"][side] = [v if np.isfinite(v) else None for v in getattr(scene.part, side).tolist()]
    if scene.points is not None:
        names = {"normal_source", "intensity_unit"}
        header["points"] = {"count": len(scene.points)} | {name: getattr(scene.points, name) for name in names}
        values |= arrays_of(scene.points, "points/", names)
    header["views"] = [view_header(view) for view in scene.views]
    for number, view in enumerate(scene.views):
        values |= arrays_of(view, f"views/{number}/", set(header["views"][number]) - {"depth", "superpixels", "pairs"})
    return plain(header), values


def arrays_of(owner: Points | View, prefix: str, skip: set[str]) -> dict[str, Any]:
    """Every attribute that is not in the header, under its field's name."""
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(owner):
        value = getattr(owner, entry.name)
        if entry.name in skip or value is None:
            continue
        if entry.name == "semantic":
            found |= {f"{prefix}semantic.{taxonomy}": labels for taxonomy, labels in value.items()}
        elif entry.name == "pairs":
            found[prefix + "pairs"] = {name: getattr(value, name) for name in ("point", "pixel", "visible")}
            found[prefix + "pair_depth"] = value.depth
        elif entry.name in ("depth", "superpixels"):
            found[prefix + entry.name] = value.values if entry.name == "depth" else value.labels
        else:
            found[prefix + entry.name] = value
    return found


def view_header(view: View) -> dict[str, Any]:
    arrays_and_bytes = ("image", "semantic", "instance", "depth", "superpixels", "pairs")
    entries = {f.name: getattr(view, f.name) for f in dataclasses.fields(View) if f.name not in arrays_and_bytes}
    shutter = view.rolling_shutter
    depth = None
    if view.depth is not None:
        depth = {"scale": view.depth.scale, "intrinsics": view.depth.intrinsics}
        depth |= {"along": "ray"} if view.depth.along == "ray" else {}
    provenance = {n: None if (v := getattr(view, n)) is None else v.provenance for n in ("superpixels", "pairs")}
    return entries | provenance | {
        "depth": depth, "rolling_shutter": None if shutter is None else dataclasses.asdict(shutter)
    }  # fmt: skip


def plain(value: Any) -> Any:
    """The value as JSON would give it back."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def assert_same(found: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for name in wanted:
            assert_same(found[name], wanted[name], f"{where} {name}")
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape, where
        assert found.tobytes() == wanted.tobytes(), f"{where}: other values"
    else:
        assert found == wanted, where


def assert_readers_agree(root: Path, corpus: Corpus) -> int:
    """Every value of every scene, four times: two readers, the second in two ways; returns how many fields."""
    manifest, rows = second_reader.open_corpus(root)
    assert manifest == corpus.manifest and [row["key"] for row in rows] == corpus.keys
    stock = {shard: second_reader.by_container(root, shard) for shard in {row["shard"] for row in rows}}
    fields = 0
    for number, row in enumerate(rows):
        blobs = second_reader.by_address(root, row)
        assert stock[row["shard"]][row["key"]] == blobs
        header, values = second_reader.read(blobs)
        wanted_header, wanted = expected(corpus.scene(number))
        assert_same(values, wanted, row["key"])
        absent = {"world_crs": None, "part": None}  # in format 1
        found = absent | {name: value for name, value in header.items() if name not in ("format", "fields")}
        found["views"] = [{"rolling_shutter": None} | view for view in header["views"]]
        assert found == wanted_header, row["key"]
        fields += len(values)
    return fields


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_it_reads_what_we_read(tmp_path: Path, container: ContainerName) -> None:
    assert assert_readers_agree(tmp_path, toy_corpus(tmp_path, container=container)) == 12 * 11 + 10 * 11


def test_it_reads_format_1_in_both_containers(tmp_path: Path) -> None:
    corpus = Corpus.open(FORMAT_1)
    assert assert_readers_agree(FORMAT_1, corpus) == 3 * (8 + 4 + 5)
    convert(corpus, Store(tmp_path), "webdataset")
    assert assert_readers_agree(tmp_path, Corpus.open(tmp_path)) == 3 * (8 + 4 + 5)


def corpus_of(folder: Path, root: Path, dataset: str, options: dict[str, Any], scenes: int) -> Corpus:
    """A corpus of the first scenes of a raw dataset, one shard each."""
    source, store = find_source(dataset), Store(folder)
    refs = [ref for ref in source.plan(Store(root), source.options(**options)) if isinstance(ref, SceneRef)][:scenes]
    build = fingerprint_digest({})
    start_build(store, {})
    for task, ref in enumerate(refs):
        commit_task(store, task, build, [encode_scene(source.read(ref))], [])
    finish_build(store, len(refs), build, [], {})
    return Corpus.open(folder)


def test_it_reads_simulated_rooms_and_streets(tmp_path: Path) -> None:
    config = SimulationConfig(
        scannet_rooms=1, scannet_frames=3, scannet_spacing=0.2, kitti_frames=2, kitti_drives=1, kitti_columns=60
    )
    simulate(tmp_path / "raw", datasets=["scannet", "kitti"], config=config)
    rooms = corpus_of(tmp_path / "a", tmp_path / "raw/scannet", "scannet", {"frames_every": 1}, 1)
    assert assert_readers_agree(tmp_path / "a", rooms) > 8
    streets = corpus_of(tmp_path / "b", tmp_path / "raw/kitti/object", "kitti_object", {}, 2)
    assert assert_readers_agree(tmp_path / "b", streets) >= 6


@pytest.mark.real
def test_it_reads_real_rooms_and_sweeps(tmp_path: Path, samples: Path) -> None:
    for dataset, folder in (("scannet", "scannet"), ("nuscenes", "nuscenes"), ("waymo_v2", "waymo/v2_assembled")):
        corpus = corpus_of(tmp_path / dataset, samples / folder, dataset, {}, 1)
        assert assert_readers_agree(tmp_path / dataset, corpus) > 3


def test_it_reads_layers_and_selections(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path)
    write_layer(corpus, "rows", lambda row: {"points/row": codecs.encode_array(np.full((400, 8), row))}, provenance={})
    root = tmp_path / "layers/rows"
    manifest, rows = second_reader.open_corpus(root)
    assert manifest["base"] == corpus.manifest["digest"] and layer_store(corpus.store, "rows").uri == str(root)
    layered = LayeredCorpus.open(tmp_path, layers=["rows"])
    for number, row in enumerate(rows):
        _, values = second_reader.read(second_reader.by_address(root, row))
        header = layered.header(number)
        ours = layered.read_field(number, header, "rows/points/row", layered.addresses(number))
        assert_same(values, {"points/row": ours}, row["key"])
    write_selection(Store(tmp_path / "layers"), "s.parquet", select(corpus, at_least={"n_views": 1}))
    data = (tmp_path / "layers/s.parquet").read_bytes()
    table = pq.read_table(pa.BufferReader(data))
    assert len(table) == 10 and set(table["weight"].to_pylist()) == {1.0}
    note = pq.read_metadata(pa.BufferReader(data)).metadata
    assert json.loads(note[b"brickyard-selection"])["corpus"] == corpus.manifest["digest"]
    place = data.rindex(b"xxh3-64:") + 8  # the seal, as the page says
    unsealed = data[:place] + 16 * b"0" + data[place + 16 :]
    assert xxhash.xxh3_64_hexdigest(unsealed).encode() == data[place : place + 16]


def test_damage_is_noticed_by_the_second_reader_too(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path, scenes=2)
    _, rows = second_reader.open_corpus(tmp_path)
    path = tmp_path / corpus.shard(0)
    place = corpus.addresses(0)["points/normal"]
    data = bytearray(path.read_bytes())
    data[place.offset + place.length // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="points/normal is damaged"):
        second_reader.by_address(tmp_path, rows[0])
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"scenes": 2', '"scenes": 3'))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        second_reader.open_corpus(tmp_path)


def test_it_shares_nothing_with_the_project() -> None:
    text = Path(second_reader.__file__).read_text()
    imports = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in ast.walk(
        ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
    allowed = {"__future__", "json", "math", "tarfile", "pathlib", "typing", "numpy", "pyarrow.parquet", "xxhash",
               "numcodecs"}  # fmt: skip
    assert imports == allowed
    assert len(text.splitlines()) <= 160


def unpack_blosc(blob: bytes) -> bytes:
    """Blosc as docs/format.md 7.9 has it, by pyarrow's LZ4 and Zstandard."""
    flags, record = blob[2], blob[3]
    size, block, whole = struct.unpack("<3I", blob[4:16])
    assert blob[:2] == b"\x02\x01" and whole == len(blob)
    if flags & 2:
        return blob[16:]
    codec = {1: "lz4_raw", 4: "zstd"}[flags >> 5]
    content = b""
    starts = struct.unpack_from(f"<{-(-size // block)}I", blob, 16)
    for number, place in enumerate(starts):
        length = min(block, size - number * block)
        split = not flags & 0x10 and record <= 16 and block // record >= 128 and length == block
        streams, piece = record if split else 1, b""
        for _ in range(streams):
            (stored,) = struct.unpack_from("<i", blob, place)
            stream = blob[place + 4 : place + 4 + stored]
            one = length // streams
            piece += stream if stored == one else pa.decompress(stream, one, codec=codec, asbytes=True)
            place += 4 + stored
        if flags & 1 and record > 1:
            even = length // record * record
            piece = np.frombuffer(piece[:even], np.uint8).reshape(record, -1).T.tobytes() + piece[even:]
        content += piece
    return content


@settings(max_examples=60, deadline=None)
@given(
    values=st.sampled_from(["u1", "<u2", "<i4", "<f8"]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=1, max_dims=2, max_side=40))
    ),
    repeat=st.sampled_from([1, 7, 3000]),
    compressor=st.sampled_from(["zstd", "lz4"]),
)
def test_blosc_is_framed_as_written(values: Any, repeat: int, compressor: codecs.Compressor) -> None:
    values = np.concatenate([values] * repeat)[: 2_000_000 // values.itemsize // (values.size // len(values))]
    blob, _ = codecs.encode_array(values, compressor)
    assert unpack_blosc(blob) == values.tobytes()


@pytest.mark.parametrize("compressor", ["zstd", "lz4"])
@pytest.mark.parametrize("shape", [(700_001,), (200_003, 3), (50_001, 4), (999, 77)])
def test_large_fields_are_framed_as_written(shape: tuple[int, ...], compressor: codecs.Compressor) -> None:
    rng = np.random.default_rng(len(shape))
    for dtype, top in (("u1", 4), ("u1", 256), ("<u2", 900), ("<i4", 9), ("<f8", 5)):
        values = rng.integers(0, top, shape).astype(dtype)
        blob, _ = codecs.encode_array(values, compressor)
        assert unpack_blosc(blob) == values.tobytes()
