"""Builds that are simulated: what can be worked out by hand comes out, and every trouble costs what it must."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.infra.cli import main
from brickyard.infra.config import load
from brickyard.infra.forecast import ClusterConfig, Work, forecast, knee
from brickyard.infra.forecast_page import works
from brickyard.infra.plan import Plan
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import RecipeError
from tests.infra.test_build import RECIPE, write_kitti

pytest.importorskip("simpy")
STILL = ClusterConfig(nodes=1, cores=4, handing_out_s=0.0, start_s=0.0, variation=0.0, network_mib_s=1e9)
MIB = float(1 << 20)


def equal(count: int, seconds: float, bytes_in: float = 0.0) -> list[Work]:
    return [Work(seconds, bytes_in, 0.0, MIB)] * count


@pytest.mark.parametrize(("count", "cores", "rounds"), [(8, 4, 2), (9, 4, 3), (1, 4, 1), (12, 1, 12)])
def test_equal_tasks_come_in_rounds(count: int, cores: int, rounds: int) -> None:
    found = forecast(equal(count, 10.0), replace(STILL, cores=cores))
    assert found.seconds == pytest.approx(10.0 * rounds)
    assert found.core_seconds == pytest.approx(10.0 * count)
    assert found.busy[0] == (0.0, 1) and max(busy for _, busy in found.busy) == min(count, cores)


def test_the_longest_come_first() -> None:
    tasks = [*equal(6, 1.0), *equal(1, 6.0)]
    assert forecast(tasks, replace(STILL, cores=2)).seconds == pytest.approx(6.0)


def test_the_head_hands_out_one_after_another() -> None:
    found = forecast(equal(100, 1.0), replace(STILL, cores=100, handing_out_s=0.5))
    assert found.seconds == pytest.approx(51.0)


def test_a_store_is_shared() -> None:
    alone = forecast(equal(1, 0.0, 100 * MIB), replace(STILL, store_mib_s=10.0))
    assert alone.seconds == pytest.approx(10.0) and alone.bottleneck in ("reading", "idle")
    many = forecast(equal(40, 0.0, 100 * MIB), replace(STILL, cores=40, store_mib_s=10.0))
    assert many.seconds > 300


def test_memory_bounds_the_tasks_of_a_node() -> None:
    tasks = [Work(10.0, 0.0, 0.0, 1024 * MIB)] * 8
    assert forecast(tasks, replace(STILL, memory_gib=2.0)).seconds == pytest.approx(40.0)


def test_nodes_that_are_taken_cost_their_tasks_and_no_more() -> None:
    cluster = replace(STILL, nodes=4, taken_per_hour=6.0, delay_s=60.0)
    found = forecast(equal(400, 100.0), cluster)
    calm = forecast(equal(400, 100.0), replace(cluster, taken_per_hour=0.0))
    assert found.lost_tasks > 5 and found.seconds > calm.seconds
    assert found.waits["work"] == pytest.approx(400 * 100.0)
    assert found == forecast(equal(400, 100.0), cluster), "the same seed gives the same forecast"


def test_stragglers_are_copied_once_cores_are_idle() -> None:
    cluster = replace(STILL, cores=32, straggling=0.1, slowdown=100.0)
    found = forecast(equal(32, 60.0), cluster)
    assert found.copies > 0 and found.seconds < 400


def test_an_autoscaler_follows_the_queue() -> None:
    found = forecast(equal(400, 100.0), replace(STILL, most_nodes=10, delay_s=100.0))
    assert found.most_nodes == 10
    assert found.seconds < forecast(equal(400, 100.0), STILL).seconds / 5


def test_twice_the_nodes_until_it_helps_no_more() -> None:
    found = knee(equal(64, 10.0), STILL)
    assert [nodes for nodes, _ in found] == [1, 2, 4, 8, 16, 32]
    assert [round(one.seconds) for _, one in found] == [160, 80, 40, 20, 10, 10]


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.lists(st.floats(0.1, 50), min_size=1, max_size=40),
    nodes=st.integers(1, 4),
    cores=st.integers(1, 5),
    taken=st.sampled_from([0.0, 20.0]),
    straggling=st.sampled_from([0.0, 0.3]),
)
def test_no_build_beats_its_bounds(
    seconds: list[float], nodes: int, cores: int, taken: float, straggling: float
) -> None:
    tasks = [Work(each, 0.0, 0.0, MIB) for each in seconds]
    cluster = replace(STILL, nodes=nodes, cores=cores, taken_per_hour=taken, straggling=straggling)
    found = forecast(tasks, cluster)
    assert found.seconds >= max(*seconds, sum(seconds) / (nodes * cores)) - 1e-6
    assert found.waits["work"] >= sum(seconds) - 1e-6
    if not taken and not straggling:
        assert found.seconds <= sum(seconds) / (nodes * cores) + max(seconds) + 1e-6


def test_nothing_to_do_takes_no_time() -> None:
    assert forecast([], STILL).seconds == 0


@pytest.mark.parametrize(
    "text", ["nodes: 0", "cores: 2000000", "network_mib_s: -1", "raw_on: tape", "raw_on: disk", "straggling: 2",
             "{nodes: 4, most_nodes: 2}", "price_per_hour: -1", "memory_gib: .inf", "nodez: 3"]
)  # fmt: skip
def test_an_impossible_cluster_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        load(text, ClusterConfig, where="cluster.yaml")


def test_datasets_of_unknown_cost_are_named() -> None:
    ref = SceneRef(dataset="waymo_v2", scene_id="1", split="train", sequence="s", root="/", files={}, bytes_estimate=9)
    with pytest.raises(RecipeError, match="nothing is known of what waymo_v2 costs"):
        works(Plan(((ref,),), (), (), {}), {"kitti_raw": {"seconds": 1.0, "bytes_out": 1.0}})


def test_a_plan_is_simulated_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kitti(tmp_path / "raw", 6)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "cluster.yaml").write_text("{nodes: 2, cores: 2, price_per_hour: 3.0}")
    words = ["plan", f"{tmp_path}/recipe.yaml", "--simulate", f"{tmp_path}/cluster.yaml", "--times", "50"]
    assert main([*words, "--page", f"{tmp_path}/page.html"]) == 0
    said = capsys.readouterr().out
    assert "simulated: 300 scenes in 150 tasks on 2 nodes" in said and "node hours" in said
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2 and "busy cores" in page
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["simulated"]
    assert found["money"] == pytest.approx(found["node_hours"] * 3.0)
    assert [row["nodes"] for row in found["knee"]][:2] == [1, 2]
