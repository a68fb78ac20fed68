"""Listing a folder: links, unreadable folders, names that no path may have, and what file managers leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.shards import storage
from brickyard.shards.storage import Store

LEFT_BEHIND = ("._a.ply", ".DS_Store", "Thumbs.db", "Desktop.ini", "__MACOSX/a.ply", "@eaDir/a.ply/thumb.jpg",
               ".Trashes/501/a.ply", ".Trash-1000/files/a.ply", "b/._c.ply", "b/.DS_Store")  # fmt: skip


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")


def remote(root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The folder as a file system that is no local one."""
    inside = pafs.SubTreeFileSystem(str(root.parent), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "open_filesystem", lambda location, policy: (inside, root.name))
    return Store("elsewhere://raw")


@pytest.mark.parametrize("where", ["local", "remote"])
def test_what_file_managers_leave_is_never_listed(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.ply", "b/c.ply", ".hidden", "lost+found/d", *LEFT_BEHIND)
    store = Store(tmp_path) if where == "local" else remote(tmp_path, monkeypatch)
    assert store.local == (where == "local")
    assert list(store.walk()) == [".hidden", "a.ply", "b/c.ply", "lost+found/d"]
    assert list(store.walk("b")) == ["b/c.ply"]
    assert store.list() == [".hidden", "a.ply", "b/", "lost+found/"]
    assert store.sizes() == {".hidden": 5, "a.ply": 5} and store.sizes("b/") == {"c.ply": 5}
    assert store.list("nothing") == [] and store.sizes("nothing") == {} and list(store.walk("nothing")) == []
    assert store.unlisted == {}


@pytest.mark.timeout(20)
def test_links_are_followed_once(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    put(disk, "later/x.ply", "y.ply")
    put(root, "zoo/a.ply", "b.ply")
    for link, target in {"one": ".", "two": ".", "zoo/up": "..", "alias": "zoo", "disk": "../disk", "more": "../disk",
                         "disk-part": "../disk/later", "b-too.ply": "b.ply", "gone": "nowhere"}.items():  # fmt: skip
        (root / link).symlink_to(target)
    (disk / "home").symlink_to(root)
    store = Store(root)
    assert list(store.walk()) == ["b-too.ply", "b.ply", "disk/later/x.ply", "disk/y.ply", "zoo/a.ply"]
    again = "a link leads here, to a folder that is listed already"
    assert store.unlisted == dict.fromkeys(
        ["one", "two", "zoo/up", "alias", "more", "disk/home", "disk-part"], again
    ) | {"gone": "a link to nothing"}
    assert store.list("alias") == ["a.ply", "up/"], "a folder asked for by name is listed, whatever leads to it"
    assert list(Store(root / "alias").walk()) == ["a.ply", "up/b-too.ply", "up/b.ply", "up/disk/later/x.ply",
                                                  "up/disk/y.ply"]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    folders=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=8),
    links=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=6),
)
def test_every_real_folder_is_listed_exactly_once(folders: list[list[str]], links: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve()
        paths = [root, *(root.joinpath(*parts) for parts in folders)]
        for path in paths:
            path.mkdir(parents=True, exist_ok=True)
        for number, (source, target) in enumerate(links):
            (paths[source % len(paths)] / f"link{number}").symlink_to(paths[target % len(paths)])
        for folder in {folder for path in paths for folder in (path, *path.parents) if folder.is_relative_to(root)}:
            (folder / "f").write_bytes(b"")
        assert list(Store(root).walk()) == sorted(
            os.path.relpath(Path(top) / "f", root) for top, _, _ in os.walk(root)
        ), "under its own name, for all of them can be reached without links"


def test_names_that_no_path_may_have_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "good.ply", "größe\u00a0e\u0301.ply", "win\\dows.ply", "two\nlines.ply", "\x1b[31mred/a.ply")
    put(tmp_path, os.fsdecode(b"scan\xe9.ply"), os.fsdecode(b"d\xff/a.ply"))
    store = Store(tmp_path)
    assert list(store.walk()) == store.list() == list(store.sizes()) == ["good.ply", "größe\u00a0e\u0301.ply"]
    assert set(store.unlisted) == {"scan\\xe9.ply", "d\\xff", "win\\dows.ply", "two\\nlines.ply", "\\x1b[31mred"}
    assert "not UTF-8" in store.unlisted["scan\\xe9.ply"] and "backslash" in store.unlisted["win\\dows.ply"]
    assert all(store.size(name) == 5 for name in store.walk())


AS_NOBODY = """
import os, sys
sys.path[:0] = sys.argv[2:]
from brickyard.shards.storage import Store
if os.getuid() == 0:  # root may open everything
    os.setgid(65534), os.setuid(65534)
store = Store(sys.argv[1])
print(list(store.walk()), store.list("shut"), store.list("names"), sorted(store.unlisted.items()))
"""


def test_an_unreadable_folder_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a.ply", "shut/b.ply", "names/c.ply")
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(0o755)
    (tmp_path / "shut").chmod(0)
    (tmp_path / "names").chmod(0o644)
    try:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(tmp_path), *sys.path], capture_output=True, text=True, check=False
        )
    finally:
        (tmp_path / "shut").chmod(0o755)
        (tmp_path / "names").chmod(0o755)
    assert done.stdout == (
        "['a.ply'] [] [] [('names', 'it cannot be opened: the folder may be listed, but nothing in it opened'), "
        "('shut', 'it cannot be opened: Permission denied')]\n"
    ), done.stderr


def test_what_is_no_file_is_no_data(tmp_path: Path) -> None:
    put(tmp_path, "a.ply")
    os.mkfifo(tmp_path / "pipe.ply")
    store = Store(tmp_path)
    assert list(store.walk()) == list(store.sizes()) == ["a.ply"]
    assert store.list() == ["a.ply", "pipe.ply"], "a builder must see that the folder is not empty"


def test_a_file_that_goes_away_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.ply", "b.ply")
    real = os.scandir

    class Scan:
        def __init__(self, folder: str) -> None:
            self.entries = list(real(folder))
            (tmp_path / "b.ply").unlink(missing_ok=True)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *problem: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Scan)
    store = Store(tmp_path)
    assert store.sizes() == {"a.ply": 5}
    assert store.unlisted == {"b.ply": "it went away while it was listed"}
