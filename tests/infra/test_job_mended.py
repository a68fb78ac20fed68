"""Raw data mended after a build: taken in on request, to the bytes of a build of the mended data; nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brickyard.infra.job import BuildResult, run_build
from brickyard.infra.plan import make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.errors import CorpusError
from tests.infra.test_build import files, write_kitti

RECIPE = """
name: test
sources: [{dataset: kitti_object, root: raw}]
curate: {superpixels: null}
shards: {max_scenes: 2}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_kitti(tmp_path / "raw", 6)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def build(home: Path, out: str = "corpus", **options: Any) -> BuildResult:
    recipe, folder = load_recipe(home / "recipe.yaml")
    return run_build(recipe, make_plan(recipe, folder), str(home / out), in_process=True, **options)


def scan(home: Path, frame: int) -> Path:
    return home / "raw" / "training" / "velodyne" / f"{frame:06d}.bin"


def keys(result: BuildResult) -> list[str]:
    return [q["key"][-6:] for q in result.manifest["quarantined"]]


def test_a_truncated_and_a_missing_file_are_taken_once_they_are_whole(home: Path) -> None:
    whole = [scan(home, frame).read_bytes() for frame in (2, 5)]
    scan(home, 2).write_bytes(whole[0][:1003])
    scan(home, 5).unlink()
    assert keys(build(home)) == ["000002", "000005"]
    scan(home, 2).write_bytes(whole[0])
    scan(home, 5).write_bytes(whole[1])
    with pytest.raises(CorpusError, match="No scene that was built has changed; --retry-quarantined takes"):
        build(home)
    assert (home / "corpus" / MANIFEST).exists()
    result = build(home, retry_quarantined=True)
    assert keys(result) == []
    assert (result.tasks_done, result.tasks_reused) == (2, 1)
    build(home, "fresh")
    assert files(home / "corpus") == files(home / "fresh")
    assert build(home).tasks_reused == 3


def test_a_first_scene_that_was_missing_takes_its_place(home: Path) -> None:
    whole = scan(home, 0).read_bytes()
    scan(home, 0).unlink()
    build(home)
    scan(home, 0).write_bytes(whole)
    build(home, retry_quarantined=True)
    build(home, "fresh")
    assert files(home / "corpus") == files(home / "fresh")
    assert len(Corpus.open(home / "corpus")) == 6


def test_what_was_built_stays_and_what_is_new_is_refused(home: Path) -> None:
    whole = scan(home, 2).read_bytes()
    scan(home, 2).write_bytes(whole[:1003])
    build(home)
    before = files(home / "corpus")
    scan(home, 2).write_bytes(whole)
    other = scan(home, 4).read_bytes()
    scan(home, 4).write_bytes(other[:-16])
    with pytest.raises(CorpusError, match=r"training/000004: was built, and its raw files have changed since"):
        build(home, retry_quarantined=True)
    scan(home, 4).unlink()
    with pytest.raises(CorpusError, match=r"training/000004: was built, and its raw files are gone since"):
        build(home, retry_quarantined=True)
    scan(home, 4).write_bytes(other)
    for kind in ("velodyne", "image_2", "calib"):
        (path,) = (home / "raw" / "training" / kind).glob("000000.*")
        path.with_stem("000006").write_bytes(path.read_bytes())
    with pytest.raises(CorpusError, match=r"training/000006: is new"):
        build(home, retry_quarantined=True)
    assert files(home / "corpus") == before


def test_a_kill_while_mended_data_are_taken_is_gone_on_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of the writes and removals that the request makes, the same command does the rest."""
    from brickyard.shards.storage import Store

    whole = scan(home, 2).read_bytes()
    build(home, "fresh")
    for last in (1, 2, 3):
        corpus = f"corpus{last}"
        scan(home, 2).write_bytes(whole[:1003])
        build(home, corpus)
        scan(home, 2).write_bytes(whole)
        left = last

        def killed(self: Store, name: str, *rest: Any, real: Any = None, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return real(self, name, *rest, **options)

        with monkeypatch.context() as patch:
            for name in ("write", "delete"):
                real = getattr(Store, name)
                patch.setattr(Store, name, lambda *a, real=real, **o: killed(*a, real=real, **o))
            with pytest.raises(KeyboardInterrupt):
                build(home, corpus, retry_quarantined=True)
        assert keys(build(home, corpus, retry_quarantined=True)) == []
        assert files(home / corpus) == files(home / "fresh")
