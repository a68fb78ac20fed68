"""The files of infra/cluster: valid by the schemas of those who read them, in step with our pins, and guarded."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from brickyard.infra.metrics import COUNTERS, MEMORY, PREFIX, STAGE
from tests.test_architecture import ROOT

FOLDER = ROOT / "infra" / "cluster"
PINS = dict(line.split("==") for line in (ROOT / "infra/constraints.txt").read_text().splitlines() if "==" in line)


def document(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


@pytest.mark.parametrize(("name", "kind"), [("kuberay-cluster.yaml", "RayCluster"), ("kuberay-job.yaml", "RayJob")])
def test_kuberay(name: str, kind: str) -> None:
    """(Both were held once against the operator's own resource definitions, unknown fields refused.)"""
    found = document(name)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", kind)
    cluster = found["spec"] if kind == "RayCluster" else found["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == PINS["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in pods(cluster):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            assert container["image"] == "brickyard"
            assert container["resources"]["requests"] == container["resources"]["limits"], "memory is declared by it"
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def test_the_autoscaler_by_rays_own_schema() -> None:
    ray = pytest.importorskip("ray")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    found = document("autoscaler-aws.yaml")
    jsonschema.validate(found, schema)
    assert found["head_node_type"] in found["available_node_types"]
    assert "--env RAY_AUTH_MODE=token" in found["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in found["file_mounts"]


def test_slurm() -> None:
    path = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert text.index("RAY_AUTH_TOKEN=$(") < text.index("ray start --head")
    assert "RAY_AUTH_MODE=token" in text and "set -euo pipefail" in text


def test_the_image_has_what_is_pinned() -> None:
    text = (FOLDER / "Containerfile").read_text()
    assert "--constraint infra/constraints.txt '.[ingest,cluster]'" in text
    assert "RAY_AUTH_MODE=token" in text and "\nUSER ray\n" in text
    assert re.search(r"python3\.11 -m venv", text)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_nothing_listens_to_everybody_and_no_key_is_in_a_file(path: Path) -> None:
    text = path.read_text()
    assert "0.0.0.0" not in text
    assert not re.search(r"AKIA|aws_secret|password|auth_token=", text)


def test_the_board_shows_metrics_that_exist() -> None:
    board = json.loads((FOLDER / "grafana.json").read_text())
    known = {f"ray_{PREFIX}_{name}_total" for name in (*COUNTERS, STAGE)} | {f"ray_{PREFIX}_{MEMORY}"}
    used = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            names = set(re.findall(r"ray_\w+", target["expr"]))
            assert names and names <= known
            used |= names
    assert used == known
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
