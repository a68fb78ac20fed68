"""A cluster of four nodes, three of which work, that loses a worker, a node that dies, a node that freezes, and at last
the driver: nothing is lost but the shards they were at, and what comes out has the bytes of a build in one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.misbehaving import install, recipe
from tests.infra.test_build import files
from tests.infra.test_job_watched import until

ROOT = Path(__file__).parents[2]
BUILD = (sys.executable, "-m", "brickyard.infra.cli", "build", "recipe.yaml", "--json", "--out")

CLUSTER = """
import json, os, sys
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
from ray.cluster_utils import Cluster
size = {"object_store_memory": 80 << 20}
soon = {"health_check_period_ms": 1000, "health_check_timeout_ms": 3000, "health_check_failure_threshold": 4}
head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon, **size}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = [cluster.add_node(num_cpus=1, **size) for _ in range(3)]
raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
print(json.dumps([cluster.address, *raylets]), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def children(process: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{process}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def workers(raylet: int) -> list[int]:
    """Ray's workers below a raylet that run a task of ours: they have a process for its scenes."""
    return [worker for worker in children(raylet) if any(map(is_ours, children(worker)))]


def is_ours(process: int) -> bool:
    try:
        return b"brickyard.infra.worker" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def freeze(raylet: int) -> None:
    """Stop a node's processes: none of them ends, none of them answers."""
    for process in (raylet, *(found := workers(raylet)), *(child for worker in found for child in children(worker))):
        os.kill(process, signal.SIGSTOP)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_workers_nodes_and_the_driver_are_lost(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    path = os.pathsep.join([str(install(tmp_path / "plugin")), str(ROOT)])
    (tmp_path / "recipe.yaml").write_text(recipe(*["wait"] * 14, timeout_s=60, max_scenes=1))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    options = {"cwd": tmp_path, "env": environment | {"PYTHONPATH": path}, "stderr": subprocess.DEVNULL}
    parts = tmp_path / "corpus" / "parts"

    def done() -> int:
        return len(list(parts.glob("0*")))

    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        **options,
    )
    try:
        assert cluster.stdout is not None
        address, first, second, third = json.loads(cluster.stdout.readline())
        build = subprocess.Popen([*BUILD, "corpus", "--address", address], stdout=subprocess.PIPE, **options)
        until(lambda: done() >= 1 and bool(workers(second)), 120)
        os.kill(workers(second)[0], signal.SIGKILL)
        until(lambda: done() >= 3, 120)
        os.kill(first, signal.SIGKILL)
        until(lambda: any(map(workers, (second, third))), 120)
        freeze(second if workers(second) else third)
        until(lambda: done() >= 9, 120)
        build.kill()
        build.wait()
        kept = {file: file.stat().st_mtime_ns for file in parts.glob("0*")}
        assert 9 <= len(kept) < 14, "the driver was to be lost before the end"
        again = subprocess.run([*BUILD, "corpus", "--address", address], stdout=subprocess.PIPE, check=True, **options)
        result = json.loads(again.stdout)
        assert result["quarantined"] == [] and result["shards_reused"] >= len(kept)
        assert {file: file.stat().st_mtime_ns for file in kept} == kept, "a committed shard was made again"
    finally:
        os.killpg(cluster.pid, signal.SIGKILL)
        cluster.wait()
    subprocess.run([*BUILD, "whole", "--in-process"], stdout=subprocess.PIPE, check=True, **options)
    assert files(tmp_path / "corpus") == files(tmp_path / "whole")
