"""The contract kit: our sources pass it, every way to break a promise fails it, and the tutorial works as printed."""

from __future__ import annotations

import importlib
import inspect
import random
import re
import shlex
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest

from brickyard.infra.cli import main
from brickyard.ingest import contract
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import RawFiles, SceneRef, Source, find_source
from brickyard.shards.corpus import Corpus
from brickyard.shards.storage import Store
from brickyard.shards.verify import verify

TUTORIAL = Path(__file__).parents[2] / "docs" / "adding-a-dataset.md"
BLOCKS = {
    (name or language): text
    for language, name, text in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", TUTORIAL.read_text(), re.M | re.S)
}
KITTI = SimulationConfig(
    kitti_frames=2, kitti_drives=1, kitti_drive_frames=3, kitti_columns=180, kitti_missing_scan=True,
    kitti_image_size=(310, 94),
)  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tutorial's files, installed as far as importing and entry points go."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("make_yard.py", "yard.py", "test_yard.py", "pyproject.toml", "recipe.yaml"):
        (folder / name).write_text(BLOCKS[name])
    project = tomllib.loads(BLOCKS["pyproject.toml"])["project"]
    installed = folder / f"{project['name']}-{project['version']}.dist-info"
    installed.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (installed / "METADATA").write_text(metadata)
    ((group, points),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    for name in ("yard", "make_yard", "test_yard"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def yard(package: Path) -> ModuleType:
    return importlib.import_module("yard")


@pytest.fixture
def raw(package: Path, tmp_path: Path) -> Path:
    importlib.import_module("make_yard").make_yard(tmp_path)
    return tmp_path


def test_the_tutorial_is_as_short_as_it_says() -> None:
    assert sum(len(text.splitlines()) for name, text in BLOCKS.items() if name == "yard.py") < 150
    assert all(f"`{name}`" in TUTORIAL.read_text() for name in ("yard.py", "assert_source_ok", "scene_from_camera"))


def test_the_tests_of_the_tutorial_pass(package: Path, tmp_path: Path) -> None:
    module = importlib.import_module("test_yard")
    tests = [test for name, test in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_")]
    assert len(tests) == 4
    for number, test in enumerate(tests):
        test(tmp_path / str(number))


def test_the_commands_of_the_tutorial_build_a_corpus(
    yard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(BLOCKS["recipe.yaml"])
    monkeypatch.chdir(tmp_path)
    lines = [shlex.split(line) for line in BLOCKS["sh"].splitlines()]
    assert [line[1] for line in lines if line[0] == "brickyard"] == ["plan", "build", "verify", "show"]
    for program, *arguments in lines:
        if program == "python":
            importlib.import_module(arguments[0].removesuffix(".py")).make_yard(Path(arguments[1]))
        elif program == "brickyard":
            code = main(arguments + ["--in-process"] * (arguments[0] == "build"))
            assert code == 0, capsys.readouterr().err
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.keys == [f"yard/{walk}/{number:03d}" for walk in ("north", "south") for number in range(3)]
    assert verify(corpus, deep=True).problems == ()
    scene = corpus.scene("yard/south/002")
    assert scene.points is not None and scene.identity.split == "test"
    text = np.loadtxt(tmp_path / "yard-data/south/002.xyz")
    assert np.abs(scene.points.xyz - text[:, :3]).max() <= 0.0025
    assert np.array_equal(scene.points.color, text[:, 3:])
    (view,) = scene.views
    assert view.pairs is not None and view.superpixels is not None
    assert view.image == (tmp_path / "yard-data/south/002.jpg").read_bytes()
    point, pixel = text[view.pairs.point, :3] - (0, -1, 1.5), view.pairs.pixel
    expected = np.stack([39.5 + 60 * point[:, 0] / point[:, 1], 29.5 - 60 * point[:, 2] / point[:, 1]], axis=1)
    assert len(pixel) > 1000 and np.abs(pixel - expected).max() < 0.5 + 60 * 0.01
    assert (tmp_path / "page.html").stat().st_size > 10_000


def planned(change: Callable[[SceneRef], Any]) -> Callable[[Source], Source]:
    """A source whose plan yields changed references."""

    def broken(source: Source) -> Source:
        def plan(store: Store, options: Any) -> Iterator[Any]:
            for ref in source.plan(store, options):
                assert isinstance(ref, SceneRef)
                yield change(ref)

        return replace(source, plan=plan)

    return broken


def scenes(change: Callable[[Any], Any]) -> Callable[[Source], Source]:
    """A source that reads changed scenes."""
    return lambda source: replace(source, read=lambda ref: change(source.read(ref)))


def points(change: Callable[[Any], Any]) -> Callable[[Source], Source]:
    return scenes(lambda s: replace(s, points=replace(s.points, xyz=change(s.points.xyz).astype(np.float32))))


def identity(**changes: Any) -> Callable[[Source], Source]:
    return scenes(lambda s: replace(s, identity=replace(s.identity, **changes)))


def pose(change: Callable[[Any], Any]) -> Callable[[Source], Source]:
    return scenes(
        lambda s: replace(s, views=tuple(replace(v, scene_from_camera=change(v.scene_from_camera)) for v in s.views))
    )


def moved(metres: float) -> Callable[[Any], Any]:
    return lambda matrix: np.block([[matrix[:3, :3], matrix[:3, 3:] + metres], [matrix[3:]]])


def peeking(look: Callable[[Store, SceneRef], object]) -> Callable[[Source], Source]:
    def broken(source: Source) -> Source:
        def plan(store: Store, options: Any) -> Iterator[Any]:
            for ref in source.plan(store, options):
                assert isinstance(ref, SceneRef)
                look(store, ref)
                yield ref

        return replace(source, plan=plan)

    return broken


def shuffled(source: Source) -> Source:
    def plan(store: Store, options: Any) -> Iterator[Any]:
        calls.append(None)
        yield from sorted(source.plan(store, options), key=lambda item: item.key, reverse=len(calls) % 2 == 0)

    calls: list[None] = []
    return replace(source, plan=plan)


def in_order_only(source: Source) -> Source:
    def read(ref: SceneRef) -> Any:
        number = int(ref.scene_id[-3:])
        if number and f"{number - 1:03d}" not in seen:
            raise RawFiles(ref).error(ref.files["points"], "the scan before this one was not read")
        seen.add(ref.scene_id[-3:])
        return source.read(ref)

    seen: set[str] = set()
    return replace(source, read=read)


def leaking(source: Source) -> Source:
    def read(ref: SceneRef) -> Any:
        if Store(ref.root).size(ref.files["image"]) != sizes.setdefault(
            ref.key, Store(ref.root).size(ref.files["image"])
        ):
            raise KeyError("a parser's own trouble")
        return source.read(ref)

    sizes: dict[str, int | None] = {}
    return replace(source, read=read)


def by_path(source: Source) -> Source:
    """Reads what is no path where the store is remote."""

    def read(ref: SceneRef) -> Any:
        with (Path(ref.root) / ref.files["points"]).open():
            return source.read(ref)

    return replace(source, read=read)


def past_the_store(source: Source) -> Source:
    """Remembers where the folder is on this machine."""

    def plan(store: Store, options: Any) -> Iterator[Any]:
        roots.append(store.path(""))
        return source.plan(store, options)

    def read(ref: SceneRef) -> Any:
        with (Path(roots[0]) / ref.files["points"]).open():
            return source.read(ref)

    roots: list[str] = []
    return replace(source, plan=plan, read=read)


def own_listing(source: Source) -> Source:
    """Lists by itself, so it sees what `Store` leaves out."""

    def plan(store: Store, options: Any) -> Iterator[Any]:
        refs = [ref for ref in source.plan(store, options) if isinstance(ref, SceneRef)]
        infos = store._fs.get_file_info(pafs.FileSelector(store.path("north")))  # the wrong way
        scans = sorted(info.base_name for info in infos if info.base_name.endswith(".xyz"))
        yield from (replace(refs[0], scene_id=f"north/{name}") for name in scans)

    def read(ref: SceneRef) -> Any:
        scene = source.read(replace(ref, scene_id="north/000"))
        return replace(scene, identity=replace(scene.identity, scene_id=ref.scene_id))

    return replace(source, plan=plan, read=read)


def elsewhere_differs(source: Source) -> Source:
    """Another value where the store is not local."""

    def read(ref: SceneRef) -> Any:
        scene = source.read(ref)
        return scene if Store(ref.root).local else replace(scene, dropped={"points": 1})

    return replace(source, read=read)


def dividing(source: Source) -> Source:
    def plan(store: Store, options: Any) -> Iterator[Any]:
        yield from ()
        raise ZeroDivisionError("of a header")

    return replace(source, plan=plan)


BROKEN: dict[str, tuple[Callable[[Source], Source], str]] = {
    "plans nothing": (lambda s: replace(s, plan=lambda store, options: iter(())), "holds no scene"),
    "plans paths": (planned(lambda ref: ref.files["points"]), "yields str, no SceneRef or Missing"),
    "fails to plan": (dividing, "planning raises ZeroDivisionError"),
    "unstable order": (shuffled, "planning twice gives different scenes or another order"),
    "same key twice": (planned(lambda ref: replace(ref, scene_id="one")), "yard/one: the plan yields this key twice"),
    "other dataset": (planned(lambda ref: replace(ref, dataset="field")), "planned under another dataset than 'yard'"),
    "lock": (planned(lambda ref: replace(ref, details={"lock": threading.Lock()})), "could not travel to a worker"),
    "array": (planned(lambda ref: replace(ref, details={"pose": np.eye(4)})), "not plain data"),
    "outside": (
        planned(lambda ref: replace(ref, files={**ref.files, "points": "../" + ref.files["points"]})),
        "the points file '../north/000.xyz' leaves the root",
    ),
    "absolute": (planned(lambda ref: replace(ref, files={"points": "/x.xyz"})), "leaves the root"),
    "absent": (
        planned(lambda ref: replace(ref, files={**ref.files, "label": "north/000.label"})),
        "the planned label file north/000.label is not there",
    ),
    "no bytes": (planned(lambda ref: replace(ref, bytes_estimate=0)), "bytes_estimate is 0"),
    "no points": (planned(lambda ref: replace(ref, points_estimate=0)), "points_estimate is 0, but it has points"),
    "payload read": (
        peeking(lambda store, ref: store.read(ref.files["points"])),
        "planning opens the payload north/000.xyz",
    ),
    "payload read by RawFiles": (
        peeking(lambda store, ref: RawFiles(ref).read(ref.files["points"])),
        "planning reads [0-9]+ bytes of the payload north/000.xyz",
    ),
    "payload opened": (
        peeking(lambda store, ref: np.fromfile(store.path(ref.files["image"]), np.uint8)),
        "planning opens the payload north/000.jpg",
    ),
    "wrong key": (identity(scene_id="north/zero"), "planned with scene_id 'north/000' and read with 'north/zero'"),
    "wrong split": (identity(split="val"), "planned with split 'train' and read with 'val'"),
    "wrong sequence": (identity(sequence="east"), "planned with sequence 'north' and read with 'east'"),
    "no licence": (identity(licence=""), "the licence is empty"),
    "no sources": (identity(sources=()), "no raw file is recorded"),
    "wrong sizes": (
        scenes(
            lambda s: replace(
                s, identity=replace(s.identity, sources=tuple(replace(f, size=f.size + 1) for f in s.identity.sources))
            )
        ),
        "is recorded with [0-9]+ bytes and has",
    ),
    "no scene": (scenes(lambda s: s.points), "read returns Points, no Scene"),
    "broken scene": (
        scenes(lambda s: replace(s, world_from_scene=np.diag([1.0, 1, -1, 1]))),
        "breaks its contract: .*world_from_scene is not a rigid transform",
    ),
    "another each time": (points(lambda xyz: xyz + random.random()), r"different values in scene\.points\.xyz"),
    "needs the scene before": (in_order_only, "whole files are refused: .*the scan before this one was not read"),
    "millimetres": (points(lambda xyz: xyz * 1000 * 2), "m from the origin, .*are these metres"),
    "world coordinates": (pose(moved(4e6)), r"a camera lies 400000\d m from the origin"),
    "camera elsewhere": (pose(moved(200)), "m outside the points' box"),
    "looks backwards": (pose(lambda m: m @ np.diag([-1.0, 1, -1, 1])), "no point falls into any image"),
    "local root": (
        planned(lambda ref: replace(ref, root=Store(ref.root).path(""))),
        "from a remote store it plans yard/north/000 in another way; use `store.uri`",
    ),
    "local path": (by_path, "north/001: cannot be read from a remote store: .*No such file"),
    "past the store": (past_the_store, r"yard: north/001\.xyz is opened past the Store"),
    "other values elsewhere": (elsewhere_differs, r"from a remote store other values are read in scene\.dropped"),
    "companions": (own_listing, "companions of file managers beside the data change the plan"),
    "leaks": (leaking, r"with half of north/000\.jpg, read raises KeyError .*must be a RawDataError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(yard: ModuleType, raw: Path, name: str) -> None:
    breaking, words = BROKEN[name]
    with pytest.raises(AssertionError, match=words):
        assert_source_ok(breaking(yard.SOURCE), str(raw), scenes=2)
    assert Store.read.__qualname__ == "Store.read"
    assert Store.read_into.__qualname__ == "Store.read_into"


def test_peeking_at_headers_is_planning(yard: ModuleType, raw: Path) -> None:
    look = peeking(lambda store, ref: store.read_range(ref.files["points"], 0, 512))
    assert_source_ok(look(yard.SOURCE), str(raw), scenes=1)


def test_tables_may_be_read_but_not_the_whole_dataset(yard: ModuleType, raw: Path) -> None:
    (raw / "table.txt").write_bytes(bytes(contract.PLAN_BYTES // 7))
    assert_source_ok(peeking(lambda store, ref: store.read("table.txt"))(yard.SOURCE), str(raw), scenes=1)
    (raw / "table.txt").write_bytes(bytes(contract.PLAN_BYTES // 5))
    with pytest.raises(AssertionError, match="are enough for tables"):
        assert_source_ok(peeking(lambda store, ref: store.read("table.txt"))(yard.SOURCE), str(raw), scenes=1)


def test_what_this_process_remembers_does_not_reach_a_worker(
    yard: ModuleType, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembering = points(lambda xyz: xyz + 0.25)(yard.SOURCE)
    monkeypatch.setattr(contract, "find_source", lambda name: remembering)
    with pytest.raises(AssertionError, match="north/000: another scene is read in a new process"):
        assert_source_ok(remembering, str(raw), scenes=1)
    monkeypatch.setattr(contract, "_WORKER", "raise SystemExit('no table here')")
    with pytest.raises(AssertionError, match=r"cannot be read in a new process .*: no table here"):
        assert_source_ok(remembering, str(raw), scenes=1)


def test_simulated_kitti_keeps_the_promises(tmp_path: Path) -> None:
    simulate(tmp_path, datasets=("kitti",), seed=7, config=KITTI)
    for dataset, folder in (("kitti_object", "kitti/object"), ("kitti_raw", "kitti/raw")):
        assert_source_ok(find_source(dataset), str(tmp_path / folder), scenes=2)


SAMPLES: list[tuple[str, str, dict[str, Any]]] = [
    ("ase", "ase", {"every": 15}),
    ("kitti_object", "kitti/object", {}),
    ("kitti_odometry", "kitti/odometry/dataset", {}),
    ("kitti_raw", "kitti/raw", {}),
    ("nuscenes", "nuscenes", {}),
    ("pointfiles", "las_ply/laspy", {}),
    ("pointfiles", "las_ply/pdal/autzen", {}),
    ("s3dis", "s3dis/Stanford3dDataset_v1.2_Aligned_Version", {}),
    ("scannet", "scannet", {}),
    ("waymo_v1", "waymo/v1_assembled", {}),
    ("waymo_v2", "waymo/v2_assembled", {}),
]


@pytest.mark.real
@pytest.mark.parametrize(("dataset", "folder", "options"), SAMPLES, ids=[folder for _, folder, _ in SAMPLES])
def test_real_samples_keep_the_promises(samples: Path, dataset: str, folder: str, options: dict[str, Any]) -> None:
    source = find_source(dataset)
    assert_source_ok(source, str(samples / folder), source.options(**options), scenes=2)
