"""`brickyard runs`: runs that are over, under way and merely begun, and what makes them differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brickyard.infra.cli import main
from brickyard.infra.verbs.runs import config_differences, describe


def write_run(folder: Path, *, lr: float, losses: list[float], over: bool, miou: float | None = None) -> Path:
    folder.mkdir(parents=True)
    config = {
        "train": {"steps": 3, "lr": lr, "seed": 1, "betas": [0.9, 0.99]},
        "objective": {"name": "slidr", "student": {"network": "tiny"}},
        "corpus": "c0ffee",
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = [{"step": i + 1, "loss": loss, "data_wait": 0.25, "peak_gib": 1.5} for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if over:
        (folder / "final").mkdir()
        summary: dict[str, Any] = {"steps": 3, "seconds": 90.0, "data_wait": 0.02, "best": {"step": 3, "loss": 2.5}}
        summary["memory"] = {"peak": 2 << 30}
        (folder / "final" / "summary.json").write_text(json.dumps(summary))
    if miou is not None:
        sides = {init: {"miou": miou, "iou": {"car": miou}} for init in ("pretrained", "random")}
        (folder / "probe.json").write_text(json.dumps({"run": str(folder), "seed": 1, **sides}))
    return folder


def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", lr=0.5, losses=[5.0, 4.0, 3.0], over=True, miou=0.421)
    write_run(tmp_path / "b", lr=0.1, losses=[5.0, 4.5], over=False)
    write_run(tmp_path / "c", lr=0.1, losses=[], over=False)
    assert main(["runs", str(tmp_path)]) == 0
    runs, settings = capsys.readouterr().out.split("\n\n")
    a, b, c = runs.splitlines()[2:]
    assert a.split()[1:] == ["slidr", "3", "3.0000", "2.5000", "90.0", "s", "2.0%", "2.0", "GiB", "42.1%"]
    assert b.split()[1:] == ["slidr", "2/3", "4.5000", "-", "-", "25.0%", "1.5", "GiB", "-"]
    assert c.split()[1:] == ["slidr", "0/3", "-", "-", "-", "-", "-", "-"]
    assert [line.split() for line in settings.splitlines()[2:]] == [["train.lr", "0.5", "0.1", "0.1"]]


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", lr=0.5, losses=[5.0, 4.0, 3.0], over=True, miou=0.421)
    assert main(["runs", str(a), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["differences"] == {} and result["runs"] == [describe(a)]
    assert result["runs"][0]["probe"] == 0.421 and result["runs"][0]["last_loss"] == 3.0


def test_settings_that_one_run_lacks_and_values_of_any_kind() -> None:
    first = {"train": {"betas": [0.9, 0.99], "clip": None}, "objective": {"scale": {}}}
    second = {"train": {"betas": [0.9, 0.95], "clip": None, "decay": "all"}, "objective": {"scale": {"outdoor": 0.4}}}
    assert config_differences([first, second]) == {
        "objective.scale": [{}, None],
        "objective.scale.outdoor": [None, 0.4],
        "train.betas": [[0.9, 0.99], [0.9, 0.95]],
        "train.decay": [None, "all"],
    }


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 1
    assert "is no run, and holds none" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 1
    assert "config.json is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["runs", "show"])
@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", "final/summary.json", "probe.json", "results.json", "results.jsonl"]
)
@pytest.mark.parametrize("damaged", [b"", b"[]", b"5\n", b"{\n", b"\0\0\n", b'{"steps": NaN}\n', b"\xff\n"])
def test_damage_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, name: str, damaged: bytes
) -> None:
    run = write_run(tmp_path / "a", lr=0.5, losses=[5.0, 4.0, 3.0], over=True, miou=0.421)
    (run / "results.json").write_text(json.dumps({"protocols": []}))
    page = [] if verb == "runs" else ["--out", str(tmp_path / "page.html")]
    assert main([verb, str(run), *page]) == 0
    capsys.readouterr()
    (run / name).write_bytes(damaged)
    ignored = (verb, name) == ("show", "final/summary.json")
    cut = name.endswith(".jsonl") and not damaged.endswith(b"\n")  # no line of it is whole
    code = main([verb, str(run), *page])
    told = capsys.readouterr().err.strip().splitlines()
    assert code == (0 if ignored or cut else 1)
    assert ignored or cut or (len(told) == 1 and f"{run / name}" in told[0])


def test_a_run_that_is_being_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its last line may be cut; and older versions wrote numbers that are no JSON."""
    run = write_run(tmp_path / "a", lr=0.5, losses=[5.0], over=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": NaN, "gradient_norm": -Infinity}\n{"step": 3}\n{"step": 4, "lo')
    assert main(["runs", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["runs"][0]
    assert (result["steps"], result["last_loss"]) == (3, 5.0)
