"""A build by a cluster's job server, as a user submits it: the same bytes, and no way in without the token."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brickyard.infra.jobs import portable_recipe, submit_build
from brickyard.shards.errors import BrickyardError, RecipeError
from tests.infra.test_build import RECIPE, brickyard, files, write_kitti
from tests.infra.test_job_watched import until

# The agent that starts jobs takes any port: with its usual one, two clusters on a machine are in each other's way.
SERVER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={
    "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": 0, "dashboard_agent_listen_port": 0,
    "num_cpus": 2, "object_store_memory": 128 << 20,
    "_system_config": {"metrics_report_interval_ms": 1000},
})
head = cluster.head_node
print(head.webui_url, f"http://{head.node_ip_address}:{head.metrics_export_port}/metrics", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def server() -> Iterator[dict[str, str]]:
    """The environment that reaches a cluster with a job server; its address is in ADDRESS."""
    pytest.importorskip("aiohttp")
    mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    # Jobs begin with `python`, as on a cluster whose nodes were started in the right environment.
    mode["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=os.environ | mode, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    try:
        address, metrics = process.stdout.readline().split()
        yield mode | {"ADDRESS": f"http://{address}", "METRICS": metrics}
    finally:
        process.stdin.close()
        process.wait(60)


def test_a_submitted_build_gives_the_same_bytes(tmp_path: Path, server: dict[str, str]) -> None:
    write_kitti(tmp_path / "raw", 4)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert brickyard(tmp_path, "build", "recipe.yaml", "--out", "here", "--in-process")[0] == 0
    reach = ("--address", server["ADDRESS"])
    code, found, text = brickyard(tmp_path, "submit", "recipe.yaml", "--out", "there", *reach, env=server)
    assert (code, found.get("state")) == (0, "SUCCEEDED"), (found, text)
    assert "4 scenes in 2 shards" in text
    assert files(tmp_path / "there") == files(tmp_path / "here")
    until(lambda: counted(server["METRICS"]) == 4, 60)
    code, listed, _ = brickyard(tmp_path, "jobs", *reach, env=server)
    assert [job["job"] for job in listed["jobs"]] == [found["job"]] and str(tmp_path) in listed["jobs"][0]["out"]
    code, told, text = brickyard(tmp_path, "jobs", *reach, env=server | {"RAY_AUTH_TOKEN": "0" * 64})
    assert code == 1 and "Invalid authentication token" in told["error"], text
    code, told, _ = brickyard(tmp_path, "jobs", *reach, "raysubmit_nobody", "--stop", env=server)
    assert code == 1 and "raysubmit_nobody" in told["error"]


def counted(address: str) -> float | None:
    """Scenes that the cluster tells its scrapers of."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = plain.open(address, timeout=10).read().decode()
    found = re.search(r'^ray_brickyard_scenes_total\{[^}]*dataset="kitti_object"[^}]*\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else None


class Server:
    """Remembers what it was given, after it has refused a few times."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)

    def submit_job(self, **given: Any) -> str:
        if self.refusals:
            raise RuntimeError(f"Request failed with status code 500: {self.refusals.pop(0)}")
        folder = Path(given["runtime_env"]["working_dir"])
        self.given = given | {"recipe": (folder / "recipe.yaml").read_text(), "code": (folder / "brickyard").is_dir()}
        return "job"


def test_what_travels_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "common.yaml").write_text(RECIPE)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "recipe.yaml").write_text("extends: ../common.yaml\nname: mine\n")
    monkeypatch.setenv("KITTI", str(tmp_path / "raw"))
    recipe = portable_recipe(
        tmp_path / "inner" / "recipe.yaml", ["sources.0.root=${KITTI}", "sources.0.options={cameras: [image_02]}"]
    )
    assert f"root: {tmp_path}/raw" in recipe and "name: mine" in recipe and "extends" not in recipe
    client = Server()
    assert submit_build(client, recipe, "s3://bucket/corpus", ["--accept-code"]) == "job"
    assert client.given["recipe"] == recipe and client.given["code"]
    assert client.given["entrypoint"].endswith("--out s3://bucket/corpus --address auto --accept-code")
    json.dumps(client.given["metadata"])


def test_a_server_that_has_just_started_is_waited_for() -> None:
    young = ["No available agent to submit job, please try again later."] * 2
    assert submit_build(Server(*young), "name: a", "s3://bucket/out", []) == "job"
    with pytest.raises(BrickyardError, match="disk is full"):
        submit_build(Server(*young, "the disk is full"), "name: a", "s3://bucket/out", [])


def test_credentials_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("root: raw", "root: 's3://key:secret@bucket/raw'"))
    with pytest.raises(RecipeError, match="holds credentials") as told:
        portable_recipe(tmp_path / "recipe.yaml", [])
    with pytest.raises(BrickyardError, match="holds credentials") as also:
        submit_build(Server(), "name: a", "s3://key:secret@bucket/out", [])
    assert "secret@" not in str(told.value) + str(also.value)
