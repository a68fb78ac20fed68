"""Published weights: names and shapes of the public layout, written down here by themselves, against our networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.models.point_decoder import PointDecoder, PointDecoderConfig
from brickyard.train.models.point_transformer import CONFIGS, PointTransformer
from brickyard.train.models.sonata_weights import load_sonata, read_checkpoint, sonata_name, to_sonata
from brickyard.train.students.export import export_student, load_student
from brickyard.train.students.point import PointStudent, PointStudentConfig
from brickyard.train.students.published import load_published, save_published
from brickyard.train.students.released import load_released, save_released

Shapes = dict[str, tuple[int, ...]]
TINY = CONFIGS["tiny"]
DECODER = PointDecoderConfig(channels=(16, 32, 48, 64), heads=(1, 2, 3, 4), depths=(1, 1, 2, 1))


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def blocks(stage: str, channels: int, depth: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(depth):
        name = f"{stage}.block{i}"
        shapes |= {f"{name}.cpe.0.weight": (channels, 3, 3, 3, channels), f"{name}.cpe.0.bias": (channels,)}
        shapes |= linear(f"{name}.cpe.1", channels, channels) | norm(f"{name}.cpe.2", channels)
        shapes |= norm(f"{name}.norm1.0", channels) | norm(f"{name}.norm2.0", channels)
        shapes |= linear(f"{name}.attn.qkv", channels, 3 * channels) | linear(f"{name}.attn.proj", channels, channels)
        shapes |= linear(f"{name}.mlp.0.fc1", channels, 4 * channels)
        shapes |= linear(f"{name}.mlp.0.fc2", 4 * channels, channels)
    return shapes


def encoder_layout(channels: Sequence[int], depths: Sequence[int], inputs: int = 9) -> Shapes:
    shapes = linear("embedding.stem.linear", inputs, channels[0]) | norm("embedding.stem.norm", channels[0])
    shapes["embedding.mask_token"] = (1, channels[0])
    for s, (width, depth) in enumerate(zip(channels, depths, strict=True)):
        if s:
            shapes |= linear(f"enc.enc{s}.down.proj", channels[s - 1], width) | norm(f"enc.enc{s}.down.norm.0", width)
        shapes |= blocks(f"enc.enc{s}", width, depth)
    return shapes


def decoder_layout(channels: Sequence[int], depths: Sequence[int], encoder: Sequence[int]) -> Shapes:
    shapes: Shapes = {}
    for s, (width, depth) in enumerate(zip(channels, depths, strict=True)):
        coarser = channels[s + 1] if s + 1 < len(channels) else encoder[-1]
        shapes |= linear(f"dec.dec{s}.up.proj.0", coarser, width) | norm(f"dec.dec{s}.up.proj.1", width)
        shapes |= linear(f"dec.dec{s}.up.proj_skip.0", encoder[s], width) | norm(f"dec.dec{s}.up.proj_skip.1", width)
        shapes |= blocks(f"dec.dec{s}", width, depth)
    return shapes


def filled(shapes: Shapes, prefix: str = "") -> dict[str, Tensor]:
    torch.manual_seed(7)
    return {prefix + name: torch.randn(shape) for name, shape in shapes.items()}


ENCODER_STATE = filled(encoder_layout(TINY.channels, TINY.depths))
DECODER_STATE = filled(decoder_layout(DECODER.channels, DECODER.depths, TINY.channels))


@pytest.mark.parametrize("name", ["tiny", "small", "base", "large"])
def test_encoders_have_the_public_names_and_shapes(name: str) -> None:
    config = CONFIGS[name]
    public = to_sonata(PointTransformer(config, 9, "meta"))
    assert {key: tuple(value.shape) for key, value in public.items()} == encoder_layout(config.channels, config.depths)


def test_the_decoder_has_the_public_names_and_shapes() -> None:
    config = PointDecoderConfig()
    public = to_sonata(PointDecoder(config, CONFIGS["base"], "meta"))
    expected = decoder_layout(config.channels, config.depths, CONFIGS["base"].channels)
    assert {key: tuple(value.shape) for key, value in public.items()} == expected


def test_weights_come_to_the_layers_they_belong_to() -> None:
    encoder, decoder = PointTransformer("tiny", 9), PointDecoder(DECODER, TINY)
    load_sonata(encoder, ENCODER_STATE | DECODER_STATE)
    load_sonata(decoder, ENCODER_STATE | DECODER_STATE)
    blocks, joint = dict(encoder.named_parameters()), dict(decoder.named_parameters())
    for ours, public in {
        "stem.0.weight": "embedding.stem.linear.weight",
        "stem.1.bias": "embedding.stem.norm.bias",
        "pools.0.linear.weight": "enc.enc1.down.proj.weight",
        "pools.3.norm.weight": "enc.enc4.down.norm.0.weight",
        "stages.3.1.position.convolution.weight": "enc.enc3.block1.cpe.0.weight",
        "stages.3.1.position.bias": "enc.enc3.block1.cpe.0.bias",
        "stages.0.0.attention.out.bias": "enc.enc0.block0.attn.proj.bias",
        "stages.2.0.norm2.weight": "enc.enc2.block0.norm2.0.weight",
        "stages.2.0.mlp.2.weight": "enc.enc2.block0.mlp.0.fc2.weight",
    }.items():
        assert torch.equal(blocks[ours], ENCODER_STATE[public]), ours
    assert encoder.mask_token is not None
    assert torch.equal(encoder.mask_token, ENCODER_STATE["embedding.mask_token"][0])
    for ours, public in {
        "joints.3.coarse.0.weight": "dec.dec3.up.proj.0.weight",
        "joints.1.fine.1.bias": "dec.dec1.up.proj_skip.1.bias",
        "stages.2.1.attention.qkv.weight": "dec.dec2.block1.attn.qkv.weight",
    }.items():
        assert torch.equal(joint[ours], DECODER_STATE[public]), ours
    for name, value in (to_sonata(encoder) | to_sonata(decoder)).items():
        assert torch.equal(value, (ENCODER_STATE | DECODER_STATE)[name]), name


@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "module.backbone.", "student.backbone.", "module.student.backbone."]
)
def test_wrapped_weights_are_found(prefix: str) -> None:
    state = {prefix + name: value for name, value in ENCODER_STATE.items()}
    state |= {"module.student.mask_head.0.weight": torch.zeros(2), "teacher.backbone.enc.enc0.x": torch.zeros(2)}
    network = PointTransformer("tiny", 9)
    load_sonata(network, state)
    assert torch.equal(
        to_sonata(network)["embedding.stem.linear.weight"], ENCODER_STATE["embedding.stem.linear.weight"]
    )


def test_a_mask_token_may_be_missing_on_either_side() -> None:
    without = {name: value for name, value in ENCODER_STATE.items() if "mask_token" not in name}
    network = PointTransformer("tiny", 9)
    load_sonata(network, without)
    assert network.mask_token is not None
    assert not network.mask_token.any()
    load_sonata(PointTransformer(replace(TINY, mask_token=False), 9), ENCODER_STATE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enc.enc2.block0.attn.qkv.weight": None}, r"is missing \('enc.enc2.block0.attn.qkv.weight'\)"),
        ({"enc.enc4.block1.norm1.0.bias": torch.zeros(64)}, r"not in this network \('enc.enc4.block1.norm1.0.bias'\)"),
        ({"enc.enc1.down.proj.weight": torch.zeros(32, 8)}, "weight' is 32 x 8, this network needs 32 x 16"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(change: dict[str, Tensor | None], message: str) -> None:
    network = PointTransformer("tiny", 9)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: value for name, value in (ENCODER_STATE | change).items() if value is not None}
    with pytest.raises(BrickyardError, match=message):
        load_sonata(network, state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_other_weights_are_refused() -> None:
    with pytest.raises(BrickyardError, match="not weights in Sonata's layout"):
        load_sonata(PointTransformer("tiny", 9), {"conv1.weight": torch.zeros(3)})
    with pytest.raises(BrickyardError, match="are missing"):
        load_sonata(PointDecoder(DECODER, TINY), ENCODER_STATE)
    with pytest.raises(BrickyardError, match="no parameter"):
        sonata_name("stages.0.0.attention.keys.weight")


# Files


def settings(**more: object) -> dict[str, object]:
    """As a release has them."""
    return {
        "in_channels": 9, "order": ("z", "z-trans", "hilbert", "hilbert-trans"), "stride": (2, 2, 2, 2),
        "enc_depths": TINY.depths, "enc_channels": TINY.channels, "enc_num_head": TINY.heads,
        "enc_patch_size": [512] * 5, "mlp_ratio": 4, "drop_path": 0.3, "enable_flash": True, "enc_mode": True, **more,
    }  # fmt: skip


def test_a_released_file_becomes_a_student(tmp_path: Path) -> None:
    torch.save({"config": settings(), "state_dict": ENCODER_STATE}, tmp_path / "sonata.pth")
    student, decoder = load_published(tmp_path / "sonata.pth")
    assert decoder is None
    assert student.config == PointStudentConfig(network="tiny", patch=512, drop_path=0.3, published="grid")
    assert all(torch.equal(v, ENCODER_STATE[name]) for name, v in to_sonata(student.network).items())


def test_released_files_are_told_apart(tmp_path: Path) -> None:
    torch.save({"config": settings(), "state_dict": ENCODER_STATE | DECODER_STATE}, tmp_path / "sonata.pth")
    student = load_released(tmp_path / "sonata.pth")
    assert isinstance(student, PointStudent)
    assert student.config.published == "grid" and student.decoder is None
    save_released(tmp_path / "again.pth", student)
    assert read_checkpoint(tmp_path / "again.pth")[0].keys() == ENCODER_STATE.keys()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_what_is_saved_is_loaded_again(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    student = PointStudent(PointStudentConfig(network="tiny", inputs=("xyz", "color"), patch=64))
    decoder = PointDecoder(DECODER, student.network.config)
    save_published(tmp_path / name, student, decoder)
    again, decoder_again = load_published(tmp_path / name)
    assert again.config.inputs == ("xyz", "color")
    assert again.config.patch == 64
    assert decoder_again is not None
    for one, other in ((student, again), (decoder, decoder_again)):
        for key, value in other.state_dict().items():
            assert torch.equal(value, one.state_dict()[key])
    state, config = read_checkpoint(tmp_path / name)
    assert state.keys() == encoder_layout(TINY.channels, TINY.depths, 6).keys() | DECODER_STATE.keys()
    assert (config["in_channels"], config["enc_mode"], list(config["dec_channels"])) == (6, False, [16, 32, 48, 64])
    with pytest.raises(BrickyardError, match=r"end in \.safetensors or \.pth"):
        save_published(tmp_path / "weights.bin", student)


def test_weights_alone_suffice(tmp_path: Path) -> None:
    torch.save({f"module.backbone.{name}": v for name, v in ENCODER_STATE.items()}, tmp_path / "state.pth")
    student, _ = load_published(tmp_path / "state.pth")
    assert student.config.network == "tiny"
    assert student.config.patch is None


def test_a_recipe_begins_with_published_weights(tmp_path: Path) -> None:
    path = tmp_path / "sonata.safetensors"
    save_file(ENCODER_STATE, path)
    student = PointStudent(PointStudentConfig(network="tiny", weights=path))
    assert torch.equal(student.network.stem[0].weight, ENCODER_STATE["embedding.stem.linear.weight"])
    export_student(student, tmp_path)
    path.unlink()  # an exported student stands by itself
    again = load_student(tmp_path)
    assert all(torch.equal(v, student.state_dict()[name]) for name, v in again.state_dict().items())
    with pytest.raises(BrickyardError, match=r"sonata\.safetensors"):
        PointStudent(PointStudentConfig(network="tiny", weights=path))


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("harm",)


def test_files_that_ask_for_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": ENCODER_STATE, "config": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(BrickyardError, match=r"bad\.pth holds no weights that can be read without running code"):
        load_published(tmp_path / "bad.pth")
    assert "harm" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"state_dict": {"enc.x": "text"}}, torch.zeros(3)])
def test_files_that_hold_something_else_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(BrickyardError, match=r"other\.pth holds no"):
        load_published(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"enc_num_head": [1, 2, 3, 4, 8]}, "enc_num_head is"),
        ({"order": ["z"]}, "order is"),
        ({"enable_rpe": True}, "enable_rpe is True"),
        ({"layer_scale": 1e-5}, "layer_scale is"),
        ({"enc_patch_size": [1024, 512, 512, 512, 512]}, "patches of"),
        ({"enc_patch_size": 1024}, "settings that make no network"),
        ({"drop_path": "much"}, "settings that make no network"),
        ({"drop_path": 2}, "settings that make no network"),
    ],
)
def test_settings_of_another_network_are_refused(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    save_file(ENCODER_STATE, tmp_path / "a.safetensors", metadata={"config": json.dumps(settings(**wrong))})
    with pytest.raises(BrickyardError, match=message):
        load_published(tmp_path / "a.safetensors")


def test_unknown_sizes_and_missing_stages_are_refused(tmp_path: Path) -> None:
    save_file(filled(encoder_layout((16, 32), (1, 1))), tmp_path / "a.safetensors")
    with pytest.raises(BrickyardError, match=r"channels \(16, 32\) and depths \(1, 1\)"):
        load_published(tmp_path / "a.safetensors")
    save_file({n: v for n, v in ENCODER_STATE.items() if "enc2" not in n}, tmp_path / "b.safetensors")
    with pytest.raises(BrickyardError, match=r"stages \[0, 1, 3, 4\]"):
        load_published(tmp_path / "b.safetensors")
    save_file(ENCODER_STATE | filled(decoder_layout((16,), (1,), (64,))), tmp_path / "d.safetensors")
    with pytest.raises(BrickyardError, match="a decoder that fits no encoder"):
        load_published(tmp_path / "d.safetensors")
    save_file(filled(encoder_layout(TINY.channels, TINY.depths, 7)), tmp_path / "c.safetensors")
    with pytest.raises(BrickyardError, match="7 features of a point; say which"):
        load_published(tmp_path / "c.safetensors")
    student, _ = load_published(tmp_path / "c.safetensors", inputs=("xyz", "color", "intensity"))
    assert student.inputs == ("xyz", "color", "intensity")
