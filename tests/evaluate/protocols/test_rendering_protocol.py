"""The rendering protocol: pictures of a view, measures, baselines, and the way from a run to its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.evaluate.pictured import PICTURES
from brickyard.evaluate.posed_views import PosedView, normals, read_posed_view
from brickyard.evaluate.protocols.rendering import PROTOCOL, RenderingConfig
from brickyard.evaluate.records import read_results
from brickyard.evaluate.rendered_views import Shown, best_warp, compared, rendered_view
from brickyard.evaluate.subject import Subject
from brickyard.infra.cli import main
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.stream import Stream
from brickyard.train.loop import TrainConfig, train
from brickyard.train.rendering.network import RenderingConfig as NetworkConfig
from tests.evaluate.rooms import room_corpus
from tests.train.objectives.test_ponder import SMALL
from tests.train.posed_rooms import METRES, PLACE, corpus_of, posed_room
from tests.train.rendering.solids import cast


def view_of(corpus: Corpus, number: int = 0, side: int = 12) -> PosedView:
    sample: Any = next(iter(Stream(corpus, ["views/*"], batch=1, threads=1)))[0]
    return read_posed_view(sample, number, side)


def test_a_view_has_colour_depth_and_normals_of_the_same_pixels(tmp_path: Path) -> None:
    """Against ray casting: every second pixel of the depth image, and the intrinsics of those."""
    view = view_of(corpus_of(tmp_path, [posed_room(views=1)]))
    assert view.depth.shape == (12, 16) and view.shown.mean() > 0.8
    row, column = np.nonzero(view.shown)
    pose = view.camera.scene_from_camera
    assert pose is not None
    local = (view.seen[view.shown] - pose[:3, 3]) @ pose[:3, :3]
    uv = (local / local[:, 2:] @ view.camera.intrinsics.T)[:, :2]
    np.testing.assert_allclose(uv, np.stack((column, row), 1), atol=1e-6)
    np.testing.assert_allclose(local[:, 2], view.depth[view.shown], atol=1e-6)
    eye = torch.from_numpy((view.eye - PLACE) / METRES)
    way = torch.from_numpy((view.seen[view.shown] - PLACE) / METRES) - eye
    hit = cast(eye.expand_as(way), way / way.norm(dim=1, keepdim=True))
    found = torch.from_numpy(view.normal[view.shown]).double()
    known = (found.norm(dim=1) > 0.5) & ~hit.ball
    assert known.sum() > 30
    assert ((found * hit.normal).sum(1)[known] > 0.98).double().mean() > 0.8  # not where walls meet


def test_normals_stop_at_edges() -> None:
    column, row = np.meshgrid(np.arange(6.0), np.arange(5.0))
    depth = np.where(column < 3, 2.0, 4.0).astype(np.float32)
    depth[0, 0] = 0
    seen = np.stack((column, row, np.ones_like(row)), -1) * depth[..., None]
    found = normals(seen, depth, np.zeros(3))
    known = np.abs(found).sum(2) > 0
    assert known.tolist()[2] == [False, True, False, False, True, False] and not known[1, 1] == known[2, 1] is False
    np.testing.assert_allclose(found[known], [[0, 0, -1]] * int(known.sum()), atol=1e-6)


def test_a_perfect_rendering_has_no_error(tmp_path: Path) -> None:
    view = view_of(corpus_of(tmp_path, [posed_room(views=2)]))
    color, depth, normal = (torch.from_numpy(v) for v in (view.color, view.depth, view.normal))
    same = compared(Shown(color=color, depth=depth, normal=normal), view)
    assert same["psnr"] == np.inf and same["ssim"] == pytest.approx(1) and same["delta_1"] == 1
    assert same["abs_rel"] == same["rmse"] == 0 and same["normal_angle"] == pytest.approx(0, abs=1e-3)
    blind = compared(Shown(color=None, depth=depth * 1.1, normal=-normal), view)
    assert np.isnan(blind["psnr"]) and blind["abs_rel"] == pytest.approx(0.1, rel=1e-4)
    assert blind["normal_angle"] == pytest.approx(180, abs=1e-3)


def test_rendering_does_not_depend_on_how_rays_are_cut(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [posed_room(views=1)])
    torch.manual_seed(0)
    network = NetworkConfig(student=SMALL.student, renderer=SMALL.renderer).build().eval()
    sample: Any = next(iter(Stream(corpus, ["points/*", "views/*"], batch=1, threads=1)))[0]
    view = read_posed_view(sample, 0, 12)
    with torch.no_grad():
        filled = network([network.read(sample, ())])
        whole, cut = (rendered_view(network, filled, view, rays) for rays in (1000, 17))
    assert whole.color is not None and cut.color is not None
    torch.testing.assert_close(whole.color, cut.color, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.depth, cut.depth, atol=1e-4, rtol=0)
    hits = torch.from_numpy(view.shown) & (whole.depth > 0)
    torch.testing.assert_close(whole.normal[hits].norm(dim=-1), torch.ones(int(hits.sum())), atol=1e-4, rtol=0)


def test_the_view_that_covers_most_is_warped(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [posed_room(views=3)])
    views = tuple(view_of(corpus, number) for number in range(3))
    best = best_warp(views, 0)
    pairs = [best_warp((views[0], other), 0) for other in views[1:]]
    assert best is not None and best.covered.sum() == max(int(pair.covered.sum()) for pair in pairs if pair is not None)
    assert best_warp(views[:1], 0) is None


RECIPE = """
name: rooms
evaluate:
  linear_probe: {taxonomy: scannet20, threads: 1}
  protocols: [rendering]
  settings:
    rendering: {side: 12, views: 1, pictures: 1}
"""


def test_from_a_run_to_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The student's folder holds what renders; the random one beside it is the network before training."""
    rooms = [posed_room(n, views=3, split="val" if n == 2 else "train") for n in range(3)]
    corpus = corpus_of(tmp_path / "corpus", rooms)
    config = TrainConfig(steps=60, batch=2, optimiser="adamw", lr=0.005, threads=1, device="cpu", seed=5)
    train(config, SMALL, corpus, tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    common = [str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run"), "--corpus", str(tmp_path / "corpus")]
    assert main(["evaluate", *common, "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)["protocols"][0]
    random, trained = entry["results"]["random"], entry["results"]["pretrained"]
    assert entry["val_scenes"] == 1 and set(entry["results"]) == {"random", "pretrained"}
    assert trained["psnr"] > random["psnr"] + 2
    assert trained["psnr_warped"] == random["psnr_warped"] > 5
    assert read_results(tmp_path / "run")[0]["results"] == entry["results"]
    listed = json.loads((tmp_path / "run" / PICTURES / "rendering.json").read_text())["scenes"]
    assert [len(scene["pictures"]) for scene in listed] == [8]
    assert main(["show", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Pictures of rendering" in page and "Another view, warped" in page and "solids/room-002" in page


def test_what_cannot_be_rendered_is_refused(tmp_path: Path) -> None:
    network = NetworkConfig(student=SMALL.student, renderer=SMALL.renderer).build()
    blind = room_corpus(tmp_path, train=1, val=1)
    with pytest.raises(RecipeError, match=r"none of the 1 scenes .* has a view with an image, a depth image"):
        PROTOCOL.run(Subject(network, blind), RenderingConfig())
    with pytest.raises(RecipeError, match="judges a SceneRenderer, and a 'sparse_unet' is none"):
        PROTOCOL.check("rendering", network.student)
    with pytest.raises(ValueError, match="11 or more"):
        replace(RenderingConfig(), side=8)
