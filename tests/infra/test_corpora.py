"""Which corpora a training reads: from the command line, from the recipe, with variables, selections and weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from brickyard.infra.cli import main
from brickyard.infra.corpora import CorpusConfig, from_arguments, open_portions
from brickyard.infra.layers import compose_recipe
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.train import corpora_of
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError, RecipeError
from brickyard.shards.selection import select, write_selection
from brickyard.shards.storage import Store
from brickyard.train.loop import TrainConfig
from tests.evaluate.rooms import room_corpus

OBJECTIVE = "{name: sonata, student: {network: tiny, size: 0.1}, prototypes: 16, hidden: 24, dimensions: 8}"
LOOP = TrainConfig(steps=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three corpora, and selections of the first two."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, train in (("a", 2), ("b", 3), ("c", 1)):
        room_corpus(folder / name, train=train, val=1, points=150)
    for name, split in (("a", "val"), ("b", "train")):
        corpus = Corpus.open(folder / name)
        write_selection(Store(folder), f"{name}.parquet", select(corpus, splits=[split]))
    return folder


def configs(home: Path, *names: str) -> tuple[CorpusConfig, ...]:
    return tuple(CorpusConfig(root=str(home / name)) for name in names)


def test_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run=3").mkdir()
    words = ["a/", "b/=0.3", "/c=2", "run=3", "s3://bucket/d=1e-2", "s3://bucket/e?region=7", "~/f=x"]
    found = [(entry.root, entry.weight) for entry in from_arguments(words)]
    places = [str(tmp_path / "a"), str(tmp_path / "b"), "/c", str(tmp_path / "run=3"), "s3://bucket/d"]
    places += ["s3://bucket/e?region=7", str(Path("~/f=x").expanduser())]
    assert found == list(zip(places, [1.0, 0.3, 2.0, 1.0, 0.01, 1.0, 1.0], strict=True))
    with pytest.raises(RecipeError, match=r"--corpus b=0: weight must be positive"):
        from_arguments(["b=0"])
    secret = from_arguments(["s3://EXAMPLEKEY:EXAMPLESECRET@bucket/d=2"])[0]
    assert "EXAMPLE" not in str(secret) and secret.root.whole == "s3://EXAMPLEKEY:EXAMPLESECRET@bucket/d"  # type: ignore[attr-defined]


RECIPE = """
name: mixed
sources: [{dataset: scannet, root: '${NOT_SET_HERE}'}]
train:
  steps: 3
  objective: OBJECTIVE
  corpora:
    - {root: ../a, selection: ../a.parquet}
    - {root: '${ROOMS}/b', weight: 2, split: val}
""".replace("OBJECTIVE", OBJECTIVE)


def recipe(home: Path, text: str = RECIPE) -> Path:
    path = home / "recipes" / "mixed.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_those_of_a_recipe(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the recipe's folder; variables are asked for where they are needed alone."""
    path = recipe(home)
    load_recipe(path, raw=False)
    with pytest.raises(RecipeError, match=r"line 9 column 14: train.corpora\[1\].root: .* no variable ROOMS"):
        corpora_of(path)
    monkeypatch.setenv("ROOMS", str(home))
    found = corpora_of(path)
    assert found == (
        CorpusConfig(root=str(home / "a"), selection=str(home / "a.parquet")),
        CorpusConfig(root=str(home / "b"), weight=2.0, split="val"),
    )
    used, portions = open_portions(found, [], LOOP, None)
    assert used == found and [portion.weight for portion in portions] == [1.0, 2.0]
    assert [portion.rows.tolist() for portion in portions if portion.rows is not None] == [[2], [3]]  # val of each
    assert corpora_of(path, ["train.corpora.1.weight=5"])[1].weight == 5
    assert corpora_of(path, ["train.corpora=[]"]) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.corpora.0.weight=0", "--set train.corpora.0.weight: train.corpora[0]: weight must be positive"),
        ("train.corpora.0.weight=.inf", "train.corpora[0].weight: .inf is not a finite number"),
        ("train.corpora.0.split=val", "a selection says which scenes: leave out dataset and split"),
        ("train.corpora.0.selection=s3://b/x.parquet", "selection must be a local file"),
        ("train.corpora.0.rot=x", "unknown key 'rot' in train.corpora[0]; nearest valid key: 'root'"),
        ("train.corpora.1.dataset='${X}'", "${X} stands here, but variables are for the roots of sources, corpora"),
    ],
)
def test_a_mistake_names_its_place(home: Path, monkeypatch: pytest.MonkeyPatch, change: str, words: str) -> None:
    monkeypatch.setenv("ROOMS", str(home))
    with pytest.raises(RecipeError) as caught:
        corpora_of(recipe(home), [change])
    assert words in str(caught.value)


def test_a_selection_finds_its_corpus(home: Path) -> None:
    chosen = [home / "b.parquet", home / "a.parquet"]
    used, portions = open_portions(configs(home, "a", "c", "b"), chosen, LOOP, None)
    assert [entry.selection for entry in used] == [str(home / "a.parquet"), None, str(home / "b.parquet")]
    rows = [portion.rows.tolist() for portion in portions if portion.rows is not None]
    assert rows == [[2], [0], [0, 1, 2]]  # the second one as `train.split` says
    with pytest.raises(CorpusError, match=r"a\.parquet: the selection was made over the corpus .*: select again"):
        open_portions(configs(home, "c"), [home / "a.parquet"], LOOP, None)
    for roots, files in ((("a", "a"), ("a",)), (("a", "b"), ("a", "a"))):
        with pytest.raises(RecipeError, match="another selection, or another corpus, that is the same"):
            open_portions(configs(home, *roots), [home / f"{name}.parquet" for name in files], LOOP, None)
    with pytest.raises(RecipeError, match=r"nothing to train on: give --corpus FOLDER, or list `train\.corpora`"):
        open_portions((), [], LOOP, None)
    with pytest.raises(RecipeError, match=r"/c has no scene of split 'test'"):
        open_portions((*configs(home, "a"), CorpusConfig(root=str(home / "c"), split="test")), [], LOOP, None)


def test_a_mixture_is_trained_again_from_the_recipe_it_leaves(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOMS", str(home))
    path = recipe(home)
    options = ["--set", "train.batch=2", "--set", "train.threads=1", "--set", "train.steps=1"]
    run, again, other = tmp_path / "run", tmp_path / "again", tmp_path / "other"
    assert main(["train", str(path), "--out", str(run), *options]) == 0
    assert "1 steps over 2 scenes" in capsys.readouterr().out
    kept = yaml.safe_load((run / "recipe.yaml").read_text())["train"]["corpora"]
    near = home / "recipes" / ".."
    assert kept[0] == {"root": str(near / "a"), "selection": str(near / "a.parquet")}
    assert kept[1] == {"root": "${ROOMS}/b", "weight": 2, "split": "val"}
    assert main(["train", str(run / "recipe.yaml"), "--out", str(again)]) == 0
    words = ["--corpus", str(home / "a"), "--corpus", f"{home / 'b'}=2", "--selection", str(home / "a.parquet")]
    assert main(["train", str(path), "--out", str(other), *words, *options]) == 0
    configs = [json.loads((folder / "config.json").read_text()) for folder in (run, again, other)]
    assert configs[0] == configs[1] and configs[0]["shares"] == configs[2]["shares"] == [333, 667]
    assert configs[0]["corpus"] == configs[2]["corpus"] and configs[0]["selection"] != configs[2]["selection"]
    written = yaml.safe_load((other / "recipe.yaml").read_text())["train"]["corpora"]
    assert [(entry["root"], entry["weight"]) for entry in written] == [(str(home / "a"), 1.0), (str(home / "b"), 2.0)]
    assert main(["train", str(path), "--out", str(run), *words, *options]) == 2
    assert "selection: was" in capsys.readouterr().err
    assert main(["train", str(path), "--out", str(tmp_path / "no"), *options, "--set", "train.steps=null"]) == 2
    assert "a mixture has no epochs" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert compose_recipe(run / "recipe.yaml").plain()["train"]["steps"] == 1


def test_rows_of_a_selection_follow_the_seed(home: Path) -> None:
    corpus = Corpus.open(home / "b")
    write_selection(Store(home), "half.parquet", select(corpus, weights={"indoor": 0.5}))
    entry = CorpusConfig(root=str(home / "b"), selection=str(home / "half.parquet"))
    rows = {tuple(np.asarray(open_portions([entry], [], TrainConfig(seed=s), None)[1][0].rows)) for s in (1, 2, 5)}
    assert len(rows) > 1
