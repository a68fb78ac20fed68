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
            names |= {_package(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(_package(node.module))
    return names


def _package(module: str) -> str:
    """`brickyard.shards` of ours, or the first part of a name."""
    return ".".join(module.split(".")[: 2 if module.startswith("brickyard.") else 1])


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_follow_the_table(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    found = imports(path)
    ours = {name.removeprefix("brickyard.") for name in found if name.startswith("brickyard.")}
    assert ours <= ALLOWED[package]
    assert not found & {"brickyard", *ALLOWED}, "ours are imported as brickyard.<folder>"
    assert package == "infra" or "ray" not in found


def test_one_import_name() -> None:
    """The folders at the top are the packages: `brickyard/` holds a link to each and nothing else."""
    assert {path.name for path in (ROOT / "brickyard").iterdir()} - {"__pycache__"} == {"__init__.py", *ALLOWED}
    for name in ALLOWED:
        assert (ROOT / "brickyard" / name).readlink() == Path("..") / name


# No data path reaches code that runs what it reads: pickle in any dress, eval, a shell, extraction of archives. That
# objects of ours know how to be pickled (`__reduce__`) is for processes that one job starts itself, Ray's among them:
# they talk over their own authenticated pipes, and never read such bytes from a dataset, a corpus or a checkpoint.

CODE_IN_DATA = {
    "pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "pandas", "code",
    "codeop", "pty", "commands", "imp", "xmlrpc",
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {
    "popen", "extractall", "extract", "unpack_archive", "getoutput", "getstatusoutput", "read_pickle",
    "unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "BaseManager", "SyncManager", "Manager", "Listener",
    "create_subprocess_shell", "SourceFileLoader", "exec_module", "pickle_module",
}  # fmt: skip
HIDDEN = {"os": {"system", "popen"}, "torch": {"load"}, "numpy": {"load"}, "yaml": {"load", "Loader", "UnsafeLoader"}}
"""What may not be imported by name, where the rules below would not see whose it is."""
MODULES_BY_NAME = {"infra/cli.py", "ingest/bounded.py", "shards/plugins.py"}
"""Where a module is imported by a computed name: a verb of the command line, one of a fixed list; the decoder that a
reader of ours asked its own child process to run; what an installed plugin imports of ours by its old name."""


def unsafe(call: ast.Call, path: str) -> bool:
    """Whether a call could run what it reads."""
    function = ast.unparse(call.func)
    name = function.rpartition(".")[2]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if isinstance(call.func, ast.Name) and name in CALLS:
        return True
    if name in METHODS or function.startswith(("os.system", "os.exec", "os.spawn", "os.posix_spawn")):
        return True
    if given.get("shell", "False") != "False" or given.get("trust_remote_code", "False") != "False":
        return True
    if given.get("allow_pickle", "False") != "False" or given.get("allow_unsafe", "False") != "False":
        return True
    if name == "from_pretrained" and "use_safetensors" in str(given) and given["use_safetensors"] != "True":
        return True
    if function in ("np.load", "numpy.load"):
        return len(call.args) > 2  # allow_pickle is the third
    if function == "torch.load":
        return given.get("weights_only") != "True"
    if function.startswith("yaml.") and name in ("load", "load_all", "compose", "parse", "compose_all"):
        return given.get("Loader") not in ("yaml.SafeLoader", "yaml.CSafeLoader")
    if function in ("tarfile.open", "TarFile.open", "tarfile.TarFile"):
        return not given.get("mode", "").startswith("'w")
    by_name = name in ("import_module", "run_module", "run_path") and not isinstance(call.args[0], ast.Constant)
    return by_name and path not in MODULES_BY_NAME


def unsafe_lines(text: str, path: str = "") -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [f"import {a.name}" for a in node.names if a.name.split(".")[0] in CODE_IN_DATA]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whose = node.module.split(".")[0]
            names = {alias.name for alias in node.names}
            if whose in CODE_IN_DATA or node.module == "multiprocessing.managers" or names & HIDDEN.get(whose, set()):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and unsafe(node, path):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_unsafe_calls(path: Path) -> None:
    assert unsafe_lines(path.read_text(), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "import pickle as p", "from cloudpickle import loads", "import pandas as pd", "eval(x)",
        "exec(x)", "os.system(x)", "from os import system", "subprocess.run(x, shell=True)", "os.execv(a, b)",
        "np.load(x, allow_pickle=True)", "np.load(x, None, True)", "from numpy import load", "torch.load(x)",
        "torch.load(x, weights_only=False)", "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)", "yaml.unsafe_load(x)",
        "from yaml import UnsafeLoader", "tarfile.open(x)", "tarfile.open(x, 'r')", "archive.extractall(x)",
        "zipfile.ZipFile(x).extract(y)", "shutil.unpack_archive(x)", "multiprocessing.Manager()",
        "from multiprocessing.managers import BaseManager", "import_module(name)", "__import__(name)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)", "AutoModel.from_pretrained(x, use_safetensors=False)",
    ],
)  # fmt: skip
def test_the_walk_sees_unsafe_calls(line: str) -> None:
    assert unsafe_lines(line)


AUDIT = """
import sys
from pathlib import Path
from tests.worlds import toy_corpus
from brickyard.shards.corpus import Corpus
from brickyard.shards.cache import CacheConfig
from brickyard.shards.selection import read_selection, select, write_selection
from brickyard.shards.stream import Stream
from brickyard.shards.verify import verify

def read(folder, cache):
    corpus = Corpus.open(folder, cache=CacheConfig(folder=cache))
    assert sum(len(b) for b in Stream(corpus, ("*",), batch=2, epochs=1)) == 3
    assert [corpus.scene(row).identity.dataset for row in range(3)] == ["toy"] * 3
    assert not verify(corpus).problems
    verify(corpus, deep=True)
    read_selection(corpus.store, "chosen.parquet")

root = Path(sys.argv[1])
for name in ("parquet", "webdataset"):
    corpus = toy_corpus(root / name, scenes=3, container=name)
    write_selection(corpus.store, "chosen.parquet", select(corpus))
    read(root / name, str(root / "warm"))  # modules that are imported late are not the data's doing
seen = []
harmless = ("open", "fcntl.flock", "_thread.start_new_thread", "os.listdir", "os.scandir", "os.mkdir", "os.rename",
    "os.remove", "os.truncate", "os.utime", "object.__getattr__", "sys._getframe")
sys.addaudithook(lambda event, args: seen.append((event, str(args)[:200])) if event not in harmless else None)
for name in ("parquet", "webdataset"):
    read(root / name, str(root / "cold"))
reading = list(seen)
import pickle
pickle.loads(pickle.dumps(Path("a")))
assert any(event == "pickle.find_class" for event, _ in seen), "the hook does not hear"
print(reading)
"""


def test_reading_a_corpus_runs_nothing_that_it_reads(tmp_path: Path) -> None:
    """The interpreter's own audit of a whole read (stream, scenes, deep verify, cache, selection; both containers): no
    class found for pickle, nothing compiled or executed, no process, no socket, no import."""
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    ).stdout.strip()


def test_starting_up_is_cheap() -> None:
    """What a light import pulls in is asserted; its time is only printed (see the README for the figures)."""
    heavy = "{'torch', 'ray', 'skimage', 'spconv', 'nuscenes', 'transformers', 'scipy', 'cv2', 'matplotlib'}"
    begin = time.perf_counter()
    modules = [
        "brickyard.shards.stream",
        "brickyard.shards.build",
        "brickyard.shards.verify",
        "brickyard.infra.cli",
        "brickyard.ingest.source",
    ]
    for module in modules:
        assert run(f"import {module}, sys; print(sorted({heavy} & sys.modules.keys()))") == "[]", module
    print(f"{(time.perf_counter() - begin) / len(modules):.2f} s an interpreter")


def test_the_command_line_changes_only_on_purpose() -> None:
    from brickyard.infra.cli import parser

    verbs = next(a for a in parser()._actions if hasattr(a, "choices") and a.choices)
    assert verbs.choices is not None
    flags = {
        name: sorted(o for action in verb._actions for o in (action.option_strings or [action.dest]) if o != "-h")
        for name, verb in dict(verbs.choices).items()  # type: ignore[arg-type]
    }
    always = ["--help", "--json"]
    assert flags == {
        "sources": sorted([*always, "name"]),
        "plan": sorted(
            [*always, "--cpus", "--page", "--rates", "--samples", "--set", "--simulate", "--times", "recipe"]
        ),
        "build": sorted(
            [
                *always,
                "--accept-code",
                "--address",
                "--allow-quarantined",
                "--cpus",
                "--grow",
                "--in-process",
                "--out",
                "--rates",
                "--retry-quarantined",
                "--set",
                "--ship-code",
                "recipe",
            ]
        ),
        "submit": sorted(
            [
                *always,
                "--accept-code",
                "--address",
                "--allow-quarantined",
                "--detach",
                "--grow",
                "--out",
                "--retry-quarantined",
                "--set",
                "recipe",
            ]
        ),
        "jobs": sorted([*always, "--address", "--follow", "--stop", "job"]),
        "status": sorted([*always, "corpus"]),
        "report": sorted([*always, "--out", "--price", "corpus"]),
        "verify": sorted([*always, "--deep", "corpus"]),
        "convert": sorted([*always, "--out", "--to", "corpus"]),
        "export": sorted([*always, "--out", "--to", "corpus"]),
        "gc": sorted([*always, "--older-than", "--yes", "folder"]),
        "repair": sorted([*always, "--corpus", "--set", "recipe"]),
        "diff": sorted([*always, "first", "second"]),
        "stats": sorted([*always, "corpus"]),
        "describe": sorted([*always, "--no-network", "corpus"]),
        "curate": sorted([*always, "--against", "--name", "corpus", "recipe"]),
        "explain": sorted([*always, "--against", "--selection", "--why-not", "corpus", "scene"]),
        "select": sorted(
            [
                *always,
                "--at-least",
                "--at-most",
                "--dataset",
                "--domain",
                "--out",
                "--scenes",
                "--split",
                "--weight",
                "--without",
                "corpus",
            ]
        ),
        "show": sorted([*always, "--out", "scene", "target"]),
        "train": sorted(
            [
                *always,
                "--address",
                "--cache",
                "--cache-gib",
                "--continue-with",
                "--corpus",
                "--out",
                "--seed",
                "--selection",
                "--set",
                "--workers",
                "recipe",
            ]
        ),
        "runs": sorted([*always, "folders"]),
        "evaluate": sorted(
            [
                *always,
                "--about",
                "--corpus",
                "--out",
                "--predictions",
                "--raw",
                "--run",
                "--scenes",
                "--set",
                "--split",
                "--to",
                "--weights",
                "recipe",
            ]
        ),
        "features": sorted([*always, "--corpus", "--out", "--query", "--scene", "run"]),
        "simulate": sorted([*always, "--config", "--datasets", "--listings", "--out", "--seed"]),
        "demo": sorted([*always, "--out", "--seeds"]),
    }
