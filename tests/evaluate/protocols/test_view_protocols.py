"""Protocols of new views: networks whose answers are known, and the way from a run to its page."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from brickyard.evaluate.clip_pictures import between, turned
from brickyard.evaluate.pictured import PICTURES, animation
from brickyard.evaluate.protocols import leakage, novel_views, poses
from brickyard.evaluate.protocols.leakage import CHANGES, LeakageConfig
from brickyard.evaluate.protocols.novel_views import NovelViewsConfig
from brickyard.evaluate.protocols.poses import PosesConfig
from brickyard.evaluate.protocols.registry import choose
from brickyard.evaluate.splits import DataConfig
from brickyard.evaluate.subject import Subject
from brickyard.evaluate.table import columns_of
from brickyard.infra.cli import main
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.loop import TrainConfig, train
from brickyard.train.models.cameras import Cameras
from brickyard.train.models.lvsm import LVSMConfig
from brickyard.train.models.rayzer import RayZerConfig, RayZerNetwork
from brickyard.train.models.view_network import Given, Look, ViewNetwork
from tests.evaluate.test_lpips import Theirs
from tests.train.objectives.test_novel_views import RAYZER
from tests.train.planes import clip_corpus, plane_clip

VIEWS: dict[str, Any] = {"inputs": 3, "targets": 2, "window": 9, "threads": 1}
RAYS = RayZerConfig(network="tiny", size=16, patch=8, checkpointing=False)
POSED = LVSMConfig(network="tiny", size=16, patch=8, design="encoder-decoder", checkpointing=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two clips for training, three for validation, of which one is too short."""
    lengths = [12, 12, 12, 12, 6]
    scenes = [plane_clip(k, frames=n, split="train" if k < 2 else "val") for k, n in enumerate(lengths)]
    return clip_corpus(tmp_path_factory.mktemp("clips") / "corpus", scenes)


def built(config: Any) -> Any:
    torch.manual_seed(0)
    return config.build()


@dataclass(frozen=True, kw_only=True)
class _Size:
    size: int = 16
    kind: ClassVar[str] = "known"


class Known(ViewNetwork):
    """What a target is told is all that is in `told`, one number a pixel; subclasses say how it is rendered."""

    posed = False

    def __init__(self) -> None:
        super().__init__()
        self.config = _Size()
        self.place = nn.Parameter(torch.zeros(1))

    def look(self, images: Tensor, inputs: int, number: Tensor, given: Given | None = None) -> Look:
        eye = torch.eye(4).expand(1, images.shape[1], 4, 4)
        intrinsics = torch.tensor([1.2, 1.2, 0.5, 0.5]).expand(1, images.shape[1], 4)
        cameras = Cameras(poses=eye, intrinsics=intrinsics)
        return Look(scene=self.seen(images, inputs, number), cameras=cameras, told=self.whispered(images, number))

    def tell(self, cameras: Cameras) -> Tensor:
        return torch.zeros(*cameras.poses.shape[:2], 3, 16, 16)

    def seen(self, images: Tensor, inputs: int, number: Tensor) -> Tensor:
        raise NotImplementedError

    def whispered(self, images: Tensor, number: Tensor) -> Tensor:
        raise NotImplementedError


class Smuggler(Known):
    """Its cameras are the pictures themselves; scenes are not looked at."""

    def seen(self, images: Tensor, inputs: int, number: Tensor) -> Tensor:
        return torch.zeros(1, 1, 1)

    def whispered(self, images: Tensor, number: Tensor) -> Tensor:
        return images

    def render(self, scene: Tensor, told: Tensor) -> Tensor:
        return (told + 0.01).clamp(0, 1)


class Clock(Known):
    """Knows the number of every view, and shows the input with the number before a target's."""

    def seen(self, images: Tensor, inputs: int, number: Tensor) -> Tensor:
        place = torch.zeros(1, number.shape[1], 3, 16, 16)
        place[0, number[0, :inputs]] = images[0, :inputs]
        return place

    def whispered(self, images: Tensor, number: Tensor) -> Tensor:
        return number[..., None, None, None].expand(-1, -1, 3, 16, 16).float()

    def tell(self, cameras: Cameras) -> Tensor:
        return torch.ones(*cameras.poses.shape[:2], 3, 16, 16)

    def render(self, scene: Tensor, told: Tensor) -> Tensor:
        return scene[:, told[0, :, 0, 0, 0].long() - 1]


def numbers(network: Any, corpus: Corpus, protocol: Any, **settings: Any) -> dict[str, Any]:
    config = protocol.PROTOCOL.config(**{**VIEWS, **settings})
    protocol.PROTOCOL.check("it", network)
    measured = protocol.PROTOCOL.run(Subject(network, corpus), config)
    names = {column.metric for column in protocol.PROTOCOL.columns}
    assert names <= measured.metrics.keys()
    return {**measured.metrics, "measured": measured}


def test_who_smuggles_is_found(corpus: Corpus) -> None:
    """Its cameras tell as much of the picture with any scene, and those of recoloured clips show other colours."""
    found = numbers(Smuggler(), corpus, leakage)
    assert found["psnr"] > 39 and found["psnr_other_scene"] == found["psnr"] == found["psnr_order"]
    assert found["psnr_other_cameras"] == pytest.approx(found["psnr_unrelated"]) and found["psnr_unrelated"] < 20
    assert found["psnr_recoloured"] < 20


def test_who_counts_frames_is_found(corpus: Corpus) -> None:
    """It is as good as the input before each target, whatever the cameras, and lost when the numbers are shuffled."""
    found, plain = numbers(Clock(), corpus, leakage), numbers(Clock(), corpus, novel_views, pictures=0)
    assert found["psnr"] == plain["psnr"] == pytest.approx(plain["psnr_nearest"], abs=1e-4)
    assert found["psnr_recoloured"] == found["psnr_other_cameras"] == found["psnr"]
    assert found["psnr_order"] < found["psnr"] - 0.5
    assert (
        found["psnr_other_scene"] == pytest.approx(found["psnr_unrelated"]) and found["psnr_unrelated"] < found["psnr"]
    )


def test_clips_are_paired_with_other_sequences() -> None:
    class Named:
        def __init__(self, sequence: str) -> None:
            self.clip = self
            self.sequence = sequence

    order: list[Any] = [Named(name) for name in "aabbac"]
    found = [(one, None if other is None else other.sequence) for one, other in leakage._paired(iter(order))]
    assert [(one.sequence, other) for one, other in found] == [
        ("a", "b"), ("a", "b"), ("b", "a"), ("b", "a"), ("a", "b"), ("c", "a"),
    ]  # fmt: skip
    assert [other for _, other in leakage._paired(iter(order[:2]))] == [None, None]


class Seeing(RayZerNetwork):
    """Finds the true cameras, in a frame and unit of its own; or with an error in one of them."""

    turned_by = 0.0

    def look(self, images: Tensor, inputs: int, number: Tensor, given: Given | None = None) -> Look:
        assert given is not None
        turn = torch.from_numpy(Rotation.random(random_state=4).as_matrix())
        true, intrinsics = given
        found = true.clone()
        found[..., :3, :3] = turn @ true[..., :3, :3]
        found[..., :3, 3] = 0.02 * true[..., :3, 3] @ turn.T + 3
        wrong = torch.from_numpy(Rotation.from_euler("y", self.turned_by, degrees=True).as_matrix())
        found[:, 0, :3, :3] = found[:, 0, :3, :3] @ wrong
        cameras = Cameras(poses=found, intrinsics=intrinsics * 1.1)
        return Look(scene=images, cameras=cameras, told=images)


def test_poses_of_one_who_sees(corpus: Corpus) -> None:
    """One of five cameras is turned by 20 degrees: the four pairs with it are off, in their directions as the first."""
    network = Seeing(RAYS)
    found = numbers(network, corpus, poses)
    assert found["path"] < 1e-6 and found["path_share"] < 1e-5 < found["path_share_straight"] < 1
    assert found["rotation_5"] == found["translation_5"] == found["pose_5"] == 1
    assert found["focal"] == pytest.approx(0.1, abs=1e-5)
    network.turned_by = 20.0
    found = numbers(network, corpus, poses)
    assert found["rotation_15"] == found["translation_15"] == found["pose_15"] == pytest.approx(0.6)
    assert found["rotation_30"] == found["pose_30"] == 1 and found["path"] < 1e-6


def test_poses_of_one_who_does_not(corpus: Corpus) -> None:
    """An untrained network has its cameras all but in one place, unturned."""
    found = numbers(built(RAYS), corpus, poses)
    assert found["rotation_5"] == pytest.approx(found["rotation_5_still"], abs=0.15) and found["rotation_5"] > 0.5
    assert found["path_share"] > found["path_share_straight"]
    assert found["left_out"] == 1
    measured = found["measured"]
    assert measured.scenes == (0, 2)
    assert measured.files["poses-left-out.txt"] == (
        b"planes/clip-004: the clip has 6 frames with a known pose, the window 9\n"
    )
    ((caption, drawn),) = measured.pictures[0].pictures
    assert caption == "Camera paths" and drawn.shape == (360, 360, 3) and drawn.dtype == np.uint8
    assert ((drawn.astype(int) - (46, 160, 67)) ** 2).sum(2).min() < 300


def test_networks_are_asked_about_the_same_frames(corpus: Corpus) -> None:
    """With `posed`, what needs no network is the same beside both; asked again, so is everything."""
    rays, given = (numbers(built(c), corpus, novel_views, posed=True, pictures=1) for c in (RAYS, POSED))
    same = [
        f"{what}_{how}" for what in ("psnr", "ssim", "perceptual_efficientnet_lite0") for how in ("nearest", "mean")
    ]
    same += ["psnr_blurred", "left_out", "views"]
    assert {name: rays[name] for name in same} == {name: given[name] for name in same}
    again = numbers(built(RAYS), corpus, novel_views, posed=True, pictures=1)
    assert {n: v for n, v in again.items() if n != "measured"} == {n: v for n, v in rays.items() if n != "measured"}
    assert rays["views"] == 4 and 0 <= rays["better_than_mean"] <= 1
    assert rays["lpips"] is rays["lpips_mean"] is None
    random = numbers(built(RAYS), corpus, novel_views, posed=True, pictures=0, split="random")
    assert random["psnr_mean"] != rays["psnr_mean"]


def test_lpips_is_measured_where_there_are_weights(corpus: Corpus, tmp_path: Path) -> None:
    torch.save(Theirs().state_dict(), tmp_path / "lpips-vgg.pth")
    found = numbers(built(RAYS), corpus, novel_views, pictures=0, lpips=tmp_path / "lpips-vgg.pth")
    assert all(np.isfinite(found[f"lpips{suffix}"]) for suffix in ("", "_nearest", "_mean"))
    assert found["lpips"] != found["lpips_mean"]


def test_given_cameras_smuggle_nothing(corpus: Corpus) -> None:
    found = numbers(built(POSED), corpus, leakage)
    assert found["psnr_recoloured"] is None and found["psnr_order"] == pytest.approx(found["psnr"], abs=1e-3)
    assert all(found[f"psnr_{name}"] is not None for name in CHANGES if name != "recoloured")


def test_cameras_that_are_tokens(corpus: Corpus) -> None:
    free = built(replace(RAYS, geometry="free"))
    found = numbers(free, corpus, leakage)
    assert [name for name in CHANGES if found[f"psnr_{name}"] is None] == ["focal", "other_focal"]
    assert len(numbers(free, corpus, novel_views)["measured"].pictures[0].pictures) == 5
    with pytest.raises(RecipeError, match='with "free" geometry a camera is no pose'):
        poses.PROTOCOL.check("poses", free)


def test_cameras_between() -> None:
    """A third of the way in time is a third of the turn and of the line; the ends are the cameras themselves."""
    poses_ = torch.eye(4).repeat(1, 3, 1, 1)
    poses_[0, 1, :3, :3] = torch.from_numpy(Rotation.from_euler("y", 30, degrees=True).as_matrix())
    poses_[0, 1, 0, 3] = 3.0
    poses_[0, 2, 0, 3] = -1.0
    cameras = Cameras(poses=poses_, intrinsics=torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(1, 3, 4))
    found = between(cameras, (0, 6, 9), 10)
    assert found.poses.shape == (1, 10, 4, 4) and found.intrinsics.shape == (1, 10, 4)
    torch.testing.assert_close(found.poses[0, [0, 6, 9]], poses_[0])
    angle = Rotation.from_matrix(found.poses[0, 2, :3, :3].double().numpy()).as_euler("yxz", degrees=True)
    np.testing.assert_allclose(angle, [10, 0, 0], atol=1e-4)
    assert float(found.poses[0, 2, 0, 3]) == pytest.approx(1.0)
    np.testing.assert_allclose(turned(np.eye(3), np.eye(3), 0.4), np.eye(3))


def test_what_moves_goes_there_and_back(tmp_path: Path) -> None:
    frames = np.zeros((5, 20, 30, 3), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None] * 50
    (tmp_path / "it.webp").write_bytes(animation(frames))
    with Image.open(tmp_path / "it.webp") as image:
        assert getattr(image, "n_frames") == 8 and image.size == (30, 20)  # noqa: B009


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (NovelViewsConfig, {"flight": -1}),
        (NovelViewsConfig, {"perceptual": "none", "windows": 0}),
        (PosesConfig, {"pictures": -1}),
        (PosesConfig, {"inputs": 1, "targets": 1}),
        (LeakageConfig, {"factor": 0.0}),
    ],
)
def test_settings_that_make_no_sense(config: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"negative|positive|no path"):
        config(**{**VIEWS, **change})


def test_names_and_what_they_judge() -> None:
    chosen = choose("novel_views-random", DataConfig())
    assert isinstance(chosen.config, NovelViewsConfig) and chosen.config.split == "random"
    with pytest.raises(RecipeError, match="judges a RayZerNetwork, and a 'lvsm' is none"):
        choose("poses", DataConfig()).protocol.check("poses", built(POSED))
    with pytest.raises(RecipeError, match="neither"):
        numbers(built(RAYS), Corpus, novel_views, perceptual="nowhere.mat")


RECIPE = """
name: views
evaluate:
  protocols: [novel_views, poses, leakage]
  settings:
    novel_views: {inputs: 3, targets: 2, window: 9, threads: 1, pictures: 1, flight: 4}
    poses: {inputs: 3, targets: 2, window: 9, threads: 1, pictures: 1}
    leakage: {inputs: 3, targets: 2, window: 9, threads: 1}
"""


def test_from_a_run_to_its_page(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(steps=2, batch=2, optimiser="adamw", lr=0.001, threads=1, device="cpu", seed=5, logs=())
    train(config, replace(RAYZER, network=RAYS), corpus, tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    common = [str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run"), "--corpus", corpus.store.uri]
    assert main(["evaluate", *common, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["protocols"]
    assert [entry["protocol"] for entry in entries] == ["novel_views", "poses", "leakage"]
    shown = columns_of(entries[0])
    assert "psnr" in {column.metric for column in shown} and not any("LPIPS" in column.title for column in shown)
    assert all(set(entry["results"]) == {"random", "pretrained"} and entry["val_scenes"] == 2 for entry in entries)
    listed = json.loads((tmp_path / "run" / PICTURES / "novel_views.json").read_text())["scenes"]
    assert [len(scene["pictures"]) for scene in listed] == [6]
    assert (tmp_path / "run" / PICTURES / "poses-left-out.txt").read_text().startswith("planes/clip-004: ")
    assert main(["show", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    for words in ("Pictures of novel_views", "Pictures of poses", "Error of rendering", "data:image/webp;base64,"):
        assert words in page
    moving = tmp_path / "run" / PICTURES / listed[0]["pictures"][-1]["file"]
    moving.write_bytes(moving.read_bytes()[:40])
    assert main(["show", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 1
    assert "a picture cannot be shown" in capsys.readouterr().err
