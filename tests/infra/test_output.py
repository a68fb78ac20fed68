"""Keys in an address never come out again: not on stdout, not on stderr, not in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brickyard.infra.cli import main
from brickyard.infra.output import without_credentials
from brickyard.infra.recipe import build_config, load_recipe
from brickyard.shards.uri import Location, redacted, remember, scrub
from tests.worlds import toy_corpus

KEY, SECRET = "EXAMPLEKEY", "s3cret/of+a test"
QUOTED = "s3cret%2Fof%2Ba%20test"
URI = f"s3://{KEY}:{QUOTED}@bucket/c?endpoint_override=127.0.0.1:1&scheme=http&region=x"
SHOWN = "s3://***@bucket/c?endpoint_override=127.0.0.1:1&scheme=http&region=x"


def clean(text: str) -> bool:
    return not any(secret in text for secret in (KEY, SECRET, QUOTED, json.dumps(SECRET)[1:-1]))


def outputs(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize(
    "words",
    [
        ["diff", URI],  # wrong usage
        ["verify", URI, "--deeper"],
        ["verify", URI.replace("region", "regoin")],
        ["verify", URI.replace("s3://", "s3:/")],
        ["show", "x", "--out", URI],
        ["evaluate", "r.yaml", "--run", URI, "--corpus", "x"],
    ],
)
def test_errors_of_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as problem:
        code = int(problem.code or 0)
    assert code in (1, 2)
    text = outputs(capsys)
    assert text
    assert clean(text)


@pytest.mark.parametrize("line", ["root: [{}]", "toor: {}", "root: {}\n    limits: 5", "root: {}: x"])
def test_errors_of_a_recipe(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: x\nsources:\n  - dataset: kitti_object\n    {line.replace('{}', URI)}\n")
    for verb in (["plan", str(recipe)], ["plan", str(recipe), "--json"]):
        assert main(verb) == 2
        assert clean(outputs(capsys))


def test_results_and_files_name_the_address_without_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=1)
    monkeypatch.setattr("brickyard.infra.verbs.stats.Corpus.open", lambda root: corpus)
    assert main(["stats", URI, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["corpus"] == SHOWN


def test_options_with_keys_are_stored_without_them(tmp_path: Path) -> None:
    assert redacted({"a": [URI, 5], "b": "plain"}) == {"a": [SHOWN, 5], "b": "plain"}
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: x\nsources:\n  - dataset: kitti_object\n    root: {URI!r}\n")
    assert clean(json.dumps(build_config(load_recipe(recipe)[0])))


def test_an_unexpected_error_is_scrubbed_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), without_credentials([URI]):
        raise KeyError(URI)
    text = outputs(capsys)
    assert "KeyError" in text
    assert clean(text)
    with pytest.raises(KeyError), without_credentials([URI]):
        raise KeyError("nothing secret")


def test_words_that_only_look_like_keys_stay() -> None:
    Location("s3://test:test@bucket/x")
    remember("abfs://container@account.dfs.core.windows.net/x")
    assert scrub("tests of a container: test") == "tests of a container: test"
    assert scrub("in s3://test:test@bucket/x/y") == "in s3://***@bucket/x/y"
