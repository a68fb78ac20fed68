"""The folder of a run: what may change between two parts of it, and what may not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.visits import Portion
from brickyard.train.loop import TrainConfig
from brickyard.train.objectives import Sonata, STSLidR
from brickyard.train.running.distributed import Group
from brickyard.train.running.run_folder import RunFolder, processor, recipe_differences, selection_fingerprint
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from tests.train.rings import ring_corpus
from tests.train.spy import SpyStudent
from tests.train.test_step import CONFIG, SPY


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=3)


def folder(out: Path, corpus: Corpus, config: TrainConfig = CONFIG, rows: tuple[int, ...] = (0, 1)) -> RunFolder:
    with Group.join("cpu") as group:
        return RunFolder(
            out, group, config=config, settings=SPY, portions=[Portion(corpus=corpus, rows=np.array(rows))]
        )


def saved(out: Path, corpus: Corpus) -> Path:
    """A run with one checkpoint."""
    assert folder(out, corpus).open(resume=True) is None
    checkpoint = out / "checkpoints" / "step-000004"
    checkpoint.mkdir(parents=True)
    return checkpoint


def test_what_does_not_decide_the_numbers_may_change(tmp_path: Path, corpus: Corpus) -> None:
    checkpoint = saved(tmp_path, corpus)
    free = replace(CONFIG, threads=7, keep_last=1, explode_factor=None, keep_best=False)
    assert folder(tmp_path, corpus, free).open(resume=True) == checkpoint
    with pytest.raises(RecipeError, match="already holds a run"):
        folder(tmp_path, corpus).open(resume=False)


def test_another_selection_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    saved(tmp_path, corpus)
    with pytest.raises(RecipeError, match=f"selection: was .*{selection_fingerprint(np.array([0, 1]))}"):
        folder(tmp_path, corpus, rows=(0, 2)).open(resume=True)
    assert selection_fingerprint(np.array([1, 0])) != selection_fingerprint(np.array([0, 1]))


def test_a_budget_is_part_of_the_run(tmp_path: Path, corpus: Corpus) -> None:
    saved(tmp_path, corpus)
    assert CONFIG.budget is not None
    with pytest.raises(RecipeError, match=r"train\.budget\.points: was 1500, is 1600"):
        folder(tmp_path, corpus, replace(CONFIG, budget=replace(CONFIG.budget, points=1600))).open(resume=True)


def test_settings_that_an_older_version_did_not_have_were_the_defaults(tmp_path: Path, corpus: Corpus) -> None:
    checkpoint = saved(tmp_path, corpus)
    path = tmp_path / "config.json"
    table = json.loads(path.read_text())
    del table["train"]["nonfinite"], table["train"]["skip_after"], table["selection"]
    del table["train"]["budget"]["cost"], table["train"]["budget"]["most"]
    path.write_text(json.dumps(table))
    assert folder(tmp_path, corpus).open(resume=True) == checkpoint
    with pytest.raises(RecipeError, match=r'train\.nonfinite: was "stop", is "skip"'):
        folder(tmp_path, corpus, replace(CONFIG, nonfinite="skip")).open(resume=True)


def test_a_setting_may_have_been_another_before_there_was_a_choice(tmp_path: Path, corpus: Corpus) -> None:
    """Intensities were 0..1 before students could take the published scale, which is the default now."""
    unit = STSLidR(student=UNetConfig(network="tiny", intensity="unit"))
    with Group.join("cpu") as group:
        portions = [Portion(corpus=corpus, rows=np.array([0]))]
        RunFolder(tmp_path, group, config=CONFIG, settings=unit, portions=portions).open(resume=True)
    path = tmp_path / "config.json"
    table = json.loads(path.read_text())
    del table["objective"]["student"]["intensity"]
    path.write_text(json.dumps(table))
    assert recipe_differences(tmp_path, CONFIG, unit) == []
    now = STSLidR(student=UNetConfig(network="tiny"))
    assert recipe_differences(tmp_path, CONFIG, now) == ['objective.student.intensity: was "unit", is "published"']


def test_the_summary_is_written_last(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder(tmp_path, corpus)
    run.open(resume=True)
    assert run.finished() is None
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError("no space left")

        patch.setattr("brickyard.train.running.run_folder.export_student", fail)
        with pytest.raises(OSError, match="no space"):
            run.finish(SpyStudent(), {"steps": 3})
    assert run.finished() is None
    run.finish(SpyStudent(), {"steps": 3})
    assert run.finished() == {"steps": 3}
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["device"] == processor() and environment["world"] == 1 and environment["packages"]["torch"]


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"train": {}', b'{"train": {}, "objective": {}, "corpus": "x"}'])
def test_a_damaged_configuration_is_one_sentence(tmp_path: Path, corpus: Corpus, damaged: bytes) -> None:
    """Where there are checkpoints; without any, nothing was made of it yet, and it is written again."""
    path = tmp_path / "config.json"
    path.write_bytes(damaged)
    assert folder(tmp_path, corpus).open(resume=True) is None
    good = path.read_bytes()
    checkpoint = saved(tmp_path, corpus)
    path.write_bytes(damaged)
    with pytest.raises(BrickyardError, match=r"config\.json .*restore it, or train in another folder"):
        folder(tmp_path, corpus).open(resume=True)
    path.write_bytes(good)
    assert folder(tmp_path, corpus).open(resume=True) == checkpoint


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"steps": 3, "sec', b'{"steps": null}'])
def test_a_damaged_summary_is_made_again(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str], damaged: bytes
) -> None:
    run = folder(tmp_path, corpus)
    run.open(resume=True)
    run.finish(SpyStudent(), {"steps": 3})
    (tmp_path / "final" / "summary.json").write_bytes(damaged)
    assert run.finished() is None and "summary.json" in capsys.readouterr().err
    run.finish(SpyStudent(), {"steps": 3})
    assert run.finished() == {"steps": 3}


def test_leftovers_do_not_stop_a_run(tmp_path: Path, corpus: Corpus) -> None:
    checkpoint = saved(tmp_path, corpus)
    for name in ("step-000009.bak", ".partial-step-000008", "step-"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert folder(tmp_path, corpus).open(resume=True) == checkpoint
    assert not (tmp_path / "checkpoints" / ".partial-step-000008").exists()


def test_which_recipes_can_have_made_a_run(tmp_path: Path, corpus: Corpus) -> None:
    assert folder(tmp_path, corpus).open(resume=True) is None
    assert recipe_differences(tmp_path, replace(CONFIG, seed=9, threads=7, device="cuda"), SPY) == []
    assert recipe_differences(tmp_path, replace(CONFIG, lr=0.25), SPY) == [f"train.lr: was {CONFIG.lr}, is 0.25"]
    assert any(line.startswith('objective.name: was "spy"') for line in recipe_differences(tmp_path, CONFIG, STSLidR()))


def test_paths_in_the_configuration(tmp_path: Path, corpus: Corpus) -> None:
    """A network may begin with the weights of a file."""
    settings = Sonata(student=PointStudentConfig(network="tiny", weights=Path("some/weights.pt")))
    with Group.join("cpu") as group:
        run = RunFolder(
            tmp_path, group, config=CONFIG, settings=settings, portions=[Portion(corpus=corpus, rows=np.array([0]))]
        )
    run.open(resume=True)
    assert json.loads((tmp_path / "config.json").read_text())["objective"]["student"]["weights"] == "some/weights.pt"
    assert recipe_differences(tmp_path, CONFIG, settings) == []
