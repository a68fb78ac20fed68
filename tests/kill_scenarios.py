"""What the kill matrix does to small corpora: one function a scenario, each giving `tests.kill_matrix.Scenario`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from brickyard.infra import job as job_module
from brickyard.infra.job import run_build
from brickyard.infra.plan import Plan, make_plan
from brickyard.infra.recipe import Recipe, load_recipe
from brickyard.infra.repair import repair
from brickyard.infra.task import run_task
from brickyard.shards import quarantine
from brickyard.shards.codecs import Spec, encode_array
from brickyard.shards.convert import convert
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.export.plain import export_plain
from brickyard.shards.export.ply import export_ply
from brickyard.shards.export.pointcept import export_pointcept
from brickyard.shards.layers import LayeredCorpus, write_layer
from brickyard.shards.orphans import collect
from brickyard.shards.selection import read_selection, select, write_selection
from brickyard.shards.storage import Store
from brickyard.shards.verify import verify
from tests.faults import active
from tests.infra.test_build import write_kitti
from tests.kill_matrix import Scenario

RECIPE = """
name: killed
sources: [{{dataset: kitti_object, root: {root}}}]
curate: {{superpixels: null}}
shards: {{max_scenes: 2}}
"""
_FRAMES = 5
_planned: dict[str, tuple[Recipe, Plan]] = {}
"""By recipe: planning is no part of what is killed."""


def make_material(home: Path) -> None:
    """Raw data: whole, and with a scan cut short and one missing; a corpus of the whole ones."""
    write_kitti(home / "raw", _FRAMES)
    shutil.copytree(home / "raw", home / "cut")
    scan = home / "cut" / "training" / "velodyne" / "000002.bin"
    scan.write_bytes(scan.read_bytes()[:1003])
    (scan.parent / "000003.bin").unlink()
    for name in ("raw", "cut"):
        path = home / f"{name}.yaml"
        path.write_text(RECIPE.format(root=name))
        recipe, folder = load_recipe(path)
        _planned[name] = (recipe, make_plan(recipe, folder))
    few, folder = load_recipe(home / "raw.yaml", ["sources.0.limit=3"])
    _planned["few"] = (few, make_plan(few, folder))
    recipe, plan = _planned["raw"]
    code = {name: dict(modules) for name, modules in plan.fingerprint["code"].items()}
    code["kitti_object"]["brickyard.ingest.kitti.velodyne"] = "0" * 16
    _planned["older"] = (recipe, replace(plan, fingerprint=plan.fingerprint | {"code": code}))
    build(str(home / "given"))


def inside(place: str, name: str) -> str:
    """The path or URI of something in a folder."""
    head, mark, query = place.partition("?")
    return f"{head}/{name}{mark}{query}"


def build(place: str, which: str = "raw", **options: Any) -> None:
    """A build in this process, tasks and all."""
    recipe, plan = _planned[which]
    with mock.patch.object(job_module, "run_watched", run_task):
        run_build(recipe, plan, inside(place, "corpus"), in_process=True, **options)


def look(place: str) -> str:
    """The digest of the corpus, all whose blobs are what they should be."""
    corpus = Corpus.open(inside(place, "corpus"))
    assert verify(corpus).problems == ()
    return str(corpus.manifest["digest"])


def nothing(place: str) -> None:
    """An empty folder to begin in; an object store needs none."""
    if "://" not in place:
        Path(place).mkdir()


def with_corpus(home: Path, place: str) -> None:
    shutil.copytree(home / "given", place)


# scenarios: home -> Scenario


def building(home: Path) -> Scenario:
    return Scenario(nothing, build, look)


def losing(home: Path) -> Scenario:
    """A build that loses scenes; the list of them is in a file of its own, as if it were long."""
    return Scenario(nothing, build_cut, look)


def build_cut(place: str) -> None:
    with mock.patch.object(quarantine, "MAX_INLINE_BYTES", 10):
        build(place, "cut")


def resuming(home: Path) -> Scenario:
    """A build that goes on after a kill: a part is missing, a shard has no record, a temporary file is there."""

    def prepare(place: str) -> None:
        with_corpus(home, place)
        corpus = Path(place) / "corpus"
        for name in ("manifest.json", "index.parquet", "parts/00001.parquet", "parts/00002.parquet"):
            (corpus / name).unlink()
        (corpus / "parts" / ".partial-7-8-00001.parquet").write_bytes(b"half")

    return Scenario(prepare, build, look)


def mending(home: Path) -> Scenario:
    """`--retry-quarantined` where scenes were lost."""

    def prepare(place: str) -> None:
        nothing(place)
        build_cut(place)

    return Scenario(prepare, partial(build, retry_quarantined=True), look)


def growing(home: Path) -> Scenario:
    """`--grow` of a corpus of the first scenes."""

    def prepare(place: str) -> None:
        nothing(place)
        build(place, "few")

    return Scenario(prepare, partial(build, grows=True), look)


def accepting(home: Path) -> Scenario:
    """`--accept-code` where other code has made all parts but one."""

    def prepare(place: str) -> None:
        shutil.copytree(home / "older", place)
        for name in ("manifest.json", "index.parquet", "parts/00001.parquet"):
            (Path(place) / "corpus" / name).unlink()

    build(str(home / "older"), "older")
    return Scenario(prepare, partial(build, accept_code=True), look)


def repairing(home: Path) -> Scenario:
    """A shard with a flipped bit, one that is cut short, a commit record that is gone."""

    def prepare(place: str) -> None:
        with_corpus(home, place)
        first, second, _ = sorted((Path(place) / "corpus" / "shards").iterdir())
        data = bytearray(first.read_bytes())
        data[len(data) // 2] ^= 8
        first.write_bytes(data)
        second.write_bytes(second.read_bytes()[:5000])
        (Path(place) / "corpus" / "parts" / "00002.parquet").unlink()

    def act(place: str) -> None:
        repair(*_planned["raw"], inside(place, "corpus"))

    def look_again(place: str) -> str:
        return "damaged" if verify(Corpus.open(inside(place, "corpus"))).problems else look(place)

    return Scenario(prepare, act, look_again)


def layering(home: Path) -> Scenario:
    def prepare(place: str) -> None:
        nothing(place)
        if "://" in place:
            build(place)
        else:
            shutil.copytree(home / "given" / "corpus", Path(place) / "corpus")

    return Scenario(prepare, write_heights, look_at_heights)


def write_heights(place: str) -> None:
    corpus = Corpus.open(inside(place, "corpus"))

    def annotate(row: int) -> Mapping[str, tuple[bytes, Spec]]:
        return {"points/x": encode_array(np.full(corpus.points_per_scene[row], row, np.uint8))}

    write_layer(corpus, "heights", annotate, provenance={"made": "by a test"})


def look_at_heights(place: str) -> str:
    corpus = LayeredCorpus.open(inside(place, "corpus"), layers=["heights"])
    for row in range(len(corpus)):
        values = corpus.read_field(row, corpus.header(row), "heights/points/x", corpus.addresses(row))
        assert np.array_equal(values, np.full(corpus.points_per_scene[row], row))
    return str(corpus.layers["heights"].manifest["digest"])


def selecting(home: Path) -> Scenario:
    """A selection in the place of another one."""

    def act(place: str, least: float = 0.0) -> None:
        chosen = select(Corpus.open(home / "given" / "corpus"), at_least={"n_pairs": least})
        write_selection(Store(place), "chosen.parquet", chosen)

    def look_at_it(place: str) -> str:
        return " ".join(read_selection(Store(place), "chosen.parquet").keys)

    def prepare(place: str) -> None:
        nothing(place)
        act(place, 1e9)

    return Scenario(prepare, act, look_at_it)


def converting(home: Path) -> Scenario:
    def act(place: str) -> None:
        convert(Corpus.open(home / "given" / "corpus"), Store(inside(place, "corpus")), "webdataset")

    return Scenario(nothing, act, look)


def exporting(home: Path, export: Callable[[Corpus, Store], object]) -> Scenario:
    """A folder for other tools; that it is complete is said by its `export.json`."""

    def act(place: str) -> None:
        export(Corpus.open(home / "given" / "corpus"), Store(inside(place, "out")))

    def look_at_it(place: str) -> str:
        record = Path(place) / "out" / "export.json"
        if not record.exists() or "finished" not in record.read_text():
            raise CorpusError(f"{record} does not say that the export is finished")
        return "finished"

    return Scenario(nothing, act, look_at_it)


def collecting(home: Path) -> Scenario:
    """`gc` itself, in a corpus with a layer."""

    def prepare(place: str) -> None:
        with_corpus(home, place)
        write_heights(place)
        corpus = Path(place) / "corpus"
        for name in (".partial-manifest.json", "shards/.partial-x", "shards/00001-0123456789abcdef.parquet",
                     "parts/00009-quarantined.parquet", "quarantined.parquet", "layers/heights/.partial-build.json",
                     "layers/heights/shards/00000-0123456789abcdef.parquet"):  # fmt: skip
            (corpus / name).write_bytes(b"half")

    def act(place: str) -> None:
        collect(Store(inside(place, "corpus")), delete=True)

    return Scenario(prepare, act, look)


def losing_workers(home: Path) -> Scenario:
    """The process of a task is killed, its driver is not, and tries again at once."""

    def act(place: str) -> None:
        with mock.patch.object(job_module, "run_watched", in_a_process):
            run_build(*_planned["raw"], inside(place, "corpus"), in_process=True)

    return Scenario(nothing, act, look, modes=("kill", "torn"))


def in_a_process(*task: Any) -> Any:
    """A task in a process of its own, twice if need be; faults are for the first one alone."""
    for state in active:
        state.paused = True
    answer = Path(task[0].out).parent.with_suffix(".operations")
    for attempt in range(2):
        process = os.fork()
        if process == 0:
            for state in active:
                state.paused, state.at = False, 0 if attempt else state.at
            before = len(active[0].log) if active else 0
            run_task(*task)
            answer.write_text(json.dumps(active[0].log[before:] if active else []))
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0:
            break
    for state in active:
        state.log += json.loads(answer.read_text())
        state.at = 0 if attempt else state.at
    return run_task(*task)


LOCAL: dict[str, Callable[[Path], Scenario]] = {
    "build": building,
    "build that loses scenes": losing,
    "build that loses workers": losing_workers,
    "resumed build": resuming,
    "--retry-quarantined": mending,
    "--grow": growing,
    "--accept-code": accepting,
    "repair": repairing,
    "layer": layering,
    "selection": selecting,
    "convert": converting,
    "export plain": partial(exporting, export=export_plain),
    "export ply": partial(exporting, export=export_ply),
    "export pointcept": partial(exporting, export=export_pointcept),
    "gc": collecting,
}
_REMOTE_MODES = ("kill", "torn", "denied", "hiccup")
REMOTE: dict[str, Callable[[Path], Scenario]] = {
    "build on S3": lambda home: replace(building(home), remote=True, modes=_REMOTE_MODES),
    "--retry-quarantined on S3": lambda home: replace(mending(home), remote=True, modes=_REMOTE_MODES),
    "--grow on S3": lambda home: replace(growing(home), remote=True, modes=_REMOTE_MODES),
    "layer on S3": lambda home: replace(layering(home), remote=True, modes=_REMOTE_MODES),
}
