"""The point transformer on CUDA: equal to the CPU, to itself among batch-mates, flash attention under bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from brickyard.train.models.point_decoder import PointDecoder, PointDecoderConfig
from brickyard.train.models.point_levels import Level, coarser, finest
from brickyard.train.models.point_transformer import CONFIGS, PointTransformer, PointTransformerConfig
from brickyard.train.models.serialization import ORDERS
from brickyard.train.models.walks import Walking

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CONFIG = replace(CONFIGS["tiny"], channels=(16, 32, 64, 64, 64), heads=(1, 2, 4, 4, 4), size=0.05, drop_path=0.0)
"""As `tiny`, in widths that spconv's tensor-core kernels take."""
DECODER = PointDecoderConfig(channels=(16, 32, 64, 64), heads=(1, 2, 4, 4), depths=(1, 1, 1, 1), drop_path=0.0)
COUNTS = (3000, 700, 50)


def scenes(counts: Sequence[int] = COUNTS) -> tuple[Tensor, Tensor]:
    """Points on the walls of boxes, some in one cell."""
    generator, parts = torch.Generator().manual_seed(0), []
    for count in counts:
        xyz = torch.rand(count, 3, generator=generator) * torch.tensor([4.0, 3.0, 2.5])
        xyz[torch.arange(count), torch.randint(3, (count,), generator=generator)] = 0
        parts.append(xyz)
    return torch.randn(sum(counts), 9, generator=generator), torch.cat(parts)


def networks(config: PointTransformerConfig = CONFIG) -> tuple[PointTransformer, PointTransformer]:
    """With equal weights on the CPU and on CUDA."""
    torch.manual_seed(0)
    cpu, cuda = PointTransformer(config, 9), PointTransformer(config, 9, "cuda").to("cuda")
    with torch.no_grad():
        for parameter in cpu.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    cuda.load_state_dict(cpu.state_dict())
    return cpu.eval(), cuda.eval()


def upcast(net: PointTransformer, values: Tensor, xyz: Tensor, counts: Sequence[int] = COUNTS) -> Tensor:
    device = next(net.parameters()).device
    return net(values.to(device), xyz.to(device), counts).upcast(len(net.config.channels) - 1)


@pytest.fixture(autouse=True)
def full_float32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    spconv_constants = pytest.importorskip("spconv.constants")
    spconv_constants.SPCONV_ALLOW_TF32 = False


def levels(device: str) -> list[Level]:
    walking = Walking(orders=ORDERS, patch=128)
    _, xyz = scenes()
    result = [finest(xyz.to(device), COUNTS, walking, size=0.05, origin=xyz.to(device) + 1)]
    for _ in range(4):
        result.append(coarser(result[-1], walking))
    return result


def test_levels_are_those_of_the_cpu() -> None:
    for cpu, cuda in zip(levels("cpu"), levels("cuda"), strict=True):
        assert cpu.counts == cuda.counts
        for name in ("cells", "scene", "extents"):
            assert torch.equal(getattr(cpu, name), getattr(cuda, name).cpu()), name
        assert torch.allclose(cpu.xyz, cuda.xyz.cpu(), atol=1e-6)
        for one, other in zip(cpu.walks, cuda.walks, strict=True):
            for name in ("full", "short", "slot", "borrowed"):
                assert torch.equal(getattr(one, name), getattr(other, name).cpu()), name


def test_features_are_those_of_the_cpu() -> None:
    (cpu, cuda), (values, xyz) = networks(), scenes()
    with torch.no_grad():
        torch.testing.assert_close(upcast(cuda, values, xyz).cpu(), upcast(cpu, values, xyz), rtol=1e-3, atol=1e-3)


def test_gradients_are_those_of_the_cpu() -> None:
    (cpu, cuda), (values, xyz) = networks(), scenes()
    for net in (cpu, cuda):
        upcast(net, values, xyz).square().mean().backward()
    for (name, one), other in zip(cpu.named_parameters(), cuda.parameters(), strict=True):
        if one.grad is None:
            assert other.grad is None, name  # the mask token: nothing is masked
            continue
        assert other.grad is not None, name
        scale = float(one.grad.abs().max())
        assert float((one.grad - other.grad.cpu()).abs().max()) < 1e-2 * scale + 1e-7, name


def test_the_decoder_too() -> None:
    (cpu, cuda), (values, xyz) = networks(), scenes()
    torch.manual_seed(1)
    one, other = PointDecoder(DECODER, CONFIG).eval(), PointDecoder(DECODER, CONFIG, "cuda").to("cuda").eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        expected = one(cpu(values, xyz, COUNTS))
        result = other(cuda(values.cuda(), xyz.cuda(), COUNTS))
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_batch_mates_change_nothing() -> None:
    (_, cuda), (values, xyz) = networks(), scenes()
    with torch.no_grad():
        together = upcast(cuda, values, xyz)
        begin = 0
        for count in COUNTS:
            part = slice(begin, begin + count)
            alone = upcast(cuda, values[part], xyz[part], [count])
            torch.testing.assert_close(alone, together[part], rtol=1e-4, atol=1e-4)
            begin += count


def test_equal_seeds_give_equal_features() -> None:
    (_, cuda), (values, xyz) = networks(), scenes()
    with torch.no_grad():
        assert torch.equal(upcast(cuda, values, xyz), upcast(cuda, values, xyz))


def test_bfloat16_takes_flash_attention_and_nothing_else() -> None:
    """Scenes of at least a patch at every level, so that no patch is filled: flash attention takes no mask."""
    counts = (3000, 3000)
    (cpu, cuda), (values, xyz) = networks(replace(CONFIG, patch=8)), scenes(counts)
    with (
        torch.no_grad(),
        torch.autocast("cuda", torch.bfloat16),
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    ):
        result = upcast(cuda, values, xyz, counts)
    with torch.no_grad():
        expected = upcast(cpu, values, xyz, counts)
    assert result.isfinite().all()
    assert float((result.float().cpu() - expected).norm() / expected.norm()) < 0.05


def test_bfloat16_trains_scenes_smaller_than_a_patch_as_well() -> None:
    (_, cuda), (values, xyz) = networks(), scenes()
    cuda.train()
    with torch.autocast("cuda", torch.bfloat16):
        loss = upcast(cuda, values, xyz).float().square().mean()
    loss.backward()
    gradients = [p.grad for p in cuda.parameters() if p.grad is not None]
    assert len(gradients) == sum(1 for _ in cuda.parameters()) - 1  # all but the mask token's
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_checkpointing_saves_memory_and_keeps_gradients(bfloat16: bool) -> None:
    values, xyz = scenes((20_000, 20_000))
    peaks, gradients = [], []
    for again in (False, True):
        _, cuda = networks(replace(CONFIG, checkpoint=again, drop_path=0.3, depths=(2, 2, 2, 2, 2)))
        cuda.train()
        values_there, xyz_there = values.cuda(), xyz.cuda()
        torch.manual_seed(3)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.autocast("cuda", torch.bfloat16, enabled=bfloat16):
            loss = cuda(values_there, xyz_there, (20_000, 20_000)).upcast(2).float().square().mean()
        loss.backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        gradients.append([p.grad.clone() for p in cuda.parameters() if p.grad is not None])
        del cuda, loss
    assert peaks[1] < 0.75 * peaks[0]
    for one, other in zip(*gradients, strict=True):
        scale = float(one.abs().max())
        assert float((one - other).abs().max()) < (5e-2 if bfloat16 else 1e-3) * scale + 1e-8


def test_masked_points_and_carried_coordinates() -> None:
    (cpu, cuda), (values, xyz) = networks(), scenes()
    masked = torch.arange(len(xyz)) % 2 == 0
    with torch.no_grad():
        one = cpu(values, xyz, COUNTS, masked=masked, origin=xyz + 1)
        other = cuda(values.cuda(), xyz.cuda(), COUNTS, masked=masked.cuda(), origin=xyz.cuda() + 1)
    torch.testing.assert_close(other.upcast(2).cpu(), one.upcast(2), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.levels[2].origin.cpu(), one.levels[2].origin)
