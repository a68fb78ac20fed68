"""`curate`, `explain` and `diff` from the command line: selections to the byte, and answers about every scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brickyard.infra.cli import main
from brickyard.shards.corpus import Corpus
from brickyard.shards.refusals import read_refusals
from brickyard.shards.selection import read_selection
from tests.infra.test_build import write_kitti
from tests.worlds import toy_corpus

RECIPE = """
curators:
  - filter: {at_least: {n_views: 1}, at_most: {blank_share: 0.5}}
  - deduplicate: {by: place, metres: 0.1, prefer: n_points}
  - balance: {over: domain}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A described corpus of 12 scenes in 3 sequences, two of them without views, and its curation v1."""
    folder = tmp_path_factory.mktemp("curated")
    toy_corpus(folder / "corpus")
    (folder / "recipe.yaml").write_text(RECIPE)
    assert main(["describe", str(folder / "corpus"), "--no-network", "--json"]) == 0
    assert main(["curate", str(folder / "corpus"), str(folder / "recipe.yaml"), "--name", "v1", "--json"]) == 0
    return folder


def asked(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_selections_are_the_same_to_the_byte_and_carry_their_recipe(place: Path) -> None:
    chosen, gone = (place / "corpus" / "selections" / f"v1{end}.parquet" for end in ("", "-out"))
    before = chosen.read_bytes(), gone.read_bytes()
    assert main(["curate", str(place / "corpus"), str(place / "recipe.yaml"), "--name", "v1", "--json"]) == 0
    assert (chosen.read_bytes(), gone.read_bytes()) == before
    corpus = Corpus.open(place / "corpus")
    selection = read_selection(corpus.store, "selections/v1.parquet")
    refused = read_refusals(corpus.store, "selections/v1-out.parquet")
    assert len(selection.rows(corpus)) == len(selection.keys)
    assert sorted([*selection.keys, *refused]) == sorted(corpus.keys)
    assert refused["toy/scene-004"] == "filter: n_views >= 1, it is 0"
    assert refused["toy/scene-001"] == "deduplicate: as toy/scene-000 by place, 0 m apart"
    curators = selection.about["curators"]
    assert curators[0]["filter"]["at_most"] == {"blank_share": 0.5} and curators[1]["deduplicate"]["metres"] == 0.1
    assert selection.about["described"] and selection.about["against"] is None


def test_explain_says_in_or_out_and_for_whom_a_scene_stands(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = place / "corpus"
    found = asked(capsys, "explain", corpus, "toy/scene-000", "--selection", "v1")
    assert found["selection"]["in"] and found["selection"]["weight"] == 1.0
    assert found["selection"]["copies"] == ["toy/scene-001", "toy/scene-002", "toy/scene-003"]
    assert found["figures"]["sharpness"] > 0 and found["sequence"] == "walk-0"
    gone = asked(capsys, "explain", corpus, "scene-009", "--selection", "v1", "--why-not")
    assert not gone["selection"]["in"] and gone["selection"]["weight"] == 0
    assert gone["why_not"] == [
        "filter: n_views >= 1, it is 0", "filter: blank_share <= 0.5, it is unknown",
        "deduplicate: as toy/scene-008 by place, 0 m apart",
    ]  # fmt: skip
    assert "why_not" not in asked(capsys, "explain", corpus, "scene-000", "--selection", "v1", "--why-not")
    assert main(["explain", str(corpus), "scene-009", "--selection", "v1", "--why-not"]) == 0
    told = capsys.readouterr().out
    assert "v1: out: filter: n_views >= 1, it is 0" in told and "against it: deduplicate: as" in told
    assert "height_m" in told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["explain", "CORPUS", "scene-000", "--why-not"], "name it with --selection"),
        (["explain", "CORPUS", "scene-000", "--selection", "v2"], "does not exist"),
        (["explain", "CORPUS", "scene-000", "--selection", "../v1"], "cannot be called"),
        (["explain", "CORPUS", "scene-999"], "there is no scene"),
        (["curate", "CORPUS", "RECIPE", "--name", "v1-out"], "cannot be called"),
        (["curate", "CORPUS", "RECIPE", "--name", "x", "--against", "NOWHERE"], "NOWHERE"),
    ],
)
def test_what_cannot_be_answered_says_what_to_do(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    names = {"CORPUS": str(place / "corpus"), "RECIPE": str(place / "recipe.yaml")}
    assert main([names.get(word, word) for word in words]) != 0
    assert problem in capsys.readouterr().err


def test_a_selection_and_refusals_of_different_curations(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when a machine stops between the two files."""
    folder = place / "corpus" / "selections"
    for end in ("", "-out"):
        (folder / f"mixed{end}.parquet").write_bytes((folder / f"v1{end}.parquet").read_bytes())
    (place / "other.yaml").write_text("curators: [filter: {at_least: {n_views: 1}}]")
    assert main(["curate", str(place / "corpus"), str(place / "other.yaml"), "--name", "v3", "--json"]) == 0
    (folder / "mixed-out.parquet").write_bytes((folder / "v3-out.parquet").read_bytes())
    assert main(["explain", str(place / "corpus"), "scene-000", "--selection", "mixed"]) != 0
    assert "are of different curations" in capsys.readouterr().err


def test_selections_are_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "looser.yaml").write_text(RECIPE.replace("metres: 0.1", "metres: 0.1, seconds: 0.0000000015"))
    assert main(["curate", str(place / "corpus"), str(place / "looser.yaml"), "--name", "v2", "--json"]) == 0
    one, two = (place / "corpus" / "selections" / f"{name}.parquet" for name in ("v1", "v2"))
    assert asked(capsys, "diff", one, one)["same"] == 3
    found = asked(capsys, "diff", one, two, code=1)
    assert found["only_first"] == [] and found["only_second"] and found["made"] == ["curators"]
    assert main(["diff", str(one), str(two)]) == 1
    told = capsys.readouterr().out
    assert f"+ {found['only_second'][0]}" in told and "made otherwise: curators" in told


def test_against_another_corpus_is_noted_and_asked_for_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = place / "corpus"
    (place / "guard.yaml").write_text("curators: [guard: {look_alike: 0}, filter: {at_least: {n_views: 1}}]")
    assert (
        main(["curate", str(corpus), str(place / "guard.yaml"), "--name", "g", "--against", str(corpus), "--json"]) == 0
    )
    words = ["explain", str(corpus), "scene-004", "--selection", "g", "--why-not"]
    assert main(words) != 0
    assert "against another corpus" in capsys.readouterr().err
    assert asked(capsys, *words, "--against", corpus)["why_not"] == ["filter: n_views >= 1, it is 0"]


def test_a_corpus_that_has_grown_keeps_its_curation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What came since is unknown to the old selection, and is described alone."""
    write_kitti(tmp_path / "raw", 5)
    (tmp_path / "curation.yaml").write_text("curators: [filter: {at_least: {height_m: 0.01}}]")
    corpus = tmp_path / "corpus"

    def grow(limit: int, *more: str) -> None:
        sources = [{"dataset": "kitti_object", "root": "raw", "limit": limit}]
        text = json.dumps({"name": "test", "sources": sources, "curate": {"superpixels": None}})
        (tmp_path / "recipe.yaml").write_text(text)
        assert main(["build", str(tmp_path / "recipe.yaml"), "--out", str(corpus), "--in-process", *more]) == 0
        assert main(["describe", str(corpus), "--no-network"]) == 0

    grow(3)
    assert main(["curate", str(corpus), str(tmp_path / "curation.yaml"), "--name", "v1"]) == 0
    grow(5, "--grow")
    old, new = Corpus.open(corpus).keys[0], Corpus.open(corpus).keys[-1]
    assert asked(capsys, "explain", corpus, old, "--selection", "v1")["selection"]["reason"]
    since = asked(capsys, "explain", corpus, new, "--selection", "v1")
    assert since["selection"]["reason"] == "it has come to the corpus since: curate again"
    assert since["figures"]["height_m"] is not None
    assert main(["curate", str(corpus), str(tmp_path / "curation.yaml"), "--name", "v2"]) == 0
    whole = Corpus.open(corpus)
    kept = read_selection(whole.store, "selections/v2.parquet").keys
    assert sorted([*kept, *read_refusals(whole.store, "selections/v2-out.parquet")]) == sorted(whole.keys)
