"""The layout is the architecture: who imports whom, what starting up costs, and what no data path may do."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "shards": {"shards"},
    "ingest": {"ingest", "shards"},
    "curate": {"curate", "shards"},
    "train": {"train", "shards"},
    "evaluate": {"evaluate", "train", "shards"},
    "infra": {"ingest", "curate", "shards", "train", "evaluate", "infra"},
}


def sources() -> list[Path]:
    return [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_follow_the_table(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    found = imports(path)
    assert found & ALLOWED.keys() <= ALLOWED[package]
    assert package == "infra" or "ray" not in found


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_unsafe_calls(path: Path) -> None:
    """No pickle, eval, shell, tar extraction; torch.load only for weights."""
    assert not imports(path) & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        plain = isinstance(node.func, ast.Name)
        assert not (plain and name in {"eval", "exec", "compile", "__import__"}), ast.unparse(node)
        assert name not in {"popen", "extractall", "extract"}, ast.unparse(node)
        assert ast.unparse(node.func) != "os.system", ast.unparse(node)
        keywords = {k.arg: k.value for k in node.keywords}
        shell = keywords.get("shell")
        assert shell is None or (isinstance(shell, ast.Constant) and shell.value is False), ast.unparse(node)
        if ast.unparse(node.func) == "torch.load":
            assert ast.unparse(keywords["weights_only"]) == "True"
        if ast.unparse(node.func) in {"np.load", "numpy.load"}:
            assert "allow_pickle" not in keywords


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    ).stdout.strip()


def test_starting_up_is_cheap() -> None:
    """What a light import pulls in is asserted; its time is only printed (see the README for the figures)."""
    heavy = "{'torch', 'ray', 'skimage', 'spconv', 'nuscenes', 'transformers', 'scipy', 'cv2', 'matplotlib'}"
    begin = time.perf_counter()
    modules = ["shards.stream", "shards.build", "shards.verify", "infra.cli", "ingest.source"]
    for module in modules:
        assert run(f"import {module}, sys; print(sorted({heavy} & sys.modules.keys()))") == "[]", module
    print(f"{(time.perf_counter() - begin) / len(modules):.2f} s an interpreter")


def test_the_command_line_changes_only_on_purpose() -> None:
    from infra.cli import parser

    verbs = next(a for a in parser()._actions if hasattr(a, "choices") and a.choices)
    assert verbs.choices is not None
    flags = {
        name: sorted(o for action in verb._actions for o in (action.option_strings or [action.dest]) if o != "-h")
        for name, verb in dict(verbs.choices).items()  # type: ignore[arg-type]
    }
    always = ["--help", "--json"]
    assert flags == {
        "sources": sorted([*always, "name"]),
        "plan": sorted([*always, "--cpus", "--samples", "recipe"]),
        "build": sorted(
            [
                *always,
                "--address",
                "--allow-quarantined",
                "--cpus",
                "--in-process",
                "--out",
                "--retry-quarantined",
                "recipe",
            ]
        ),
        "verify": sorted([*always, "--deep", "corpus"]),
        "convert": sorted([*always, "--out", "--to", "corpus"]),
        "export": sorted([*always, "--out", "--to", "corpus"]),
        "repair": sorted([*always, "--corpus", "recipe"]),
        "diff": sorted([*always, "first", "second"]),
        "stats": sorted([*always, "corpus"]),
        "select": sorted([*always, "--at-least", "--at-most", "--dataset", "--domain", "--out", "--split", "corpus"]),
        "show": sorted([*always, "--out", "scene", "target"]),
        "train": sorted([*always, "--corpus", "--out", "--seed", "--selection", "--cache", "--cache-gib", "recipe"]),
        "evaluate": sorted([*always, "--corpus", "--run", "recipe"]),
        "simulate": sorted([*always, "--config", "--datasets", "--out", "--seed"]),
        "demo": sorted([*always, "--out", "--seeds"]),
    }
