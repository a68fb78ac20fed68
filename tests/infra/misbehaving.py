"""A source of a third party whose scenes do what no scene should; one scene for each name of its option `what`."""

from __future__ import annotations

import textwrap
from pathlib import Path

CODE = """
import collections, errno, itertools, os, signal, sys, time
from dataclasses import dataclass, replace
from pathlib import Path
import numpy as np
from brickyard.ingest.source import SceneRef, Source
from tests.worlds import toy_scene

@dataclass(frozen=True, kw_only=True)
class Options:
    what: tuple[str, ...] = ("good",)

def plan(store, options):
    for i, what in enumerate(options.what):
        yield SceneRef(
            dataset="misbehaving", scene_id=f"{i:03d}-{what}", split="train", sequence="s", root=store.uri, files={}
        )

def first_time(ref):
    mark = Path(ref.root) / f"{ref.scene_id}.mark"
    if mark.exists():
        return False
    mark.touch()
    return True

class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__(a)

def read(ref):
    what = ref.scene_id.partition("-")[2]
    if what == "native":
        (Path(ref.root) / "writing").write_text(str(os.getpid()))
        (Path(ref.root) / "writing").rename(Path(ref.root) / "process")
        collections.deque(itertools.repeat(0), maxlen=0)  # keeps the interpreter's lock and never returns
    if what == "sleep":
        time.sleep(10**6)
    if what == "swallow":
        while True:
            try:
                time.sleep(0.1)
            except BaseException:
                pass
    if what == "alarm":
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(10**6)
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "leave":
        os._exit(0)
    if what == "abort":
        os.abort()
    if what == "exit":
        sys.exit(0)
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "elsewhere":
        os.chdir("/")
    if what == "unpicklable":
        raise Unpicklable(1, lambda: object())
    if what == "vanished":
        open(ref.root + "/vanished.bin", "rb")
    if what == "memory":
        np.zeros(1 << 60, np.uint8)
    if what == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "stale":
        raise OSError(errno.ESTALE, "Stale file handle")
    if what == "flicker" and first_time(ref):
        raise OSError(errno.EIO, "Input/output error")
    if what == "killed_once" and first_time(ref):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        busy = Path(ref.root) / f"busy-{os.getpid()}"
        busy.touch()
        time.sleep(0.5)
        busy.unlink()
    if what == "hungry":  # there is too little memory for it and another one
        for _ in range(50):
            if list(Path(ref.root).glob("busy-*")):
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does
            time.sleep(0.02)
    if what == "glutton":
        os.kill(os.getpid(), signal.SIGKILL)
    scene = toy_scene(1)
    return replace(scene, identity=replace(scene.identity, dataset="misbehaving", scene_id=ref.scene_id))

SOURCE = Source("misbehaving", Options, plan, read)
"""


def install(folder: Path) -> Path:
    """The folder to put on the path of modules."""
    notes = folder / "misbehaving-1.0.dist-info"
    notes.mkdir(parents=True)
    (folder / "misbehaving.py").write_text(textwrap.dedent(CODE))
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    (notes / "entry_points.txt").write_text("[brickyard.sources]\nmisbehaving = misbehaving:SOURCE\n")
    return folder


def recipe(*what: str, timeout_s: float, max_scenes: int = 64) -> str:
    return (
        f"name: x\nsources: [{{dataset: misbehaving, root: ., options: {{what: [{', '.join(what)}]}}}}]\n"
        "curate: {superpixels: null, correspondences: null}\n"
        f"shards: {{scene_timeout_s: {timeout_s}, max_scenes: {max_scenes}}}\n"
    )
