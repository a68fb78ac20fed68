"""The multi-view networks: published sizes, where content can flow, and a plain writing in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brickyard.train.models import lvsm, rayzer
from brickyard.train.models.cameras import Cameras
from brickyard.train.models.lvsm import LVSMConfig
from brickyard.train.models.rayzer import RayZerConfig, RayZerNetwork
from brickyard.train.models.view_tokens import patch_sines, patchify, sines, unpatchify
from brickyard.train.models.view_transformer import Block, ViewTransformer, deviation_of
from brickyard.train.students.base import Student
from brickyard.train.students.export import export_student, load_exported, load_student

SMALL = RayZerConfig(network="tiny", size=16, patch=8)
NUMBERS = torch.tensor([[0, 2, 4, 1, 3], [1, 2, 0, 4, 3]])


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones: a network of two heads."""
    monkeypatch.setitem(rayzer.SIZES, "tiny", rayzer.RayZerSize(128, 8, 2, 2, 2))
    monkeypatch.setitem(lvsm.SIZES, "tiny", lvsm.LVSMSize(128, 8, 2, 2, 2))


def network(**settings: Any) -> RayZerNetwork:
    torch.manual_seed(0)
    return RayZerConfig(**{"network": "tiny", "size": 16, "patch": 8, **settings}).build()


def stirred(module: nn.Module) -> Any:
    """With larger weights, so that everything depends on everything."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def blocks_see(module: nn.Module) -> list[tuple[int, ...]]:
    """Shapes that transformers are given from now on."""
    seen: list[tuple[int, ...]] = []
    for part in module.modules():
        if isinstance(part, ViewTransformer):
            part.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    return seen


@pytest.mark.parametrize(("patch", "cameras", "scene", "render"), [(16, 6168, 7168, 3328), (8, 24600, 19456, 4096)])
def test_published_numbers_of_tokens(patch: int, cameras: int, scene: int, render: int) -> None:
    """24 views, 16 of them inputs, of 256 pixels."""
    with torch.device("meta"):
        whole = RayZerConfig(network="release", patch=patch, checkpointing=False).build("meta")
        seen = blocks_see(whole)
        images, found = whole(torch.empty(1, 24, 3, 256, 256), 16, torch.zeros(1, 24, dtype=torch.int64))
    assert seen == [(1, cameras, 768), (1, scene, 768), (8, render, 768)]
    assert images.shape == (1, 8, 3, 256, 256) and found.poses.shape == (1, 24, 4, 4)


@pytest.mark.parametrize(("name", "blocks"), [("paper", 24), ("release", 32)])
def test_published_numbers_of_weights(name: str, blocks: int) -> None:
    """12 d^2 in a block: 170 million in 24, 227 million in 32."""
    with torch.device("meta"):
        whole = RayZerConfig(network=name).build("meta")
    parts = (whole.camera_blocks, whole.scene_blocks, whole.render_blocks)
    assert [len(part.blocks) for part in parts] == ([8, 8, 8] if name == "paper" else [8, 12, 12])
    weights = sum(p.numel() for part in parts for p in part.parameters())
    assert weights == blocks * (12 * 768**2 + 2 * 768 + 2 * 64)
    assert round(weights / 1e6) == {"paper": 170, "release": 227}[name]
    assert whole.scene_tokens.shape == (3072, 768)
    for design, depths in (("decoder", [24]), ("encoder-decoder", [12, 12])):
        with torch.device("meta"):
            posed = LVSMConfig(design=design).build("meta")  # type: ignore[arg-type]
        assert [len(m.blocks) for m in posed.modules() if isinstance(m, ViewTransformer)] == depths
        assert posed.input_tokens.in_features == 9 * 64 and posed.target_rays.in_features == 6 * 64


def test_weights_start_quieter_with_depth_and_poses_at_the_identity() -> None:
    blocks = ViewTransformer(256, 4).blocks
    for number, block in enumerate(blocks):
        for layer in (m for m in block.modules() if isinstance(m, nn.Linear)):
            assert layer.bias is None
            published = 0.02 / math.sqrt(2 * (number + 1))  # of 768 channels
            assert float(layer.weight.detach().std()) == pytest.approx(published * math.sqrt(3), rel=0.03)
    assert deviation_of(768) == 0.02
    _, cameras = network()(torch.rand(2, 5, 3, 16, 16), 3, NUMBERS)
    assert (cameras.poses - torch.eye(4)).abs().max() < 1e-2
    assert (cameras.intrinsics - torch.tensor([1.25, 1.25, 0.5, 0.5])).abs().max() < 1e-2


def plain_block(block: Block, tokens: Tensor) -> Tensor:
    """A block of one scene in float64, by its definition, a head at a time."""
    weights = {name: value.detach().double() for name, value in block.named_parameters()}

    def norm(x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[name]

    def rms(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[name]

    x = tokens.double()
    query, key, value = (norm(x, "norm1.weight") @ weights["attention.qkv.weight"].T).chunk(3, -1)
    heads = []
    for start in range(0, x.shape[-1], 64):
        q = rms(query[:, start : start + 64], "attention.query_norm.weight")
        k = rms(key[:, start : start + 64], "attention.key_norm.weight")
        heads.append(torch.softmax(q @ k.T / 8, -1) @ value[:, start : start + 64])
    x = x + torch.cat(heads, -1) @ weights["attention.out.weight"].T
    hidden = norm(x, "norm2.weight") @ weights["mlp.0.weight"].T
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ weights["mlp.2.weight"].T


def test_a_block_is_its_definition() -> None:
    torch.manual_seed(0)
    block, tokens = stirred(Block(128)), torch.randn(3, 7, 128)
    found = block(tokens)
    for one, scene in zip(found, tokens, strict=True):
        assert torch.allclose(one.double(), plain_block(block, scene), atol=1e-5, rtol=1e-5)
    assert torch.allclose(block.double()(tokens.double())[0], plain_block(block, tokens[0]), atol=1e-12)


def test_checkpointing_changes_no_bit() -> None:
    images, gradients = torch.rand(1, 5, 3, 16, 16), []
    for checkpointing in (True, False):
        one = stirred(network(checkpointing=checkpointing))
        one(images, 3, NUMBERS[:1])[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in one.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_numbers_of_bfloat16_are_near() -> None:
    """Published training is in bfloat16. Poses and colours differ by its 8 bits, and rays are float32."""
    one, images = stirred(network()), torch.rand(2, 5, 3, 16, 16)
    exact, cameras = one(images, 3, NUMBERS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, rough_cameras = one(images, 3, NUMBERS)
    assert rough.dtype == rough_cameras.poses.dtype == rough_cameras.rays(4, 4).dtype == torch.float32
    assert 0 < float((rough - exact).detach().abs().max()) < 0.05
    turn = rough_cameras.poses[..., :3, :3]
    assert torch.allclose(turn @ turn.transpose(-1, -2), torch.eye(3).expand_as(turn), atol=1e-5)
    assert torch.allclose(rough_cameras.poses, cameras.poses, atol=0.05)


def test_targets_do_not_reach_the_scene_but_through_poses_of_inputs() -> None:
    """With the cameras of the inputs as they are, no pixel of a target has an influence on the scene."""
    one = stirred(network())
    images = torch.rand(2, 5, 3, 16, 16, requires_grad=True)
    tokens = one.tokens(images, NUMBERS)
    told = one.see(tokens, NUMBERS).told
    scene = one.scene(tokens[:, :3], told[:, :3].detach())
    (gradient,) = torch.autograd.grad(scene.square().sum(), images)
    assert not gradient[:, 3:].any() and (gradient[:, :3].abs().amax((2, 3, 4)) > 0).all()
    tokens = one.tokens(images, NUMBERS)
    (through,) = torch.autograd.grad(one.see(tokens, NUMBERS).cameras.poses.square().sum(), images)
    assert (through.abs().amax((2, 3, 4)) > 0).all()  # poses are seen in all views


def test_a_rendering_depends_on_its_own_target_through_its_camera_alone() -> None:
    one, images = stirred(network()), torch.rand(1, 5, 3, 16, 16)
    tokens = one.tokens(images, NUMBERS[:1])
    told = one.see(tokens, NUMBERS[:1]).told
    scene = one.scene(tokens[:, :3], told[:, :3])
    both, alone = one.render(scene, told[:, 3:]), one.render(scene, told[:, 4:])
    assert torch.allclose(both[:, 1:], alone, atol=1e-6)


@pytest.mark.parametrize("geometry", ["rays", "pose", "free"])
def test_the_order_of_targets_changes_nothing(geometry: str) -> None:
    one, images = stirred(network(geometry=geometry)), torch.rand(2, 5, 3, 16, 16)
    turned = [0, 1, 2, 4, 3]
    rendered, cameras = one(images, 3, NUMBERS)
    again, cameras_again = one(images[:, turned], 3, NUMBERS[:, turned])
    assert torch.allclose(cameras_again.poses, cameras.poses[:, turned], atol=1e-5)
    assert torch.allclose(again, rendered.flip(1), atol=1e-5)
    canonical = (NUMBERS == 2).int().argmax(1)
    assert torch.equal(cameras.poses[torch.arange(2), canonical], torch.eye(4).expand(2, 4, 4))


@pytest.mark.parametrize("design", ["decoder", "encoder-decoder"])
def test_lvsm_targets_are_rendered_each_on_its_own(design: Any) -> None:
    torch.manual_seed(0)
    one = stirred(LVSMConfig(network="tiny", design=design, size=16).build())
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 5, 1, 1)
    poses[..., :3, 3] = torch.randn(2, 5, 3, dtype=torch.float64)
    images, intrinsics = torch.rand(2, 3, 3, 16, 16), torch.tensor([1.2, 1.2, 0.5, 0.5]).expand(2, 5, 4)
    cameras = lvsm.told(poses, intrinsics, 3)
    found, other = one(images, cameras), Cameras(poses=cameras.poses[:, :4], intrinsics=cameras.intrinsics[:, :4])
    assert found.shape == (2, 2, 3, 16, 16)
    assert torch.allclose(one(images, other), found[:, :1], atol=1e-6)
    assert not torch.allclose(one(images.roll(1, 0), cameras), found, atol=1e-4)


def test_patches_and_places() -> None:
    images = torch.rand(2, 3, 5, 8, 12)
    patches = patchify(images, 4)
    assert patches.shape == (2, 3, 6, 80)
    assert torch.equal(patches[1, 2, 4].view(4, 4, 5), images[1, 2, :, 4:8, 4:8].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 4, (8, 12)), images)
    assert torch.equal(sines(torch.tensor([0]), 6), torch.tensor([[0.0, 0, 0, 1, 1, 1]]))
    assert sines(torch.tensor(3.0), 4).tolist() == pytest.approx(
        [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]
    )
    places = patch_sines(16, 16, 384, torch.device("cpu"))
    assert torch.cdist(places, places).add(10 * torch.eye(256)).min() > 0.5


@pytest.mark.parametrize("config", [SMALL, LVSMConfig(network="tiny", design="encoder-decoder", size=16)])
def test_networks_are_exported_whole(tmp_path: Any, config: Any) -> None:
    one = config.build()
    export_student(one, tmp_path)
    again = load_exported(tmp_path)
    assert again.config == config and not isinstance(again, Student)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    with pytest.raises(Exception, match=f"'{config.kind}', which does not encode clouds"):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (RayZerConfig, {"patch": 7}, "patch must divide size"),
        (RayZerConfig, {"network": "big"}, "paper, release, tiny"),
        (RayZerConfig, {"geometry": "map"}, "rays, pose, free"),
        (LVSMConfig, {"design": "both"}, "decoder, encoder-decoder"),
        (LVSMConfig, {"network": "release"}, "paper, tiny"),
    ],
)
def test_impossible_settings_are_refused(make: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(**settings)
