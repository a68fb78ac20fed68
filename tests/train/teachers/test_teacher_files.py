"""Teachers from files in their authors' layouts, against the networks of transformers with the same weights; and what
does not fit is refused.

The names are written down here as the authors' code has them, by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from brickyard.shards.errors import RecipeError
from brickyard.train.teachers import TeacherConfig, load_teacher
from brickyard.train.teachers.resnet import ResNet

Weights = dict[str, Tensor]
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def randomly_filled(network: Any) -> Any:
    """The network in evaluation mode, every weight and statistic drawn anew."""
    generator = torch.Generator().manual_seed(3)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator)
            positive = "running_var" in name or "lambda" in name or ("norm" in name and name.endswith("weight"))
            value.copy_(drawn + 0.5 if positive else (drawn - 0.5) * 0.2)
    return network.eval()


def features(path: Path, images: Tensor, stride: int = 32) -> Tensor:
    return load_teacher(TeacherConfig(name=str(path), output_stride=stride))(images)  # type: ignore[arg-type]


# ResNets


def resnet50() -> Any:
    """Narrow, but with the stages of a ResNet-50."""
    from transformers import ResNetConfig, ResNetModel

    sizes = ResNetConfig(
        embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[3, 4, 6, 3], layer_type="bottleneck"
    )
    return randomly_filled(ResNetModel(sizes))


def torchvision_names(weights: Weights) -> Weights:
    """transformers' ResNet -> conv1, bn1, layer1.0.conv1, ..., layer1.0.downsample.0, ..."""
    result = {}
    for name, value in weights.items():
        place = re.match(r"encoder\.stages\.(\d)\.layers\.(\d+)\.", name)
        layer = re.search(r"layer\.(\d)\.(convolution|normalization)", name)
        if place is None:
            ours = "bn1" if "normalization" in name else "conv1"
        elif layer is None:
            ours = f"layer{int(place[1]) + 1}.{place[2]}.downsample.{int('normalization' in name)}"
        else:
            kind = "conv" if layer[2] == "convolution" else "bn"
            ours = f"layer{int(place[1]) + 1}.{place[2]}.{kind}{int(layer[1]) + 1}"
        result[f"{ours}.{name.rpartition('.')[2]}"] = value
    return result


NETWORK = resnet50()
RESNET = torchvision_names(NETWORK.state_dict())
EXTRA = torch.zeros(2)


def under(prefix: str, *beside: str) -> Weights:
    return {prefix + name: value for name, value in RESNET.items()} | dict.fromkeys(beside, EXTRA)


RESNET_FILES: dict[str, dict[str, Any]] = {
    "moco": {
        "epoch": 800, "arch": "resnet50", "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]},
        "state_dict": under(
            "module.encoder_q.", "module.encoder_q.fc.0.weight", "module.encoder_q.fc.2.bias",
            "module.encoder_k.conv1.weight", "module.encoder_k.fc.0.weight", "module.queue", "module.queue_ptr",
        ),
    },
    "swav": under(
        "module.", "module.projection_head.0.weight", "module.projection_head.1.running_mean",
        "module.prototypes.weight",
    ),
    "deepcluster": under("module.", "module.projection_head.3.bias", "module.prototypes.prototypes0.weight"),
    "swav in training": {"epoch": 3, "state_dict": under("module.", "module.prototypes.weight")},
    "obow": {"network": under("", "fc.weight", "fc.bias")},
    "pixpro": {
        "model": under(
            "module.encoder.", "module.projector.linear1.weight", "module.projector_k.bn1.weight",
            "module.encoder_k.conv1.weight", "module.value_transform.weight", "module.projector_instance.linear1.bias",
            "module.predictor.linear2.weight",
        )
    },
    "dino": under(""),
    "torchvision": under("", "fc.weight", "fc.bias"),
    "dino in training": {
        "epoch": 100, "teacher": under("module.backbone.", "module.head.mlp.0.weight", "module.head.last_layer.weight"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RESNET_FILES)
def test_resnet_files_give_the_features_of_their_network(tmp_path: Path, name: str) -> None:
    torch.save(RESNET_FILES[name], tmp_path / "a.pth.tar")
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = NETWORK((images - MEAN) / DEVIATION).last_hidden_state
    assert float(expected.abs().mean()) > 0.01
    got = features(tmp_path / "a.pth.tar", images)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_strides_are_taken_away(tmp_path: Path) -> None:
    save_file(RESNET, tmp_path / "a.safetensors")
    images = torch.rand(1, 3, 64, 96)
    dense = features(tmp_path / "a.safetensors", images, stride=4)
    assert dense.shape == (1, 256, 16, 24)
    torch.testing.assert_close(
        dense[:, :, ::8, ::8], features(tmp_path / "a.safetensors", images), atol=1e-5, rtol=1e-5
    )


def test_sizes_are_those_of_the_published_networks() -> None:
    """Parameters of torchvision's networks without their classifiers."""
    with torch.device("meta"):
        networks = {
            "resnet50": ResNet(True, 64, (64, 128, 256, 512), (3, 4, 6, 3)),
            "resnet101": ResNet(True, 64, (64, 128, 256, 512), (3, 4, 23, 3)),
            "resnet18": ResNet(False, 64, (64, 128, 256, 512), (2, 2, 2, 2)),
            "resnet34": ResNet(False, 64, (64, 128, 256, 512), (3, 4, 6, 3)),
        }
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    classifier = {18: 513_000, 34: 513_000, 50: 2_049_000, 101: 2_049_000}
    totals = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}
    assert counts == {f"resnet{n}": totals[n] - classifier[n] for n in totals}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bn1.running_var"), r"1 weight is missing \('bn1.running_var'\)"),
        (lambda w: w.pop("layer3.2.downsample.0.weight", None) or w.pop("layer2.0.downsample.0.weight"),
         r"missing \('layer2.0.downsample.0.weight'\)"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("layer4")], "3-4-6-0 blocks.*has 3-4-6-3 or 3-4-23-3"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("layer3.5.")], "3-4-5-3 blocks"),
        (lambda w: w.update({f"extra.{i}": EXTRA for i in range(9)}),
         r"9 weights are not in this network \('extra.0', 'extra.1', 'extra.2', ...\)"),
        (lambda w: w.update({"layer1.0.conv2.weight": torch.zeros(8, 4, 3, 3)}),
         r"of another shape \('layer1.0.conv2.weight' is 8 x 4 x 3 x 3, this network needs 8 x 8 x 3 x 3\)"),
        (lambda w: w["layer1.0.bn1.weight"].fill_(torch.nan), r"not finite \('layer1.0.bn1.weight'\)"),
        (lambda w: w.pop("conv1.weight"), "no known layout: its first names are 'network/bn1.weight'.*Known are MoCo"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Weights], object], message: str) -> None:
    weights = {name: value.clone() for name, value in RESNET.items()}
    change(weights)
    torch.save({"network": weights}, tmp_path / "a.pth")
    with pytest.raises(RecipeError, match=message):
        load_teacher(TeacherConfig(name=str(tmp_path / "a.pth")))


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("harm",)


def test_files_that_ask_for_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": RESNET, "opt": Harmful()}, tmp_path / "a.pth")
    with pytest.raises(RecipeError, match="without running code"):
        load_teacher(TeacherConfig(name=str(tmp_path / "a.pth")))
    assert "harm" not in capsys.readouterr().out
    (tmp_path / "b.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(RecipeError, match=r"b\.pth holds no weights"):
        load_teacher(TeacherConfig(name=str(tmp_path / "b.pth")))


# Vision transformers


def vit(kind: str, **sizes: Any) -> Any:
    import transformers

    config, model = getattr(transformers, f"{kind}Config"), getattr(transformers, f"{kind}Model")
    common = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    return randomly_filled(model(config(**common | sizes)))


TABLE = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.register_tokens": "register_tokens",
    r"embeddings\.mask_token": "mask_token",
    r"embeddings\.patch_embeddings(\.projection)?\.": "patch_embed.proj.",
    r".*layers?\.(?P<n>\d+)\.(norm1|layernorm_before)\.": "blocks.{n}.norm1.",
    r".*layers?\.(?P<n>\d+)\.(norm2|layernorm_after)\.": "blocks.{n}.norm2.",
    r".*layers?\.(?P<n>\d+)\.layer_scale(?P<k>\d)\.lambda1": "blocks.{n}.ls{k}.gamma",
    r".*layers?\.(?P<n>\d+)\.attention\.o_proj\.": "blocks.{n}.attn.proj.",
    r".*layers?\.(?P<n>\d+)\.mlp\.(?P<k>fc\d)\.": "blocks.{n}.mlp.{k}.",
    r"(layernorm|norm)\.": "norm.",
}
GATED = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}
PLAIN = {"up_proj": "fc1", "down_proj": "fc2"}


def authors_names(weights: Weights) -> Weights:
    """transformers' ViTs -> the names of DINO and DINOv2: cls_token, pos_embed, blocks.0.attn.qkv, ..."""
    result: Weights = {}
    inner = GATED if any("gate_proj" in name for name in weights) else PLAIN
    for name, value in weights.items():
        projected = re.search(r"layers?\.(\d+)\.mlp\.(\w+_proj)\.(\w+)$", name)
        if projected:
            result[f"blocks.{projected[1]}.mlp.{inner[projected[2]]}.{projected[3]}"] = value
        for pattern, theirs in TABLE.items():
            if match := re.match(pattern, name):
                result[theirs.format(**match.groupdict()) + name[match.end() :]] = value
                break
    places = {
        match[1]: match[2] for n in weights if (match := re.match(r"((?:.*)layers?\.(\d+)\.attention\.)q_proj", n))
    }
    for place, number in places.items():
        for part in ("weight", "bias"):
            three = [weights.get(f"{place}{letter}_proj.{part}", torch.zeros(192)) for letter in "qkv"]
            result[f"blocks.{number}.attn.qkv.{part}"] = torch.cat(three)
    return result


def like_dinov3(weights: Weights) -> Weights:
    """Storage tokens, RoPE's periods, and a bias of the keys that is there but masked."""
    weights["storage_tokens"] = weights.pop("register_tokens")
    weights["rope_embed.periods"] = 100 ** (torch.arange(16) / 16)
    weights["mask_token"] = weights["mask_token"][0]
    for n in range(12):
        weights[f"blocks.{n}.attn.qkv.bias"][192:384] = 7.0
        mask = torch.ones(576)
        mask[192:384] = 0
        weights[f"blocks.{n}.attn.qkv.bias_mask"] = mask
    return weights


def gate_joined(weights: Weights) -> Weights:
    """DINOv2's giant has the gate and the value in one layer."""
    for n in range(12):
        for part in ("weight", "bias"):
            halves = [weights.pop(f"blocks.{n}.mlp.{name}.{part}") for name in ("w1", "w2")]
            weights[f"blocks.{n}.mlp.w12.{part}"] = torch.cat(halves)
    return weights


NEW = {"kind": "DINOv3ViT", "num_register_tokens": 4}
VITS: dict[str, tuple[dict[str, Any], Callable[[Weights], Weights], tuple[int, int]]] = {
    "dino": ({"kind": "ViT", "image_size": 64, "layer_norm_eps": 1e-6}, dict, (64, 64)),
    "dino in training": ({"kind": "ViT", "image_size": 64, "layer_norm_eps": 1e-6}, dict, (64, 64)),
    "dinov2": ({"kind": "Dinov2", "image_size": 70, "patch_size": 14}, dict, (70, 70)),
    "dinov2 giant": ({"kind": "Dinov2", "image_size": 70, "use_swiglu_ffn": True}, gate_joined, (70, 70)),
    "dinov2 registers": ({"kind": "Dinov2WithRegisters", "image_size": 70, "patch_size": 14}, dict, (42, 98)),
    "dinov3": (NEW, like_dinov3, (48, 80)),
    "dinov3 plus": (NEW | {"use_gated_mlp": True, "hidden_act": "silu"}, like_dinov3, (48, 80)),
}


@pytest.mark.parametrize("name", VITS)
def test_vit_files_give_the_features_of_their_network(tmp_path: Path, name: str) -> None:
    sizes, changed, (height, width) = VITS[name]
    network = vit(**sizes)
    weights = changed(authors_names(network.state_dict()))
    if name == "dino in training":
        inside = {f"backbone.{n}": v for n, v in weights.items()} | {"head.mlp.0.weight": EXTRA}
        torch.save({"student": inside, "teacher": inside}, tmp_path / "a.pth")
    else:
        torch.save(weights, tmp_path / "a.pth")
    images = torch.rand(1, 3, height, width)
    patch = network.config.patch_size
    rows, columns = height // patch, width // patch
    with torch.no_grad():
        tokens = network(pixel_values=(images - MEAN) / DEVIATION).last_hidden_state[:, -rows * columns :]
    got = features(tmp_path / "a.pth", images)
    expected = tokens.transpose(1, 2).reshape(1, 192, rows, columns)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert float(expected.std()) > 0.1


def cubic(t: float) -> list[float]:
    """Weights of the four samples at -1, 0, 1, 2 for the place t (Keys, IEEE ASSP 1981, with a = -0.75)."""
    a = -0.75

    def near(x: float) -> float:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1

    def far(x: float) -> float:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def resized(grid: np.ndarray, count: int) -> np.ndarray:
    """Along the first axis to `count` places, as DINO does: the step is that of count + 0.1 places."""
    edge, out = len(grid), []
    for place in range(count):
        source = (place + 0.5) * edge / (count + 0.1) - 0.5
        low = int(np.floor(source))
        taps = [grid[min(max(low + k, 0), edge - 1)] for k in (-1, 0, 1, 2)]
        out.append(sum(w * tap for w, tap in zip(cubic(source - low), taps, strict=True)))
    return np.stack(out)


def test_positions_are_resized_as_dino_resizes_them(tmp_path: Path) -> None:
    square, wide = (vit("ViT", image_size=size, layer_norm_eps=1e-6) for size in ((64, 64), (48, 96)))
    learned = square.embeddings.position_embeddings.detach()
    grid = learned[0, 1:].reshape(4, 4, 192).double().numpy()
    grid = resized(resized(grid, 3).transpose(1, 0, 2), 6).transpose(1, 0, 2)
    state = square.state_dict()
    places = torch.from_numpy(grid.reshape(1, 18, 192)).float()
    wide.load_state_dict(state | {"embeddings.position_embeddings": torch.cat((learned[:, :1], places), dim=1)})
    torch.save(authors_names(state), tmp_path / "a.pth")
    images = torch.rand(1, 3, 48, 96)
    with torch.no_grad():
        tokens = wide(pixel_values=(images - MEAN) / DEVIATION).last_hidden_state[:, 1:]
    got = features(tmp_path / "a.pth", images)
    torch.testing.assert_close(got, tokens.transpose(1, 2).reshape(1, 192, 3, 6), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("blocks.11.")], "192 channels with 11 blocks"),
        (lambda w: w.pop("pos_embed"), "neither learned positions of a square"),
        (lambda w: w.pop("blocks.3.attn.proj.bias"), r"missing \('blocks.3.attn.proj.bias'\)"),
        (lambda w: w.update({"blocks.3.attn.qkv.bias_mask": torch.full((576,), torch.nan)}), "no mask of zeros"),
    ],
)
def test_vits_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Weights], object], message: str) -> None:
    weights = authors_names(vit("ViT", image_size=64).state_dict())
    change(weights)
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(RecipeError, match=message):
        load_teacher(TeacherConfig(name=str(tmp_path / "a.pth")))


def test_satellite_weights_have_their_own_normalisation(tmp_path: Path) -> None:
    network = vit(**NEW)
    weights = like_dinov3(authors_names(network.state_dict()))
    weights |= {"local_cls_norm.weight": torch.ones(192), "local_cls_norm.bias": torch.ones(192)}
    torch.save(weights, tmp_path / "a.pth")
    teacher = load_teacher(TeacherConfig(name=str(tmp_path / "a.pth")))
    assert teacher.normalisation == ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))


@pytest.mark.parametrize(("height", "width", "do"), [(224, 420, "224 x 416 or 224 x 432"), (8, 64, "16 x 64;")])
def test_a_patch_that_does_not_divide_the_image_is_refused_at_load(
    tmp_path: Path, height: int, width: int, do: str
) -> None:
    torch.save(authors_names(vit("ViT", image_size=64).state_dict()), tmp_path / "a.pth")
    config = TeacherConfig(name=str(tmp_path / "a.pth"))
    with pytest.raises(RecipeError, match=f"multiples of 16, such as {do}"):
        load_teacher(config, size=(height, width))
    load_teacher(config, size=(224, 416))


# Folders


def test_a_folder_whose_weights_have_other_names_is_refused(tmp_path: Path) -> None:
    NETWORK.save_pretrained(tmp_path)
    load_teacher(TeacherConfig(name=str(tmp_path)))
    saved = load_file(tmp_path / "model.safetensors")
    save_file(RESNET, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"weights missing .*not in this network.*give the file itself"):
        load_teacher(TeacherConfig(name=str(tmp_path)))
    cut = {name: value for name, value in saved.items() if "stages.3" not in name}
    save_file(cut, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"missing .*encoder\.stages\.3"):
        load_teacher(TeacherConfig(name=str(tmp_path)))
    name = "encoder.stages.0.layers.1.layer.1.convolution.weight"
    save_file(saved | {name: torch.zeros(8, 8, 1, 1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"of another shape .*stages\.0\.layers\.1"):
        load_teacher(TeacherConfig(name=str(tmp_path)))


def test_a_vit_folder_takes_images_of_any_multiple(tmp_path: Path) -> None:
    vit("ViT", image_size=64).save_pretrained(tmp_path)
    teacher = load_teacher(TeacherConfig(name=str(tmp_path)), size=(48, 96))
    assert teacher(torch.rand(1, 3, 48, 96)).shape == (1, 192, 3, 6)
