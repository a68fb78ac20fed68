"""The code of a dataset: what counts, what does not, and that nothing is left out which runs when a scene is made."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from brickyard.curate.fast_superpixels import FastConfig
from brickyard.curate.normals import NormalsConfig
from brickyard.curate.pipeline import CurateConfig
from brickyard.curate.superpixel_files import SuperpixelFiles
from brickyard.infra.fingerprint import code_of, meaning
from brickyard.ingest.simulate import ALL_DATASETS, SimulationConfig, simulate
from brickyard.ingest.source import source_names

ROOT = Path(__file__).parents[2]
OURS = [name for name in source_names() if name != "toy"]
PLAIN = CurateConfig(superpixels=None, correspondences=None, clip_figures=None)
FULL = CurateConfig(normals=NormalsConfig())
KITTI = {name for name in OURS if name.startswith("kitti")}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("copy") / "brickyard"
    home.mkdir()
    (home / "__init__.py").write_bytes((ROOT / "brickyard" / "__init__.py").read_bytes())
    for folder in ("ingest", "curate", "shards", "infra"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return home


@cache
def before(home: Path, curation: CurateConfig) -> dict[str, dict[str, str]]:
    return {name: code_of(name, curation, home) for name in OURS}


def changed_by(home: Path, file: str, change: Callable[[str], str], curation: CurateConfig = FULL) -> set[str]:
    """The datasets whose code is another after a change of a file."""
    path, known = home / file, before(home, curation)
    text = path.read_text()
    path.write_text(change(text))
    try:
        assert path.read_text() != text
        return {name for name in OURS if code_of(name, curation, home) != known[name]}
    finally:
        path.write_text(text)


def remark(text: str) -> str:
    """The same code with other words: a docstring, a comment, lines."""
    first = ast.parse(text).body[0]
    assert isinstance(first, ast.Expr) and first.end_lineno is not None
    rest = text.splitlines(keepends=True)[first.end_lineno :]
    return '"""Other words."""\n\n# and a remark\n' + "".join(rest).replace("\n\n\n", "\n\n\n\n# here\n\n")


def code(text: str) -> str:
    return text + "\n_MORE = 1\n"


def test_a_copy_has_the_code_of_the_original(copy: Path) -> None:
    for name in OURS:
        assert code_of(name, FULL, copy) == code_of(name, FULL), name


def test_words_do_not_count(copy: Path) -> None:
    for file in ("ingest/kitti/velodyne.py", "ingest/kitti/__init__.py", "shards/encode.py", "infra/task.py"):
        assert changed_by(copy, file, remark) == set(), file


def test_a_reader_is_the_business_of_its_dataset(copy: Path) -> None:
    assert changed_by(copy, "ingest/kitti/velodyne.py", code) == KITTI
    assert changed_by(copy, "ingest/kitti/oxts.py", code) == {"kitti_raw"}
    assert changed_by(copy, "ingest/scannet/sens.py", code) == {"scannet"}
    films = {"video", "scannetpp"}
    assert changed_by(copy, "ingest/video/decode.py", code) == films, "it runs in a process of its own"
    assert changed_by(copy, "ingest/scannetpp/film.py", code) == {"scannetpp"}
    assert changed_by(copy, "ingest/pointfiles/epsg.json", lambda text: text + " ") == {"pointfiles"}
    shared = changed_by(copy, "ingest/blank.py", code)
    assert shared >= KITTI and "s3dis" not in shared


@pytest.mark.parametrize(
    "file", ["shards/stream.py", "shards/storage.py", "infra/plan.py", "infra/job.py", "infra/recipe.py",
             "ingest/contract.py", "ingest/simulate/rooms.py"],
)  # fmt: skip
def test_what_makes_no_bytes_does_not_count(copy: Path, file: str) -> None:
    assert changed_by(copy, file, code) == set()


@pytest.mark.parametrize("file", ["shards/encode.py", "shards/codecs.py", "shards/parquet.py", "infra/task.py"])
def test_the_way_of_all_scenes_counts_for_all(copy: Path, file: str) -> None:
    assert changed_by(copy, file, code) == set(OURS)


def test_only_steps_in_use_count(copy: Path) -> None:
    assert changed_by(copy, "curate/superpixels.py", code) == set(OURS)
    assert changed_by(copy, "curate/superpixels.py", code, PLAIN) == set()
    fast = CurateConfig(superpixels=FastConfig())
    for file in ("curate/fast_superpixels.py", "curate/lab.py"):
        assert changed_by(copy, file, code, fast) == set(OURS) and changed_by(copy, file, code) == set()
    assert changed_by(copy, "curate/superpixels.py", code, fast) == set()
    from_files = CurateConfig(superpixels=SuperpixelFiles(root="maps"))
    assert changed_by(copy, "shards/label_maps.py", code, from_files) == set(OURS)
    assert "scikit-image" in code_of("nuscenes", FULL) and "scikit-image" not in code_of("nuscenes", PLAIN)


def test_libraries_are_those_that_are_imported() -> None:
    libraries = {name: {n for n in code_of(name, PLAIN) if not n.startswith("brickyard")} for name in OURS}
    assert all(found >= {"numpy", "numcodecs", "pyarrow"} for found in libraries.values())
    assert libraries["video"] - libraries["nuscenes"] == {"av"}
    assert libraries["pointfiles"] - libraries["nuscenes"] == {"lazrs"}
    assert not any(found & {"torch", "ray", "xxhash", "nuscenes-devkit"} for found in libraries.values())


def test_every_table_counts_for_somebody() -> None:
    tables = {p.name for folder in ("ingest", "curate", "shards") for p in (ROOT / folder).rglob("*.json")}
    assert tables == {n.rpartition("/")[2] for name in OURS for n in code_of(name, FULL) if n.endswith(".json")}


def said(text: str) -> str:
    return meaning(ast.parse(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(a):\n    '''Words.'''\n    return a", "def f( a ): return a  # a remark"),
        ("class A:\n    x: int\n    '''Of x.'''", "class A:\n    x: int"),
        ("'a' 'b'", "'other'"),
        ("x = 'a' 'b'", 'x = "ab"'),
        ("x = f'a' 'b{y}'", "x = f'a' f'b{{y}}'"),
        ("x = u'a'", "x = 'a'"),
        ("x = (1)", "x = 1"),
    ],
)
def test_words_and_layout_say_nothing(one: str, other: str) -> None:
    assert said(one) == said(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x: int = 1", "x: float = 1"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = '1'", "x = 1"),
        ("x = 'a'", "x = b'a'"),
        ("x = None", "x = ''"),
        ("x = f'{y}'", "x = f'{y!r}'"),
        ("x = f'{y}'", "x = f'{y:3}'"),
        ("f(a, b)", "f(b, a)"),
        ("def f(a, /, b): return a", "def f(a, b): return a"),
        ("def f(*, a=1, b): return a", "def f(*, a, b=1): return a"),
        ("{**a, 'b': 1}", "{'b': 1, **a}"),
        ("x = -1", "x = 1"),
        ("f('words')", "f('others')"),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
    ],
)
def test_code_says_something(one: str, other: str) -> None:
    assert said(one) != said(other)


def test_syntax_trees_of_other_versions_say_the_same() -> None:
    """As Python 3.12 and later have them: further fields, empty mostly; texts of an f-string cut otherwise."""
    tree = ast.parse("def f(a): return f'a{a}b'")
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef) and isinstance(function.body[0], ast.Return)
    before, text = meaning(tree), function.body[0].value
    assert isinstance(text, ast.JoinedStr)
    vars(function).update(_fields=(*ast.FunctionDef._fields, "type_params"), type_params=[])
    text.values = [ast.Constant(""), ast.Constant("a"), text.values[1], ast.Constant("b"), ast.Constant("")]
    assert meaning(tree) == before


# The spy: what is loaded when a scene is made.

SPY = """
import json, os, sys
from pathlib import Path
import numcodecs, numpy, PIL.Image, pyarrow.parquet, scipy.ndimage, skimage.segmentation  # once for all

def spy(dataset, root):
    from brickyard.curate.normals import NormalsConfig
    from brickyard.curate.pipeline import CurateConfig
    from brickyard.infra.recipe import ShardsConfig
    from brickyard.infra.task import make_scene
    from brickyard.ingest.source import SceneRef, find_source
    from brickyard.shards.containers import CONTAINERS
    from brickyard.shards.storage import Store
    config, shards, made, ran = CurateConfig(normals=NormalsConfig()), ShardsConfig(), [], set()
    source = find_source(dataset)
    sys.setprofile(lambda frame, event, arg: ran.add(frame.f_globals.get("__name__", "")) if event == "call" else None)
    ref = next(item for item in source.plan(Store(root), source.options()) if isinstance(item, SceneRef))
    CONTAINERS["parquet"].write([make_scene(ref, config, shards)], 0)
    sys.setprofile(None)
    return {"loaded": [name for name in sys.modules if name.startswith("brickyard")],
            "ran": [name for name in ran if name.startswith("brickyard")]}

world = Path(sys.argv[1])
for dataset, root in json.loads(sys.argv[2]).items():
    if (child := os.fork()) == 0:
        (world / f"{dataset}.json").write_text(json.dumps(spy(dataset, str(world / root))))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, dataset
"""
TINY = SimulationConfig(
    scannet_rooms=1, scannet_frames=1, scannet_spacing=0.3, scannet_color_size=(40, 30), scannet_depth_size=(20, 16),
    nuscenes_scenes=1, nuscenes_keyframes=2, nuscenes_image_size=(64, 36), nuscenes_columns=24, kitti_frames=1,
    kitti_drives=1, kitti_drive_frames=1, kitti_columns=24, kitti_image_size=(62, 19), kitti_odometry_sequences=1,
    kitti_odometry_frames=2, kitti360_drives=1, kitti360_frames=2, kitti360_image_size=(64, 24),
    kitti360_fisheye_size=40, video_frames=12, video_size=(64, 48), s3dis_rooms=1, s3dis_views=1, s3dis_points=2000,
    s3dis_image_size=64, pointfiles_pulses=2000, pointfiles_images=1, waymo_segments=1, waymo_frames=1,
    waymo_image_size=(64, 48), waymo_columns=60, waymo_rows=16, structured3d_houses=1, structured3d_rooms=1,
    structured3d_views=1, structured3d_panorama_size=(128, 64), structured3d_image_size=(64, 36), scannetpp_scenes=1,
    scannetpp_photographs=1, scannetpp_frames=2, scannetpp_spacing=0.4, scannetpp_size=(60, 40),
    scannetpp_frame_size=(64, 48), arkitscenes_captures=1, arkitscenes_frames=1, arkitscenes_spacing=0.4,
    arkitscenes_size=(32, 24), arkitscenes_wide_size=(48, 36), ase_walks=1, ase_frames=1,
    hm3d_buildings=1, hm3d_rooms=1, hm3d_spacing=2.0,
)  # fmt: skip
ROOTS = {"kitti_object": "kitti/object", "kitti_raw": "kitti/raw", "waymo_v1": "waymo/v1", "waymo_v2": "waymo/v2",
         "s3dis": "s3dis/Stanford3dDataset_v1.2"}  # fmt: skip
BRINGERS = {"storage", "listing", "retry", "plugins", "clients", "filesystems", "uri"}
"""Of `shards`: what lists the folders and brings the bytes of raw files, and what finds a reader."""
COMMITS = {"build", "corpus", "cache", "fetch", "lock", "quarantine"}
"""Of `shards`: what a task's commit imports; making a scene calls none of it."""
OTHER_KINDS = {"curate.fast_superpixels", "curate.lab", "curate.superpixel_files", "shards.label_maps"}
"""Of superpixels: they count where a recipe has them, and are imported with the one that it has."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Dataset -> our modules that were loaded, and that ran, when a scene of it was planned, made and written."""
    out = tmp_path_factory.mktemp("world")
    simulate(out, datasets=ALL_DATASETS, config=TINY)
    scene = out / "pointcept" / "train" / "scene0000_00"
    scene.mkdir(parents=True)
    np.save(scene / "coord.npy", np.random.default_rng(0).uniform(0, 3, (500, 3)).astype(np.float32))
    np.save(scene / "color.npy", np.zeros((500, 3), np.uint8))
    roots = {name: ROOTS.get(name, name) for name in OURS}
    command = [sys.executable, "-c", SPY, str(out), json.dumps(roots)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: json.loads((out / f"{name}.json").read_text()) for name in OURS}
    return {name: {kind: set(modules) for kind, modules in kinds.items()} for name, kinds in found.items()}


def test_all_that_runs_and_is_loaded_for_a_scene_counts(seen: dict[str, dict[str, set[str]]]) -> None:
    brings, commits = ({f"brickyard.shards.{name}" for name in names} for names in (BRINGERS, COMMITS))
    others = {f"brickyard.{name}" for name in OTHER_KINDS}
    for dataset, modules in seen.items():
        counted = code_of(dataset, FULL).keys()
        reads_a_recipe = {name for name in modules["loaded"] if name.startswith("brickyard.infra.")}
        assert modules["ran"] - counted <= brings | {"brickyard.infra.recipe", "brickyard.infra.meter"}, dataset
        assert modules["loaded"] - counted <= brings | commits | reads_a_recipe | others, dataset
        assert len(modules["ran"] & counted) > 15, "the spy sees"


@pytest.mark.parametrize("ours", ["brickyard.ingest.clips", "ingest.clips"])
def test_the_reader_of_a_third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str) -> None:
    """Its package counts by its code and its version, with what it imports of ours, by the old names too."""
    about = tmp_path / "meadow-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: meadow\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[brickyard.sources]\nmeadow = meadow.reader:SOURCE\n")
    package = tmp_path / "meadow"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "reader.py").write_text(f"from . import words\nfrom {ours} import Frame\nimport unheard_of\n")
    (package / "words.py").write_text("A = 1\n")
    (package / "other.py").write_text("B = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = code_of("meadow", PLAIN)
    assert found["version of meadow"] == "1.0" and "meadow" in found and found["unheard_of"] == "no version known"
    assert {"meadow.reader", "meadow.words", "brickyard.ingest.clips", "brickyard.shards.encode"} <= found.keys()
    assert "meadow.other" not in found and "ingest" not in found
    (package / "words.py").write_text("A = 1  # a remark\n")
    assert code_of("meadow", PLAIN) == found
    (package / "words.py").write_text("A = 2\n")
    assert {n for n, value in code_of("meadow", PLAIN).items() if value != found[n]} == {"meadow.words"}
