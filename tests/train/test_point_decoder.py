"""The decoder: its size to the parameter, and that it is made of what it should be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from brickyard.train.models.point_decoder import PointDecoder, PointDecoderConfig
from brickyard.train.models.point_transformer import CONFIGS, Encoded, PointTransformer, PointTransformerConfig

ENCODER = PointTransformerConfig(
    channels=(8, 12, 16), heads=(2, 3, 4), depths=(1, 1, 1), patch=16, drop_path=0.0, size=0.125
)
DECODER = PointDecoderConfig(channels=(4, 8), heads=(1, 2), depths=(1, 2), drop_path=0.4)
COUNTS = (40, 0, 9)


def networks() -> tuple[PointTransformer, PointDecoder]:
    torch.manual_seed(0)
    encoder, decoder = PointTransformer(ENCODER, 5), PointDecoder(DECODER, ENCODER)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval(), decoder.eval()


def scene() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(49, 5, generator=generator), torch.rand(49, 3, generator=generator)


def test_parameter_counts() -> None:
    decoder = PointDecoder(PointDecoderConfig(), CONFIGS["base"], "meta")
    encoder = PointTransformer("base", 9, "meta")
    assert sum(p.numel() for p in decoder.parameters()) == 16_331_520
    assert sum(p.numel() for net in (encoder, decoder) for p in net.parameters()) == 124_792_896


def test_drop_path_falls_within_a_stage() -> None:
    decoder = PointDecoder(DECODER, ENCODER, "meta")
    rates = [[block.drop_path for block in stage] for stage in decoder.stages]  # type: ignore[union-attr]
    assert rates == [[0.0], [pytest.approx(0.4), pytest.approx(0.2)]]


def test_features_of_points_from_all_levels() -> None:
    encoder, decoder = networks()
    encoded = encoder(*scene(), COUNTS)
    result = decoder(encoded)
    assert result.shape == (49, 4)
    gradients = torch.autograd.grad(result.square().sum(), encoded.features)
    assert all(bool(g.abs().sum() > 0) for g in gradients)  # the skip connections are used
    mine = torch.autograd.grad(decoder(encoder(*scene(), COUNTS))[:40].sum(), list(decoder.parameters()))
    assert all(bool(g.isfinite().all()) and bool(g.any()) for g in mine)


def test_a_joint_adds_what_rows_and_their_parents_say() -> None:
    encoder, decoder = networks()
    encoded = encoder(*scene(), COUNTS)
    joint, children = decoder.joints[1], encoded.levels[2].children
    assert children is not None
    result = joint(encoded.features[2], encoded.features[1], children)
    for row in range(len(result)):
        parent = encoded.features[2][children.inverse[row]]
        expected = joint.fine(encoded.features[1][row]) + joint.coarse(parent)  # type: ignore[operator]
        torch.testing.assert_close(result[row], expected)


def test_a_scene_is_decoded_by_itself() -> None:
    encoder, decoder = networks()
    values, xyz = scene()
    together = decoder(encoder(values, xyz, COUNTS))
    torch.testing.assert_close(decoder(encoder(values[:40], xyz[:40], (40,))), together[:40], rtol=1e-5, atol=1e-5)
    encoded: Encoded = encoder(values, xyz, COUNTS)
    (gradient,) = torch.autograd.grad(decoder(encoded)[:40].sum(), encoded.features[0])
    assert not gradient[40:].any()


def test_checkpointing_follows_the_encoder() -> None:
    results = []
    for again in (False, True):
        config = replace(ENCODER, checkpoint=again, shuffle=False)
        torch.manual_seed(0)
        encoder, decoder = PointTransformer(config, 5).train(), PointDecoder(DECODER, config).train()
        torch.manual_seed(1)
        decoder(encoder(*scene(), COUNTS)).square().sum().backward()
        results.append([p.grad for p in decoder.parameters()])
    for one, other in zip(*results, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one stage fewer"):
        PointDecoder(PointDecoderConfig(), ENCODER)
    with pytest.raises(ValueError, match="multiples of the heads"):
        PointDecoderConfig(channels=(5,), heads=(2,), depths=(1,))
