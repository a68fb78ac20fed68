"""Requirements and pins; what starts without which libraries, and what is said where one is missing."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from brickyard.curate.pipeline import CurateConfig
from brickyard.infra import task
from brickyard.infra.extras import extras_of, how_to_install
from brickyard.infra.recipe import ShardsConfig
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import BrickyardError
from tests.test_architecture import ROOT, imports, sources
from tests.worlds import toy_corpus

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = {"": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]
METADATA = [
    re.sub(r"^([^;]*);?(.*)$", rf'\1; \2 and extra == "{extra}"', line) if extra else line
    for extra, lines in EXTRAS.items()
    for line in lines
]
"""As it will stand in the metadata of the distribution."""
NEEDS = {
    "shards": {""},
    "shards/export/rerun.py": {"", "rerun"},
    "ingest": {"", "ingest"},
    "ingest/simulate": {"", "simulate"},
    "curate": {"", "ingest"},
    "train": {"", "train"},
    "evaluate": {"", "train"},
    "infra": {"", "ingest", "train", "cluster"},
}
BROUGHT = {"wandb"}
"""What users bring themselves: named in a recipe, and refused with a sentence where it is not installed."""
BY_OTHERS = {"tensorboard": "torch.utils.tensorboard", "flask": "moto.server", "flask-cors": "moto.server"}
"""Requirements that no code of ours imports, and who does."""
TOOLS = {"pytest", "pytest-timeout", "pytest-xdist", "ruff", "mypy", "types-pyyaml"}
ALL = ("torch", "ray", "scipy", "skimage", "av", "lazrs", "laspy", "plyfile", "pyquaternion", "embreex", "spconv",
       "safetensors", "transformers", "tensorboard", "nuscenes", "pandas", "rerun")  # fmt: skip
"""What is not there when nothing but Brickyard itself was installed."""
WITHOUT = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
"""


def without(modules: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, modules, *words], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def verb(modules: str, *words: str) -> subprocess.CompletedProcess[str]:
    return without(modules, "from brickyard.infra.cli import main; sys.exit(main(sys.argv[2:]))", *words)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dependencies") / "corpus"
    toy_corpus(folder, scenes=2)
    return folder


def libraries(path: Path) -> set[str]:
    return {name for name in imports(path) - sys.stdlib_module_names if not name.startswith(("brickyard", "tests"))}


def test_every_library_comes_with_the_extra_that_needs_it() -> None:
    missing = defaultdict(set)
    for path in sources():
        place = path.relative_to(ROOT).as_posix()
        folder = max((folder for folder in NEEDS if f"{place}/".startswith(f"{folder}/")), key=len)
        for module in libraries(path) - BROUGHT:
            if not NEEDS[folder] & set(extras_of(module, METADATA)):
                missing[module].add(place)
    assert not missing


def test_every_requirement_is_imported_by_somebody() -> None:
    used = set().union(*map(libraries, [*sources(), *(ROOT / "tests").rglob("*.py")]))
    used |= {name for path in (ROOT / "tests").rglob("*.py") for name in _imported_if_there(path)}
    needed = {line for line in METADATA if any(extras_of(module, [line]) for module in used)}
    names = {re.split(r"[\[<>=!;~ ]", line)[0].lower() for line in set(METADATA) - needed}
    assert names == BY_OTHERS.keys() | (TOOLS - {"pytest", "pytest-timeout", "pytest-xdist"})


def _imported_if_there(path: Path) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if ast.unparse(call.func).endswith("importorskip")]
    return {str(arg.value).partition(".")[0] for call in named for arg in call.args if isinstance(arg, ast.Constant)}


def test_the_environment_of_the_tests_is_pinned() -> None:
    """Whatever the extras allow, `make` installs one version of it."""
    pins = dict(
        line.lower().split("==") for line in (ROOT / "infra/constraints.txt").read_text().splitlines() if "==" in line
    )
    for line in METADATA:
        name = re.split(r"[\[<>=!;~ ]", line)[0].lower()
        assert name in pins or "python_version >= '3.12'" in line, name
    assert pins["torch"] == "2.13.0"


@pytest.mark.parametrize("module, extra", [("lazrs", "ingest"), ("spconv", "train"), ("embreex", "simulate"),
                                           ("efficientnet_lite_pytorch", "train"), ("nuscenes", "dev"),
                                           ("rerun", "rerun")])  # fmt: skip
def test_the_extra_of_a_module(module: str, extra: str) -> None:
    assert extras_of(module, METADATA) == [extra]


def test_modules_of_several_extras_of_the_core_and_of_nobody() -> None:
    assert extras_of("scipy", METADATA) == ["ingest", "train"]
    assert extras_of("PIL", METADATA) == [""]
    assert extras_of("trai", METADATA) == extras_of("", METADATA) == []
    assert how_to_install(ModuleNotFoundError(name="brickyard.shards.nothing")) is None
    assert how_to_install(ModuleNotFoundError("without a name")) is None


@pytest.mark.parametrize("words, extras", [
    ("train recipe.yaml --corpus corpus --out run", "train"),
    ("evaluate recipe.yaml --run run --corpus corpus", "train"),
    ("demo --out demo", "ingest,simulate,train"),
])  # fmt: skip
def test_a_verb_says_which_extra_it_needs(words: str, extras: str) -> None:
    done = verb("torch", *words.split())
    name = words.partition(" ")[0]
    assert done.returncode == 1
    assert done.stderr == f"brickyard {name}: torch is not installed: pip install 'brickyard[{extras}]'\n"


def test_a_layout_says_which_extra_it_needs(corpus: Path) -> None:
    done = verb("rerun", "export", str(corpus), "--to", "rerun", "--out", f"{corpus}.rerun")
    assert done.returncode == 1
    assert done.stderr == "brickyard export: rerun is not installed: pip install 'brickyard[rerun]'\n"


def test_a_bug_of_ours_is_no_missing_extra() -> None:
    done = verb("brickyard.shards.corpus,brickyard", "stats", "nowhere")
    assert "Traceback" in done.stderr and "pip install" not in done.stderr


@pytest.mark.parametrize("words", [
    "verify {}", "stats {}", "diff {} {}", "show {} --out {}.html", "select {} --out {}.parquet",
    "convert {} --to webdataset --out {}.tars", "export {} --to ply --out {}.ply",
])  # fmt: skip
def test_a_corpus_needs_no_extra(corpus: Path, words: str) -> None:
    done = verb(",".join(ALL), *(word.format(corpus) for word in words.split()))
    assert done.returncode == 0, done.stderr


def test_a_corpus_streams_without_extras(corpus: Path) -> None:
    code = """
import brickyard.shards
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
print(sum(len(batch) for batch in Stream(Corpus.open(sys.argv[2]), ["points/*"], batch=1, seed=0, epochs=1)))
"""
    done = without(",".join(ALL), code, str(corpus))
    assert done.stdout == "2\n", done.stderr


def test_a_missing_library_is_no_fault_of_a_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """The build stops and says what to install; nothing is quarantined."""

    def read(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'lazrs'", name="lazrs")

    monkeypatch.setattr(task, "make_scene", read)
    ref = SceneRef(dataset="toy", scene_id="7", split="train", sequence="", root="nowhere", files={})
    job = task.Job(CurateConfig(), ShardsConfig(), "nowhere", {})
    with pytest.raises(BrickyardError, match=r"^toy/7: lazrs is not installed: pip install 'brickyard\[ingest\]'; "):
        task.try_scenes(job, [ref], lambda key: None)
