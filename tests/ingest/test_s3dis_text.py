"""What the quick parser of annotation files accepts is what the careful one reads, value for value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from brickyard.ingest.s3dis import text
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.shards.errors import RawDataError

# The words that writers, editors and damage leave: signs, exponents, no digits on a side, no numbers, overflow.
WORDS = st.sampled_from(
    ["-19.570", "2.209", "0", "-0.0", "+3.5", ".5", "5.", "-.25", "1e3", "1E-3", "2.5e+01", "1e400", "1e-400", "nan",
     "inf", "-Infinity", "1.#INF", "0x10", "1_0", "--1", "1-", "1.2.3", "148", "255", "256", "007", "105.000000", "1,5"]
)  # fmt: skip
PLAIN = st.floats(-9999, 9999).map(lambda value: f"{value:.3f}")
COLORS = st.integers(0, 255).map(str)
BETWEEN = st.sampled_from([" "] * 30 + ["  ", "\t", " \t", "", "\v", "\x10"])
ENDS = st.sampled_from(["\n"] * 20 + [" \n", "\r\n", "\n\n", "\t\n", " 7\n", ""])


@st.composite
def lines(draw: st.DrawFn) -> str:
    odd = draw(st.integers(0, 3)) == 0
    words = [draw(st.one_of(PLAIN, WORDS) if odd else PLAIN) for _ in range(3)]
    words += [
        draw(st.one_of(COLORS, WORDS) if odd else COLORS) for _ in range(draw(st.sampled_from([3] * 12 + [2, 4])))
    ]
    gap = " " if not odd else draw(BETWEEN)
    return gap.join(words) + (draw(ENDS) if odd else "\n")


def outcome(root: Path, content: bytes) -> tuple[object, object, dict[str, int]] | str:
    (root / "wall_1.txt").write_bytes(content)
    ref = SceneRef(dataset="s3dis", scene_id="a", split="val", sequence="a", root=str(root), files={})
    try:
        xyz, color, counts = text.read_rows(RawFiles(ref), "wall_1.txt")
    except RawDataError as problem:
        return str(problem)
    assert xyz.dtype == np.float64 and xyz.shape == (len(color), 3) and color.dtype == np.uint8
    return np.ascontiguousarray(xyz).view(np.int64).tolist(), color.tolist(), dict(counts)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(lines(), max_size=6).map("".join))
@example("-19.570 -14.556 2.209 148 138 126\n" * 4)
@example("-19.570000 -14.556000 2.209000 148.000000 138.000000 126.000000\n" * 4)
@example("1 2 3 4 5 6\n1 2 3 4 5.0 6\n")
def test_both_parsers_agree(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    root = tmp_path_factory.getbasetemp()
    quick = outcome(root, content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_parse_healthy", lambda data, color: None)
        assert quick == outcome(root, content.encode())


@pytest.mark.parametrize("place", [0, 3, 8, 30])
def test_no_stray_byte_passes_the_quick_parser(place: int) -> None:
    line = b"-19.570 -14.556 2.209 148 138 126\n"
    for byte in set(range(256)) - set(text.ALPHABET):
        data = line + line[:place] + bytes([byte]) + line[place:] + line
        assert not text._is_plain(data) or text._parse_healthy(data, text.pa.float64()) is None, byte
