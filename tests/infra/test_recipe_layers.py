"""A recipe of several layers: what wins, and that each complaint names the layer where the value was given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.infra.cli import main
from brickyard.infra.config import Deferred, parse, to_yaml
from brickyard.infra.layers import MAX_FILES, compose_recipe, merge, with_variables
from brickyard.infra.recipe import build_config, load_recipe, resolved_recipe
from brickyard.infra.verbs.train import training
from brickyard.shards.errors import RecipeError
from tests.evaluate.rooms import room_corpus
from tests.infra.test_config import PLAIN

COMMON = """\
name: common
sources:
  - {dataset: kitti_object, root: raw}
  - dataset: scannet
    root: "${SCANS}/v2"
curate: &curate
  superpixels: {segments: 40, sigma: 2.0}
train:
  objective: {name: sonata}
  lr: 0.5
"""


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


@pytest.fixture(autouse=True)
def scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANS", "/data/scans")


def refusal(path: Path, *changes: str) -> str:
    with pytest.raises(RecipeError) as caught:
        training(load_recipe(path, changes)[0].train)
    return str(caught.value)


def test_set_replaces_and_extends_merges(tmp_path: Path) -> None:
    write(tmp_path / "base", common=COMMON)
    path = write(
        tmp_path / "mine",
        recipe="extends: ../base/common.yaml\nname: mine\ncurate: {superpixels: {segments: 7}}\ntrain: {batch: 2}\n",
    )
    recipe, folder = load_recipe(path, ["train.lr=1e-3", "sources.0.limit=3", "curate.correspondences=null"], raw=False)
    assert (recipe.name, folder) == ("mine", (tmp_path / "mine").resolve())
    assert recipe.curate.superpixels is not None
    assert (recipe.curate.superpixels.segments, recipe.curate.superpixels.sigma) == (7, 2.0)
    assert recipe.curate.correspondences is None
    assert [source.limit for source in recipe.sources] == [3, None]
    assert recipe.sources[0].root == str((tmp_path / "base").resolve() / "raw"), "relative to the file it stands in"
    assert (training(recipe.train)[0].lr, training(recipe.train)[0].batch) == (0.001, 2)
    replaced = load_recipe(path, ["sources=[{dataset: scannet, root: s}]"])[0]
    assert [source.root for source in replaced.sources] == ["s"]
    assert load_recipe(path, ["sources=", "sources=[]"])[0].sources == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.lr=fast", "--set train.lr: train.lr: expected a number, found the text 'fast'"),
        ("train.lr=-1", "--set train.lr: train: "),
        ("train.lrr=1", "--set train.lrr: unknown key 'lrr' in train; nearest valid key: 'lr'"),
        ("train.objective={name: sonnet}", "--set train.objective: unknown name 'sonnet'"),
        ("sources.2.limit=1", "--set sources.2.limit: sources is a list of 2, counted from 0; it has no '2'"),
        ("sources.x=1", "--set sources.x: sources is a list of 2, counted from 0; it has no 'x'"),
        ("name.first=1", "--set name.first: name is neither a mapping nor a list, it has no 'first'"),
        ("train.lr", "--set train.lr: expected KEY=VALUE"),
        ("train..lr=1", "--set train..lr: expected KEY=VALUE"),
        ("name=[a", "--set name line 1 column 3: not valid YAML"),
        ("name=!!python/none a", "--set name line 1 column 1: tags"),
        ("extends=other.yaml", "--set extends: unknown key 'extends'"),
        ("shards.target_mib=0", "--set shards.target_mib: shards: target_mib must be between"),
        (f"{'a.' * 40}a=1", "nested deeper than 32 levels"),
        ("train.objective.teacher={name: '${HOME}/t'}", "train.objective.teacher.name: ${HOME} stands here, but"),
        ("name=${HOME}", "--set name: name: ${HOME} stands here, but variables are for the roots of sources, "),
    ],
)  # fmt: skip
def test_a_mistake_of_an_option_names_the_option(tmp_path: Path, change: str, words: str) -> None:
    assert words in refusal(write(tmp_path, recipe=COMMON), change)


def test_a_mistake_in_a_file_names_that_file(tmp_path: Path) -> None:
    write(tmp_path, common=COMMON.replace("lr: 0.5", "lr: slow"))
    path = write(tmp_path / "mine", recipe="extends: ../common.yaml\nname: mine\ntrain:\n  batch: many\n")
    assert refusal(path, "train.lr=1") == (
        "recipe.yaml line 4 column 10: train.batch: expected a whole number, found the text 'many'"
    )
    assert refusal(path, "train.batch=1").startswith("../common.yaml line 10 column 7: train.lr: expected a number")
    write(tmp_path, common=COMMON.replace("root: raw", "root: 5"))
    assert refusal(path).startswith(
        "../common.yaml line 3 column 35: sources[0].root: expected a text, found the whole"
    )
    write(tmp_path, common=COMMON + "train: {}\n")
    assert refusal(path).startswith("../common.yaml line 11 column 1: duplicate key 'train' in the recipe")


def test_files_that_cannot_be_extended(tmp_path: Path) -> None:
    for text, words in [
        ("extends: absent.yaml", "a.yaml line 1 column 10: there is no file 'absent.yaml' to extend"),
        ("extends: a.yaml", "a.yaml line 1 column 10: a.yaml extends this file in turn"),
        ("extends: b.yaml", "b.yaml line 1 column 10: a.yaml extends this file in turn"),
        ("extends: [b.yaml]", "a.yaml line 1 column 10: extends: expected a text, found a list"),
        ("extends: .", "a.yaml line 1 column 10: there is no file '.'"),
        ("- extends: b.yaml", "a.yaml line 1 column 1: the recipe: expected a mapping"),
    ]:
        assert refusal(write(tmp_path, a=text, b="extends: a.yaml")).startswith(words)
    chain = {f"r{n}": f"extends: r{n + 1}.yaml\n" for n in range(MAX_FILES)} | {f"r{MAX_FILES}": COMMON}
    path = write(tmp_path, **chain)
    assert f"r{MAX_FILES - 1}.yaml line 1 column 10: a recipe is made of at most {MAX_FILES}" in refusal(path)
    assert load_recipe(tmp_path / "r1.yaml", raw=False)[0].name == "common"


def test_variables_in_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, recipe=COMMON)
    assert load_recipe(path)[0].sources[1].root == "/data/scans/v2"
    made = build_config(load_recipe(path)[0])
    monkeypatch.setenv("SCANS", "/elsewhere")
    assert build_config(load_recipe(path)[0]) == made, "where raw data lie decides no byte"
    for value in ("", None):
        monkeypatch.setenv("SCANS", value) if value is not None else monkeypatch.delenv("SCANS")
        with pytest.raises(RecipeError, match=r"recipe.yaml line 5 column 11: sources\[1\].root: .* no variable SCANS"):
            load_recipe(path)
    assert load_recipe(path, raw=False)[0].sources[1].root == "${SCANS}/v2"
    assert load_recipe(path, ["sources.1.root=/s"])[0].sources[1].root == "/s", "replaced, so not needed"
    for root in ("${}", "${A-B}", "${SCANS:-/x}"):
        with pytest.raises(RecipeError, match=r"--set sources.1.root: .* is no variable; write \$\{NAME\}"):
            load_recipe(path, [f"sources.1.root='{root}'"])


def test_keys_in_a_variable_or_an_extended_file_are_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGIN", "EXAMPLELOGIN:EXAMPLESECRET")
    uri = "s3://EXAMPLEOTHER:EXAMPLEHIDDEN@bucket/x"
    write(tmp_path, common=f"sources:\n  - {{dataset: kitti_object, root: {uri}, limit: {uri}}}\n")
    path = write(tmp_path / "mine", recipe="extends: ../common.yaml\nname: x\n")
    root = "sources=[{dataset: kitti_object, root: 's3://${LOGIN}@bucket/x?endpoint_override=127.0.0.1:1&scheme=http'}]"
    for words in ([], ["--set", root], ["--set", root.replace("}]", ", limit: 0}]")]):
        main(["plan", str(path), "--samples", "0", *words])
        captured = capsys.readouterr()
        assert captured.out + captured.err
        assert "EXAMPLE" not in captured.out + captured.err
    assert "EXAMPLE" not in json.dumps(resolved_recipe(path))
    assert "${LOGIN}@" not in json.dumps(resolved_recipe(path, [root])), "who signs in is not kept"
    assert "EXAMPLE" not in json.dumps(build_config(load_recipe(path, [root])[0]))


def test_the_resolved_recipe_is_the_same_recipe_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "base", common=COMMON)
    path = write(tmp_path / "mine", recipe="extends: ../base/common.yaml\nname: mine\ntrain: {steps: 9}\n")
    changes = ["train.lr=0.25", "sources.0.limit=2"]
    resolved = resolved_recipe(path, changes)
    assert resolved["sources"][1]["root"] == "${SCANS}/v2"
    again = write(tmp_path / "far", away=to_yaml(resolved))
    monkeypatch.setenv("SCANS", "/s")
    assert load_recipe(again)[0] == load_recipe(path, changes)[0]


def plain(node: Any) -> Any:
    return Deferred(node=node).plain()


def parsed(value: Any) -> Any:
    return parse(to_yaml(value), where="x").node


LEAVES = PLAIN.filter(lambda value: not isinstance(value, dict))
KEYS = st.sampled_from(["a", "b", "c"])
# Which keys hold mappings is a matter of the recipe's classes: here those in capitals.
TREES = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3),
    lambda inner: st.builds(
        lambda leaves, trees: leaves | {key.upper(): tree for key, tree in trees.items()},
        st.dictionaries(KEYS, LEAVES, max_size=2),
        st.dictionaries(KEYS, inner, max_size=2),
    ),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(TREES, TREES, TREES)
def test_layers_may_be_grouped_at_will(low: Any, middle: Any, high: Any) -> None:
    a, b, c = parsed(low), parsed(middle), parsed(high)
    assert plain(merge(merge(a, b), c)) == plain(merge(a, merge(b, c)))
    assert plain(merge(a, a)) == low
    assert list(plain(merge(a, b)))[: len(low)] == list(low), "the keys of the lower one come first"


@settings(max_examples=60, deadline=None)
@given(TREES, st.lists(KEYS, min_size=1, max_size=3), PLAIN)
def test_set_is_the_same_as_the_value_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, path: list[str], value: Any
) -> None:
    file = tmp_path_factory.getbasetemp() / "recipe.yaml"
    file.write_text(to_yaml(tree))
    names = [*(key.upper() for key in path[:-1]), path[-1]]
    inner = tree
    for name in names[:-1]:
        inner = inner.setdefault(name, {})
    inner[names[-1]] = value
    assert compose_recipe(file, [f"{'.'.join(names)}={to_yaml(value)}"]).plain() == tree


def test_an_alias_changes_in_one_place_only(tmp_path: Path) -> None:
    path = write(tmp_path, recipe="a: &x {b: 1}\nc: *x\nsources: [{root: &r '${V}/a'}, {root: *r}, {root: *r}]\n")
    composed = compose_recipe(path, ["c.b=2", "sources.1.root=z"])
    assert composed.plain()["a"] == {"b": 1}
    found = with_variables(composed, {"V": "/v"}).plain()
    assert [source["root"] for source in found["sources"]] == ["/v/a", "z", "/v/a"]
    assert re.search(r"\$\{V\}", json.dumps(composed.plain()))


def test_the_recipe_in_a_run_makes_the_same_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus"
    room_corpus(corpus, train=2, val=1, points=150)
    write(tmp_path, common="sources: [{dataset: scannet, root: '${NOT_SET_HERE}'}]\ntrain: {lr: 0.5, steps: 1}\n")
    objective = "{name: sonata, student: {network: tiny, size: 0.1}, prototypes: 16, hidden: 24, dimensions: 8}"
    path = write(tmp_path, mine=f"extends: common.yaml\nname: rooms\ntrain: {{batch: 2, objective: {objective}}}\n")
    run, again, words = tmp_path / "run", tmp_path / "again", ["--corpus", str(corpus), "--out"]
    changes = ["--set", "train.lr=0.01", "--set", "train.threads=1", "--seed", "5"]
    assert main(["train", str(path), *words, str(run), *changes]) == 0
    kept = (run / "recipe.yaml").read_text()
    assert load_recipe(run / "recipe.yaml", raw=False)[0].name == "rooms"
    assert main(["train", str(run / "recipe.yaml"), *words, str(again)]) == 0
    for name in ("recipe.yaml", "config.json"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    loop, _ = training(load_recipe(run / "recipe.yaml", raw=False)[0].train)
    assert (loop.lr, loop.seed, loop.steps, loop.threads) == (0.01, 5, 1, 1)
    assert main(["train", str(path), *words, str(run), *changes, "--set", "train.lr=0.02"]) == 2
    assert "train.lr" in capsys.readouterr().err
    assert (run / "recipe.yaml").read_text() == kept, "a run that is refused is not renamed"
    assert main(["train", str(path), *words, str(run), *changes, "--set", "train.log_every=3"]) == 0
    assert "log_every: 3" in (run / "recipe.yaml").read_text()
    assert (
        main(["train", str(path), *words, str(run), *changes, "--set", "train.steps=2", "--continue-with", "more"]) == 0
    )
    assert "steps: 2" in (run / "recipe.yaml").read_text() and '"more"' in (run / "config.json").read_text()
    assert main(["train", str(path), "--corpus", str(tmp_path / "no"), "--out", str(tmp_path / "none"), *changes]) == 1
    assert not (tmp_path / "none").exists()
