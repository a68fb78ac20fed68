"""The child process: it gets ranges and sends messages, and whatever it does costs its parent an error, no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brickyard.ingest.bounded import BoundedError, Limits, run_bounded

DATA = bytes(range(256)) * 4000


def _run(tmp_path: Path, body: str, limits: Limits | None = None, **request: Any) -> list[bytes]:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n\ndef main(file, request):\n" + "".join(f"    {x}\n" for x in body.split("\n"))
    )
    limits = limits or Limits(memory_bytes=1 << 30, seconds=20, answer_bytes=1 << 20)
    return list(run_bounded(script, request, lambda offset, length: DATA[offset : offset + length], len(DATA), limits))


def test_the_child_reads_ranges_and_sends_messages(tmp_path: Path) -> None:
    body = 'file.seek(request["at"])\nyield file.read(300)\nfile.seek(-2, 2)\nyield file.read(50)'
    body += '\nyield b""\nyield file.read()'
    assert _run(tmp_path, body, at=1000) == [DATA[1000:1300], DATA[-2:], b"", b""]


def test_what_a_library_prints_is_no_message(tmp_path: Path) -> None:
    assert _run(tmp_path, 'os.write(1, b"M\\1\\0\\0\\0x")\nprint("noise", flush=True)\nyield b"a"') == [b"a"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('yield b"a"\nraise ValueError("no such codec")', "no such codec"),
        ("yield bytes(3 << 30)", "more than 1024 MiB of memory"),
        ('yield b"a"\nos.kill(os.getpid(), 11)', "died with status -11"),
        ('yield b"a"\nos._exit(0)', "died with status 0"),
        ("while True: yield bytes(100000)", "wrote more than 1048576 bytes"),
    ],
)
def test_a_child_that_fails_is_an_error(tmp_path: Path, body: str, problem: str) -> None:
    with pytest.raises(BoundedError, match=problem):
        _run(tmp_path, body)


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(60)", "yield file.read(9)\nwhile True: pass"])
def test_a_child_that_hangs_is_ended(tmp_path: Path, body: str) -> None:
    with pytest.raises(BoundedError, match="longer than 1 s"):
        _run(tmp_path, body + "\nyield b''", Limits(memory_bytes=1 << 30, seconds=1))


def test_a_range_that_cannot_be_read_ends_in_the_readers_own_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def main(file, request):\n    yield file.read(10)\n")

    def broken(offset: int, length: int) -> bytes:
        raise KeyError("the disk is gone")

    with pytest.raises(KeyError, match="the disk is gone"):
        list(run_bounded(script, {}, broken, 100, Limits()))


def test_a_caller_that_stops_early_leaves_no_child(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os\ndef main(file, request):\n    while True:\n        yield str(os.getpid()).encode()\n")
    messages = run_bounded(script, {}, lambda offset, length: b"", 0, Limits())
    process = int(next(messages))
    assert Path(f"/proc/{process}").exists()
    messages.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{process}").exists()
