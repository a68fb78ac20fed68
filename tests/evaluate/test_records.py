"""results.jsonl: lines are added and none is lost, and the newest one of each question is shown."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from brickyard.evaluate.records import RESULTS, append_result, probe_of, read_results
from brickyard.evaluate.table import class_table, result_table, side_by_side
from brickyard.shards.errors import BrickyardError

DB = {"metric": "psnr", "title": "PSNR dB", "percent": False, "digits": 2, "less_is_better": False}


def entry(protocol: str = "rendering", value: float | None = 23.456, **changes: Any) -> dict[str, Any]:
    whole = {
        "run": "runs/a", "seed": 0, "corpus": "c0ffee00", "when": "2026-01-01T00:00:00+00:00", "weights": "w",
        "protocol": protocol, "fingerprint": "f0", "columns": [DB],
        "results": {"random": {"psnr": 7.0}, "pretrained": {"psnr": value}}, "published": {"source": "nothing"},
    }  # fmt: skip
    return whole | changes


def scores(miou: float | None, iou: float | None) -> dict[str, Any]:
    return {"miou": miou, "iou": {"car": iou, "bus": None}}


def probe(miou: float, **changes: Any) -> dict[str, Any]:
    results = {"random": scores(0.2, 0.2), "pretrained": scores(miou, miou)}
    column = {"metric": "miou", "title": "mIoU %", "percent": True, "digits": None, "less_is_better": False}
    return entry("linear_probe", columns=[column], results=results, **changes)


def test_the_newest_of_each_question_is_shown_and_every_line_stays(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    lines = [
        entry(value=1.0),
        probe(0.4),
        entry(value=2.0, corpus="other000"),
        entry(value=3.0, fingerprint="f1"),
        entry(value=4.0),
    ]
    for line in lines:
        before = (run / RESULTS).read_bytes() if run.exists() else b""
        append_result(run, line)
        assert (run / RESULTS).read_bytes().startswith(before)
    assert [json.loads(line) for line in (run / RESULTS).read_text().splitlines()] == lines
    shown = read_results(run)
    assert shown == [lines[1], lines[2], lines[3], lines[4]]
    assert probe_of(shown) == lines[1] and probe_of(shown[1:]) is None
    append_result(run, entry("other", weights="trained on"))
    assert read_results(run) == [entry("other", weights="trained on")]


def test_a_line_that_a_crash_cut_off_is_none_and_harms_nobody(tmp_path: Path) -> None:
    append_result(tmp_path, entry(value=1.0))
    with (tmp_path / RESULTS).open("ab") as file:
        file.write(b'{"protocol": "knn", "fing')
    assert read_results(tmp_path) == [entry(value=1.0)]
    append_result(tmp_path, probe(0.4))
    assert read_results(tmp_path) == [entry(value=1.0), probe(0.4)]
    assert len((tmp_path / RESULTS).read_bytes().split(b"\n")) == 3


def test_what_readers_would_refuse_is_not_written(tmp_path: Path) -> None:
    append_result(tmp_path, entry(value=1.0))
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_result(tmp_path, entry(value=float("nan")))
    assert read_results(tmp_path) == [entry(value=1.0)]


def _append_some(run: Path, who: int) -> None:
    for number in range(20):
        append_result(run, entry(f"{who}-{number}", note="x" * 3000))


def test_writers_at_the_same_time_lose_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_some, args=(tmp_path, who)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {found["protocol"] for found in read_results(tmp_path)} == {f"{w}-{n}" for w in range(3) for n in range(20)}


def test_what_older_versions_wrote_stands_before_all_lines(tmp_path: Path) -> None:
    miou = {"miou": None, "source": "nothing was published for this protocol"}
    knn = {"protocol": "knn", "fingerprint": "f2", "results": {"pretrained": scores(0.3, 0.3)}, "published": miou}
    (tmp_path / "results.json").write_text(json.dumps({"run": "a", "seed": 3, "corpus": "c", "protocols": [knn]}))
    old = {"run": "a", "seed": 3, "pretrained": scores(0.5, 0.6), "random": scores(None, 0.1), "gain": None}
    (tmp_path / "probe.json").write_text(json.dumps(old))
    first, second = read_results(tmp_path)
    assert (first["protocol"], first["seed"], first["corpus"]) == ("knn", 3, "c")
    assert second == probe_of([first, second]) and second["results"]["pretrained"] == old["pretrained"]
    rows = result_table([first])[1]
    assert rows == [["knn, mIoU %", "-", "-", "30.0", "-", "f2"]]
    append_result(tmp_path, entry())
    assert [found["protocol"] for found in read_results(tmp_path)] == ["knn", "linear_probe", "rendering"]
    append_result(tmp_path, probe(0.7))
    shown = read_results(tmp_path)
    assert [found["protocol"] for found in shown] == ["knn", "rendering", "linear_probe"]
    assert shown[-1] == probe(0.7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"results": {"pretrained": {"psnr": "high"}}}, "results.pretrained.psnr"),
        ({"columns": [{"metric": "psnr"}]}, "columns"),
        ({"protocol": "linear_probe"}, "pretrained.miou"),
        ({"weights": None}, "weights"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    text = json.dumps(entry()) + "\n" + json.dumps(entry() | change) + "\n"
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(BrickyardError, match=f"{RESULTS} line 2.*{said}"):
        read_results(tmp_path)


def test_tables_format_as_the_columns_say() -> None:
    error = {"metric": "abs_rel", "title": "AbsRel", "percent": False, "digits": 3, "less_is_better": True}
    results = {"pretrained": {"psnr": 23.456, "abs_rel": None, "ssim": 0.9}}
    published = {"psnr": 25.0, "source": "published (X)"}
    line = entry(columns=[DB, error], results=results, published=published)
    assert result_table([line])[1] == [["rendering, PSNR dB", "-", "-", "23.46", "25.00, published (X)", "f0"]]
    told = entry(columns=[DB, error], results={"random": {"abs_rel": 0.25}, "pretrained": results["pretrained"]})
    assert result_table([told])[1][1] == ["rendering, AbsRel ↓", "0.250", "-", "-", "-", "f0"]
    names = [row[0] for row in result_table([entry(), entry(corpus="deadbeef55")])[1]]
    assert names == ["rendering on c0ffee00, PSNR dB", "rendering on deadbeef, PSNR dB"]
    rows = side_by_side([[line], [entry(value=20.0), probe(0.4)]])
    assert [(row["title"], row["cells"]) for row in rows] == [
        ("PSNR dB", ["23.46", "20.00"]), ("mIoU %", ["-", "40.0"])
    ]  # fmt: skip
    head, classes = class_table([probe(0.4), probe(0.6)])
    assert head == ["linear probe, IoU %", "random", "pretrained"]
    assert classes == [["car", "20.0", "50.0"], ["mean IoU", "20.0 ± 0.0", "50.0 ± 14.1"]]
