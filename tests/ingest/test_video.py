"""Video files: frames and times against OpenCV, shots, odd files, and damage of every kind."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from brickyard.ingest.clips import ClipOptions, thin
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.source import Missing, RawFiles, SceneRef, Source
from brickyard.ingest.video import SOURCE, decode
from brickyard.ingest.video.container import duration_s
from brickyard.ingest.video.decode import main
from brickyard.ingest.video.plan import VideoOptions, cut_windows
from brickyard.ingest.video.read import read_with
from brickyard.shards import shots
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives
from tests.ingest.video_toy import glide, irregular, write_movie

ALL = VideoOptions(clips=ClipOptions(frames=100_000, rate_hz=1000.0), short_side=None, quality=100, min_motion=0)
CODECS = [
    ("a.mp4", "libx264", "yuv420p"), ("a.mkv", "libx264", "yuv444p"), ("a.mov", "mpeg4", "yuv420p"),
    ("a.webm", "libvpx-vp9", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p"),
]  # fmt: skip


def _refs(root: Path, options: VideoOptions = ALL) -> list[SceneRef]:
    return [item for item in SOURCE.plan(Store(root), options) if isinstance(item, SceneRef)]


def _read(root: Path, options: VideoOptions = ALL) -> Scene:
    (ref,) = _refs(root, options)
    return SOURCE.read(ref)


def _pixels(data: bytes) -> Any:
    return simplejpeg.decode_jpeg(data, "RGB").astype(float)


def _psnr(one: Any, two: Any) -> float:
    return float(10 * np.log10(255**2 / max(np.square(one - two).mean(), 1e-9)))


def _opencv(path: Path) -> tuple[list[float], list[Any]]:
    capture = cv2.VideoCapture(str(path))
    times: list[float] = []
    frames: list[Any] = []
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    while True:
        good, frame = capture.read()
        if not good:
            return times, frames
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        frames.append(frame[..., ::-1].astype(float))


@pytest.mark.parametrize(("name", "codec", "pixels"), CODECS)
def test_frames_and_times_are_those_of_opencv(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    times = irregular(40)
    path = write_movie(tmp_path / name, glide(40, size=(96, 64)), times, codec=codec, pixels=pixels)
    stamps, frames = _opencv(path)
    views = _read(tmp_path).views
    assert len(views) == len(frames) == 40
    assert [view.timestamp_ns for view in views] == [time * 10**6 for time in times]
    if codec != "mjpeg":  # OpenCV counts an AVI's frames
        assert np.abs(np.array(stamps) - times).max() < 1
    worst = min(_psnr(_pixels(view.image), frame) for view, frame in zip(views, frames, strict=True))
    assert worst > 36
    assert _psnr(_pixels(views[0].image), frames[1]) < 25  # the test can tell neighbours apart


def test_a_rate_keeps_what_thin_keeps_and_a_size_shrinks_without_aliases(tmp_path: Path) -> None:
    times = irregular(60)
    write_movie(tmp_path / "a.mp4", glide(60, size=(200, 120)), times, options={"crf": "4"})
    options = replace(ALL, clips=ClipOptions(frames=500, rate_hz=6.0), short_side=30)
    views = _read(tmp_path, options).views
    kept = thin([time / 1000 for time in times], 6.0)
    assert [view.timestamp_ns for view in views] == [times[k] * 10**6 for k in kept]
    assert {(view.width, view.height) for view in views} == {(50, 30)}
    for view, k in zip(views[:5], kept, strict=False):
        area = glide(60, size=(200, 120))[k].reshape(30, 4, 50, 4, 3).mean(axis=(1, 3))
        assert _psnr(_pixels(view.image), area) > 27
    large = _read(tmp_path, replace(options, short_side=4000)).views[0]
    assert (large.width, large.height) == (200, 120)


def test_both_sides_of_the_pipe_agree() -> None:
    assert (decode.SIDE, decode.FRAME.format) == (shots.SIDE, import_module("brickyard.ingest.video.read").FRAME.format)


def test_a_clip_never_spans_a_cut(tmp_path: Path) -> None:
    times = irregular(70)
    write_movie(tmp_path / "a.mp4", glide(30, seed=1, speed=1) + glide(40, seed=2, speed=1), times)
    scene = _read(tmp_path)
    assert scene.views[0].timestamp_ns == times[30] * 10**6
    assert len(scene.views) == 40
    assert scene.dropped == {"frames of other shots": 30, "views with assumed intrinsics": 40}


def test_windows_together_hold_every_frame_once(tmp_path: Path) -> None:
    times = irregular(150)
    write_movie(tmp_path / "val" / "a.mp4", glide(150), times)
    options = replace(ALL, clips=ClipOptions(frames=30, rate_hz=20.0))
    refs = _refs(tmp_path, options)
    scenes = [SOURCE.read(ref) for ref in refs]
    assert [ref.scene_id for ref in refs] == [f"val/a.mp4/video/clip-00{k}" for k in range(len(refs))]
    assert len(refs) == 4 and {ref.split for ref in refs} == {"val"} and len({ref.sequence for ref in refs}) == 1
    stamps = [view.timestamp_ns or 0 for scene in scenes for view in scene.views]
    assert stamps == sorted(set(stamps))
    assert max(np.diff(stamps)) < 120 * 10**6  # 20 Hz of irregular frames, also across the windows' edges
    assert all(20 < len(scene.views) <= 30 for scene in scenes)


def test_a_window_costs_its_own_part_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(120)]
    path = write_movie(tmp_path / "a.mp4", noise, range(0, 12_000, 100), options={"crf": "1"})
    options = replace(ALL, clips=ClipOptions(frames=10, rate_hz=10.0))
    refs = _refs(tmp_path, options)
    files: list[int] = []
    plain = RawFiles.read_range

    def counted(self: RawFiles, name: str, offset: int, length: int) -> bytes:
        files.append(length)
        return plain(self, name, offset, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RawFiles, "read_range", counted)
        assert 8 <= len(SOURCE.read(refs[6]).views) <= 10
    assert len(refs) == 12 and path.stat().st_size > 2_000_000
    assert sum(files) < path.stat().st_size / 2


@given(seconds=st.floats(0.01, 1e5), frames=st.integers(3, 200), overlap=st.integers(0, 100), rate=st.floats(0.5, 60.0))
def test_windows_are_equal_and_cover_the_video(seconds: float, frames: int, overlap: int, rate: float) -> None:
    clips = ClipOptions(frames=frames, overlap=min(overlap, frames - 1), rate_hz=rate)
    windows = cut_windows(seconds, 1 << 40, clips)
    assert windows[0][0] == 0 and windows[-1][1] is None
    lengths = [stop - start for start, stop in windows if stop is not None]
    if lengths:
        assert max(lengths) - min(lengths) <= 3
        assert max(lengths) <= (frames + 0.06 * frames + 1) / rate * 1e9
    for (_, stop), (start, _) in pairwise(windows):
        assert stop is not None and abs(stop - start - clips.overlap / rate * 1e9) <= 2


def test_a_length_that_cannot_be_makes_one_window() -> None:
    clips = ClipOptions(frames=96, rate_hz=6.0)
    for seconds, size in ((None, 1 << 30), (1e12, 1 << 40), (3600.0, 50_000)):
        assert cut_windows(seconds, size, clips) == [(0, None)]


@pytest.mark.parametrize(("name", "codec", "pixels"), CODECS)
def test_the_headers_say_how_long_it_is(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    times = irregular(30)
    path = write_movie(tmp_path / name, glide(30), times, codec=codec, pixels=pixels)
    found = duration_s(Store(tmp_path), name, path.stat().st_size)
    assert found is not None and times[-1] / 1000 <= found < times[-1] / 1000 + 0.2


def test_fragmented_files_are_read_too(tmp_path: Path) -> None:
    import av

    times = irregular(30)
    whole = write_movie(tmp_path / "whole.mp4", glide(30), times)
    with (
        av.open(str(whole)) as source,
        av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "frag_keyframe"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole.unlink()
    assert [view.timestamp_ns for view in _read(tmp_path).views] == [time * 10**6 for time in times]


@pytest.mark.parametrize("options", [{"bf": "3"}, {"bf": "3", "b-pyramid": "normal", "g": "12"}, {"bf": "0"}])
def test_reordered_frames_of_an_avi_keep_the_decoders_order(tmp_path: Path, options: dict[str, str]) -> None:
    """AVI has no times of presentation: what FFmpeg makes up for H.264 with B-frames is the order of decoding."""
    import av

    pictures = glide(40, size=(96, 64), speed=4)
    with av.open(str(tmp_path / "a.avi"), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = 96, 64, "yuv420p", options
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode(None))
    views = _read(tmp_path).views
    assert len(views) == 40
    times = np.array([view.timestamp_ns for view in views]) / 1e8
    assert np.allclose(times, np.arange(40))
    assert min(_psnr(_pixels(view.image), picture) for view, picture in zip(views, pictures, strict=True)) > 24
    windows = [SOURCE.read(ref) for ref in _refs(tmp_path, replace(ALL, clips=ClipOptions(frames=10, rate_hz=10.0)))]
    again = {view.timestamp_ns: view.image for scene in windows for view in scene.views}
    assert len(windows) > 2 and again == {view.timestamp_ns: view.image for view in views}


def _turned(data: bytes, degrees: int) -> bytes:
    """An MP4 with another display matrix in its track header."""
    a, b = round(np.cos(np.radians(degrees))) * 65536, round(np.sin(np.radians(degrees))) * 65536
    place = data.index(b"tkhd") + 4 + 40
    return data[:place] + struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30) + data[place + 36 :]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_stand_upright_as_opencv_shows_them(tmp_path: Path, degrees: int) -> None:
    path = write_movie(tmp_path / "a.mp4", glide(5, size=(96, 64)), range(0, 200, 40))
    path.write_bytes(_turned(path.read_bytes(), degrees))
    _, frames = _opencv(path)
    view = _read(tmp_path).views[0]
    assert (view.height, view.width) == frames[0].shape[:2] == ((64, 96) if degrees == 180 else (96, 64))
    assert _psnr(_pixels(view.image), frames[0]) > 36


def test_odd_sizes_deep_pixels_and_wide_pixels(tmp_path: Path) -> None:
    from fractions import Fraction

    for pixels, size in (("yuv444p", (63, 47)), ("yuv420p10le", (64, 48)), ("gray", (64, 48))):
        codec = "ffv1" if pixels == "gray" else "libx264"
        path = write_movie(
            tmp_path / pixels / "a.mkv", glide(6, size=size), range(0, 240, 40), codec=codec, pixels=pixels
        )
        view, truth = _read(path.parent).views[0], glide(6, size=size)[0].astype(float)
        truth = truth if pixels != "gray" else np.repeat(truth @ [[0.299], [0.587], [0.114]], 3, 2)
        assert (view.width, view.height) == size
        assert _psnr(_pixels(view.image), truth) > (30 if size == (63, 47) or pixels == "gray" else 18)
    path = write_movie(tmp_path / "wide" / "a.mp4", glide(6), range(0, 240, 40), sample_aspect_ratio=Fraction(4, 3))
    assert (_read(path.parent).views[0].width, _read(path.parent).views[0].height) == (64, 36)


@pytest.mark.parametrize("tagged", [True, False])
def test_colours_follow_the_matrix_the_stream_names(tmp_path: Path, tagged: bool) -> None:
    """Solid patches of strong colours come back; 60 lines without a tag are BT.601."""
    colours = np.array([[200, 30, 40], [30, 180, 60], [40, 50, 190], [230, 200, 30]], np.uint8)
    picture = np.repeat(np.repeat(colours[None], 60, 0), 20, 1)
    pictures = [np.roll(picture, 2 * k, 1) for k in range(4)]
    matrix: dict[str, Any] = {"colorspace": 1} if tagged else {}
    write_movie(tmp_path / "a.mkv", pictures, range(0, 160, 40), options={"crf": "1"}, **matrix)
    decoded = _pixels(_read(tmp_path).views[0].image)
    assert np.abs(decoded[30, [10, 30, 50, 70]] - colours).max() < 5


def test_high_dynamic_range_is_refused(tmp_path: Path) -> None:
    write_movie(tmp_path / "a.mkv", glide(6), range(0, 240, 40), pixels="yuv420p10le", color_trc=16)
    with pytest.raises(RawDataError, match=r"a\.mkv: cannot be decoded: high dynamic range video \(PQ\)"):
        _read(tmp_path)


def test_videos_that_make_no_clip_say_why(tmp_path: Path) -> None:
    still, black = [glide(1)[0]] * 9, [np.zeros((48, 64, 3), np.uint8)] * 9
    times = range(0, 9 * 40, 40)
    for name, pictures, options, problem in (
        ("single", glide(1), ALL, r"a\.mp4: a single frame from 0 s to the end, a clip needs 2"),
        ("still", still, replace(ALL, min_motion=1.0), "a still picture from 0 s to the end: it changes by 0"),
        ("black", black, ALL, "no picture with any content"),
        ("slow", glide(9), replace(ALL, clips=ClipOptions(rate_hz=1.0)), "none has 2 frames at 1 Hz"),
    ):
        path = write_movie(tmp_path / name / "a.mp4", pictures, times[: len(pictures)])
        with pytest.raises(RawDataError, match=problem):
            _read(path.parent, options)
    assert len(_read(tmp_path / "still").views) == 9


def test_files_that_are_no_videos_say_so(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(write_movie(tmp_path / "other" / "x.mkv", glide(6), range(0, 240, 40)).read_bytes())
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()
    concat = f"ffconcat version 1.0\nfile '{secret}'\n".encode()
    for number, data in enumerate((b"hello", playlist, concat, bytes(5000), b"\0\0\0\x18ftypisom" + bytes(100))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.mp4").write_bytes(data)
        with pytest.raises(RawDataError, match=r"a\.mp4: cannot be decoded"):
            _read(folder)
    (tmp_path / "0" / "a.mp4").write_bytes(b"")
    (lost,) = SOURCE.plan(Store(tmp_path / "0"), ALL)
    assert isinstance(lost, Missing) and lost.reason == "a.mp4 is empty (0 bytes)"
    (tmp_path / "none").mkdir()
    with pytest.raises(RecipeError, match="nothing to read"):
        _refs(tmp_path / "none")


def test_half_a_video_gives_the_half_that_is_there(tmp_path: Path) -> None:
    times = irregular(60)
    path = write_movie(tmp_path / "a.mkv", glide(60), times)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    scene = _read(tmp_path)
    stamps = [view.timestamp_ns for view in scene.views]
    assert 12 <= len(stamps) < 50 and stamps[:12] == [time * 10**6 for time in times[:12]]
    assert set(stamps) <= {time * 10**6 for time in times}
    lost = len(_opencv(path)[0]) - len(stamps) - scene.dropped.get("frames of other shots", 0)
    assert lost <= scene.dropped.get("damaged packets", 0) + scene.dropped.get("damaged frames", 0)


def test_damage_inside_is_counted_and_costs_no_more_than_its_group(tmp_path: Path) -> None:
    times = irregular(60)
    path = write_movie(tmp_path / "a.mp4", glide(60), times)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(range(1, 151)) * 2
    path.write_bytes(data)
    scene = _read(tmp_path)
    known = {time * 10**6 for time in times}
    assert {view.timestamp_ns for view in scene.views} <= known
    lost = 60 - len(scene.views) - scene.dropped.get("frames of other shots", 0)
    assert 0 <= lost <= 12
    assert lost == 0 or any(what.startswith("damaged") for what in scene.dropped)


@pytest.mark.parametrize(("name", "codec", "pixels"), CODECS[:3])
def test_a_lost_block_never_gives_other_pictures_in_silence(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    """Decoders make something of zeros, too."""
    noise = [np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8) for number in range(12)]
    path = write_movie(tmp_path / name, noise, range(0, 480, 40), codec=codec, pixels=pixels)
    data, whole = path.read_bytes(), _read(tmp_path)
    assert len(data) > 40_000
    for place in range(4096, len(data) - 4096, len(data) // 6):
        path.write_bytes(data[:place] + bytes(4096) + data[place + 4096 :])
        try:
            scene = _read(tmp_path)
        except RawDataError:
            continue
        assert scene.dropped != whole.dropped or [v.image for v in scene.views] == [v.image for v in whole.views], place


def test_the_source_keeps_its_promises(tmp_path: Path) -> None:
    for name, codec, pixels in CODECS[:3]:
        write_movie(tmp_path / "train" / name, glide(40), irregular(40), codec=codec, pixels=pixels)
    assert_source_ok(SOURCE, str(tmp_path), VideoOptions(clips=ClipOptions(frames=12, rate_hz=20.0), short_side=32))


def _decode_here(files: RawFiles, path: str, request: Mapping[str, Any], seconds: int) -> Iterator[bytes]:
    """The decoder in this process: the mutation kit's own is a bounded one, and starting a child costs 150 ms."""
    try:
        yield from main(io.BytesIO(files.read(path)), request)
    except Exception as problem:
        raise files.error(path, f"cannot be decoded: {problem}") from problem


def _tiny(root: Path) -> VideoOptions:
    write_movie(root / "a.mp4", glide(6, size=(32, 16), speed=4), range(0, 240, 40))
    write_movie(root / "b.mkv", glide(6, size=(32, 16), speed=4), range(0, 240, 40), codec="mpeg4")
    return VideoOptions(clips=ClipOptions(frames=9, rate_hz=25.0), min_motion=0)


def test_damaged_videos_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    options = _tiny(tmp_path)
    here = Source("video", VideoOptions, SOURCE.plan, partial(read_with, _decode_here))
    found = assert_survives(here, tmp_path, ["a.mp4", "b.mkv"], options=options, count=2000)
    assert found.scenes > 300 and found.errors > 300


def test_damaged_videos_end_in_a_scene_or_an_error_in_the_child_too(tmp_path: Path) -> None:
    found = assert_survives(SOURCE, tmp_path, ["a.mp4", "b.mkv"], options=_tiny(tmp_path), count=18, seed=1)
    assert found.scenes + found.errors == 18
