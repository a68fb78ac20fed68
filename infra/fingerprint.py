"""What code makes the bytes of a dataset's parts: what its reader imports, the curation steps in use, the encoding.

Which modules that is, their own imports tell, in functions too: nobody keeps a list. Where an import leads to something
that cannot change a byte, it is not followed (`CARRIERS`). A module counts without comments, docstrings and layout, a
library with its version. So KITTI's parts stay valid while nuScenes' reader is worked on, and all of them while the
stream is.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import xxhash

from brickyard.curate.pipeline import CurateConfig
from brickyard.ingest.source import GROUP
from brickyard.shards.plugins import OLD_NAMES

OURS = "brickyard"
START = (f"{OURS}.infra.task", f"{OURS}.shards.encode", f"{OURS}.shards.containers")
"""Where every scene passes, whatever its dataset."""
PIPELINE = f"{OURS}.curate.pipeline"
"""It imports all steps; those in use are followed, no others."""
CARRIERS = {
    f"{OURS}.infra.extras": "names a library that is not there; without it nothing is built",
    f"{OURS}.infra.meter": "times what is done",
    f"{OURS}.infra.recipe": "its values stand in the fingerprint's configuration",
    f"{OURS}.shards.build": "commits what it is given; a digest stands over every shard",
    f"{OURS}.shards.plugins": "finds the reader, which is followed by itself",
    f"{OURS}.shards.storage": "brings the bytes of a file, wherever it lies",
}
"""Modules that are imported by those that count and do not count themselves, and why."""
HARMLESS = {"xxhash"}
"""Libraries whose every version gives the same."""

_FILE = re.compile(r"[\w-]+\.(py|json)")


def code_of(dataset: str, curation: CurateConfig, home: Path | None = None) -> dict[str, str]:
    """Module -> digest, and library -> version, of all that decides how a scene of this dataset becomes bytes.

    Args:
        home: the folder of our packages, where these are not the ones that run.
    """
    entry = next(entry for entry in entry_points(group=GROUP) if entry.name == dataset)
    steps = [type(step).__module__ for step in vars(curation).values() if step is not None]
    top = entry.module.partition(".")[0]
    folders = {top: _folder(top)} | {OURS: home or _folder(OURS)}
    modules = dict(_follow([entry.module, *START, *steps], folders))
    digests = {name: module.digest for name, module in modules.items()}
    imported = {name.partition(".")[0] for module in modules.values() for name in module.imports}
    libraries = imported - sys.stdlib_module_names - folders.keys() - OLD_NAMES - HARMLESS
    brought_by = {} if entry.dist is None or top == OURS else {f"version of {entry.dist.name}": entry.dist.version}
    return dict(sorted((digests | dict(map(_distribution, libraries)) | brought_by).items()))


class Module(NamedTuple):
    """Attributes:
    digest: of its code, or of the bytes of a table that lies beside it.
    imports: full names; for `from a import b` both `a` and `a.b`, which may be a module or not.
    files: names of files that its code mentions, such as a table or a script that a child process runs.
    """

    digest: str
    imports: frozenset[str]
    files: frozenset[str]


def _follow(start: Iterable[str], folders: dict[str, Path]) -> Iterator[tuple[str, Module]]:
    """Every module that these lead to, each once."""
    waiting, seen = list(start), set(CARRIERS)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _path(name, folders)
        if path is None:  # a library, or what a module defines
            continue
        module = _module(path.read_bytes(), name, path.name == "__init__.py")
        yield name, module
        parents = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
        ours_by_old_names = [f"{OURS}.{other}" for other in module.imports if other.partition(".")[0] in OLD_NAMES]
        waiting += [*parents, *ours_by_old_names, *(() if name == PIPELINE else module.imports)]
        for file in sorted(module.files):
            if (beside := path.with_name(file)).is_file() and beside != path:
                place = name if path.name == "__init__.py" else name.rpartition(".")[0]
                if file.endswith(".py"):
                    waiting.append(f"{place}.{file.removesuffix('.py')}".lstrip("."))
                else:
                    table = Module(xxhash.xxh3_64_hexdigest(beside.read_bytes()), frozenset(), frozenset())
                    yield f"{place}/{file}", table


def _folder(top: str) -> Path:
    """Of a package, or the file of a module that is no package."""
    spec = find_spec(top)
    if spec is None:
        return Path("not there")
    return Path(next(iter(spec.submodule_search_locations or [spec.origin or "built in"])))


def _path(name: str, folders: dict[str, Path]) -> Path | None:
    top, *inner = name.split(".")
    if top not in folders:
        return None
    place = folders[top].joinpath(*inner)
    if not inner and place.is_file():
        return place
    return next((p for p in (place / "__init__.py", place.with_name(f"{place.name}.py")) if p.is_file()), None)


@lru_cache(1024)
def _module(data: bytes, name: str, package: bool) -> Module:
    tree = ast.parse(data)
    files = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return Module(
        xxhash.xxh3_64_hexdigest(meaning(tree).encode()),
        frozenset(_imports(tree, name if package else name.rpartition(".")[0])),
        frozenset(file for file in files if _FILE.fullmatch(file)),
    )


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue  # never imported
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node, package)


def meaning(tree: object) -> str:
    """The code of a syntax tree as text: without positions and docstrings, the same in every version of Python.

    (`ast.dump` and `ast.unparse` change from version to version: fields come and go that are empty, quotes move, a text
    in an f-string is cut otherwise.)
    """
    if isinstance(tree, list):
        return "[" + ",".join(meaning(item) for item in tree if not _is_remark(item)) + "]"
    if not isinstance(tree, ast.AST):
        return ascii(tree)
    fields = {name: value for name, value in ast.iter_fields(tree) if name not in ("ctx", "kind", "type_comment")}
    if isinstance(tree, ast.JoinedStr):
        fields["values"] = _joined(tree.values)
    told = (f"{name}={meaning(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(tree).__name__}({','.join(told)})"


def _is_remark(node: object) -> bool:
    """Whether it is a string that nobody takes, as docstrings are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _joined(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, texts that follow each other in one, none that is empty."""
    found: list[ast.expr] = []
    for part in parts:
        last = found[-1] if found else None
        if not isinstance(part, ast.Constant):
            found.append(part)
        elif isinstance(last, ast.Constant):
            found[-1] = ast.Constant(str(last.value) + str(part.value))
        elif part.value:
            found.append(part)
    return found


@cache
def _distribution(module: str) -> tuple[str, str]:
    """(name, version) of what is installed under the name of a library's module."""
    name = {"PIL": "pillow", "skimage": "scikit-image"}.get(module, module)
    try:
        return name, version(name)
    except PackageNotFoundError:
        found = packages_distributions().get(module, [])
        return (found[0], version(found[0])) if found else (module, "no version known")
