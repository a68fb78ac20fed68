"""A build on a Ray of its own: scenes that hang in native code or stop end there too; nobody else can reach it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.infra.misbehaving import install, recipe
from tests.infra.test_job_watched import until

ROOT = Path(__file__).parents[2]
BRICKYARD = (sys.executable, "-m", "brickyard.infra.cli")

STRANGER = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", b"session")
"""


def test_scenes_are_bounded_and_strangers_kept_out(tmp_path: Path) -> None:
    path = os.pathsep.join([str(install(tmp_path / "plugin")), str(ROOT)])
    (tmp_path / "recipe.yaml").write_text(
        recipe("good", "stop", "abort", "good", "native", timeout_s=1.0, max_scenes=1)
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    build = subprocess.Popen(
        [*BRICKYARD, "build", "recipe.yaml", "--out", "corpus", "--cpus", "1", "--json"],
        cwd=tmp_path, env=environment | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    until(lambda: (tmp_path / "process").exists() or build.poll() is not None, 120)
    servers = listening(build.pid)
    output, text = build.communicate(timeout=120)
    assert build.returncode == 3, text
    reasons = {q["key"].partition("-")[2]: q["reason"] for q in json.loads(output)["quarantined"]}
    assert sorted(reasons) == ["abort", "native", "stop"]
    assert "could not be interrupted" in reasons["native"]
    assert "had its process stopped" in reasons["stop"]
    assert "SIGABRT" in reasons["abort"]
    assert json.loads(output)["scenes"] == 2
    assert len(servers) >= 4, "Ray's servers were not found"
    assert {address for address, _ in servers} <= {"0100007F", "0000000000000000FFFF00000100007F"}, servers


def test_ray_asks_for_the_token() -> None:
    """In a process of its own, as Ray keeps what it has once read of its environment."""
    code = f"""
import os, subprocess, sys
from brickyard.infra.ray_cluster import cluster
with cluster(1, None) as ray:
    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:"), address
    for token in (os.environ["RAY_AUTH_TOKEN"], "0" * 64):
        env = os.environ | {{"RAY_AUTH_TOKEN": token}}
        done = subprocess.run([sys.executable, "-c", {STRANGER!r}, address], env=env, capture_output=True, text=True)
        print(done.returncode, "InvalidAuthToken" in done.stderr)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["0 False", "1 True"], done.stderr


def listening(session: int) -> list[tuple[str, int]]:
    """(address as in /proc/net, port) of the TCP servers of the processes of a session."""
    sockets: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "stat").read_text().rpartition(")")[2].split()[3] != str(session):
                continue
            for link in (process / "fd").iterdir():
                if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                    sockets.add(found[1])
        except OSError:
            continue  # it has just ended
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    servers = [row[1].split(":") for row in rows if row[3] == "0A" and row[9] in sockets]
    return [(address, int(port, 16)) for address, port in servers]
