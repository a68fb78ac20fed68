"""The point transformer: its sizes to the parameter, its attention and gradients against plain loops, and that a
scene's features are its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.models import point_blocks
from brickyard.train.models.point_blocks import Attention, Block, Position, drop_paths
from brickyard.train.models.point_levels import finest
from brickyard.train.models.point_transformer import (
    CONFIGS,
    Encoded,
    PointTransformer,
    PointTransformerConfig,
    block_of,
    find_config,
)
from brickyard.train.models.serialization import ORDERS, encode
from brickyard.train.models.walks import Walking

CPU = torch.device("cpu")
SIZE = 0.125
SMALL = PointTransformerConfig(
    channels=(8, 12, 16), heads=(2, 3, 4), depths=(1, 2, 1), patch=16, drop_path=0.3, size=SIZE
)
counts_of_scenes = st.lists(st.sampled_from([1, 2, 3, 15, 16, 17, 33]), min_size=1, max_size=4)


def cloud(points: int, seed: int, extent: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(extent, (points, 3), generator=generator)
    return (cells + 0.25 + 0.5 * torch.rand(points, 3, generator=generator)) * SIZE


def scenes(counts: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features and coordinates of scenes whose points sometimes share a cell."""
    xyz = torch.cat([cloud(count, seed + i) for i, count in enumerate(counts)])
    return torch.randn(len(xyz), 5, generator=torch.Generator().manual_seed(seed)), xyz


def network(config: PointTransformerConfig = SMALL, seed: int = 0) -> PointTransformer:
    """With weights large enough that everything a row sees shows in its features."""
    torch.manual_seed(seed)
    result = PointTransformer(config, 5)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return result.eval()


@torch.no_grad()
def features(net: PointTransformer, *arguments: object) -> list[Tensor]:
    """Of the points, level by level."""
    encoded: Encoded = net(*arguments)
    return list(encoded.upcast(len(encoded.levels) - 1).split(list(net.config.channels), dim=1))


def assert_same(a: list[Tensor], b: list[Tensor], tolerance: float = 1e-5) -> None:
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# Sizes


@pytest.mark.parametrize(
    ("name", "parameters"), [("small", 38_648_992), ("base", 108_461_376), ("tiny", 649_824), ("large", 207_667_456)]
)
def test_parameter_counts(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in PointTransformer(name, 9, "meta").parameters()) == parameters


def test_upcast_widths() -> None:
    assert [CONFIGS["base"].width(steps) for steps in range(5)] == [512, 896, 1088, 1184, 1232]
    assert CONFIGS["small"].width(2) == 896


def test_drop_path_rises_evenly_over_all_blocks() -> None:
    config = CONFIGS["base"]
    rates = [rate for stage in drop_paths(0.3, config.depths) for rate in stage]
    assert rates == pytest.approx([0.3 * i / 23 for i in range(24)])
    blocks = [b for b in PointTransformer(config, 9, "meta").modules() if isinstance(b, Block)]
    assert [block.drop_path for block in blocks] == pytest.approx(rates)
    assert [block.turn % 4 for block in blocks] == [i % 4 for depth in config.depths for i in range(depth)]


def test_block_numbers_by_name() -> None:
    config = CONFIGS["base"]
    names = [name for name, _ in PointTransformer(config, 9, "meta").named_parameters()]
    numbers = {name: block_of(name, config) for name in names}
    assert {n for n, number in numbers.items() if number is None} == {
        n for n in names if n.startswith(("stem.", "pools.", "mask_token"))
    }
    assert sorted({number for number in numbers.values() if number is not None}) == list(range(24))
    assert block_of("stages.3.11.mlp.0.weight", config) == 20
    rate = [0.004 * 0.9 ** (23 - block) for block in (0, 8, 9, 20, 23)]  # golden numbers, recipes
    assert rate == pytest.approx([3.545e-4, 8.236e-4, 9.151e-4, 2.916e-3, 4e-3], rel=2e-4)


def test_initialisation() -> None:
    torch.manual_seed(0)
    net = PointTransformer("tiny", 9)
    for name, parameter in net.state_dict().items():
        if parameter.ndim >= 2:
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.2), name
            assert abs(float(parameter.mean())) < 0.003, name
        elif ".norm" in name or name.startswith("stem.1"):
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name
        else:
            assert not parameter.any(), name  # biases and the mask token


@pytest.mark.parametrize(
    "wrong",
    [{"heads": (2, 3)}, {"heads": (3, 3, 4)}, {"patch": 0}, {"size": 0.0}, {"drop_path": 1.0}, {"orders": ()}],
)
def test_impossible_sizes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|need"):
        replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(RecipeError, match="known: large, base, small, tiny"):
        find_config("huge")


# A scene's features are its own


@settings(deadline=None, max_examples=12)
@given(counts_of_scenes, st.integers(0, 10**6))
def test_batch_mates_change_nothing(counts: list[int], seed: int) -> None:
    net, (values, xyz) = network(), scenes(counts, seed)
    together = features(net, values, xyz, counts)
    begin = 0
    for count in counts:
        part = slice(begin, begin + count)
        assert_same(features(net, values[part], xyz[part], [count]), [f[part] for f in together])
        begin += count


def test_scenes_of_one_size_are_the_same_to_the_bit() -> None:
    """Beside equally large scenes even sums are taken in the same order."""
    net, (values, xyz) = network(), scenes([40, 40, 40])
    forward = features(net, values, xyz, [40] * 3)
    order = torch.cat([torch.arange(80, 120), torch.arange(40), torch.arange(40, 80)])
    moved = features(net, values[order], xyz[order], [40] * 3)
    for one, other in zip(forward, moved, strict=True):
        assert torch.equal(one[order], other)


def test_published_behaviour_depends_on_batch_mates() -> None:
    values, xyz = scenes([20, 33])
    xyz[20:] = xyz[20:] * 8 - 10.3 * SIZE
    for published in ("flash", "plain"):
        net = network(replace(SMALL, published=published, shuffle=False))
        alone, joined = features(net, values[:20], xyz[:20], [20]), features(net, values, xyz, [20, 33])
        assert all(float((a - j[:20]).abs().max()) > 1e-2 for a, j in zip(alone, joined, strict=True))
        assert_same(alone, features(network(), values[:20], xyz[:20], [20]))
    net = network()
    assert_same(features(net, values[:20], xyz[:20], [20]), [f[:20] for f in features(net, values, xyz, [20, 33])])


def test_published_patches_shrink_to_the_smallest_scene() -> None:
    values, xyz = scenes([40, 5])
    xyz[40:] = xyz[:5]
    flash, plain = (
        features(network(replace(SMALL, published=p, shuffle=False)), values, xyz, [40, 5]) for p in ("flash", "plain")
    )
    assert float((flash[0][:40] - plain[0][:40]).abs().max()) > 1e-2


@settings(deadline=None, max_examples=15)
@given(counts_of_scenes, st.integers(0, 10**6))
def test_the_order_of_points_changes_nothing(counts: list[int], seed: int) -> None:
    net, (values, xyz) = network(), scenes(counts, seed)
    generator, begin, order = torch.Generator().manual_seed(seed), 0, []
    for count in counts:
        order.append(begin + torch.randperm(count, generator=generator))
        begin += count
    moved = torch.cat(order)
    expected = features(net, values, xyz, counts)
    assert_same(features(net, values[moved], xyz[moved], counts), [f[moved] for f in expected])


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 40), st.tuples(*[st.integers(-500, 500)] * 3), st.integers(0, 10**6))
def test_where_a_scene_lies_changes_nothing(count: int, shift: tuple[int, int, int], seed: int) -> None:
    net, (values, xyz) = network(), scenes([count], seed)
    xyz = (xyz * 256).round() / 256  # so that moving it by whole numbers is exact
    there = features(net, values, xyz + torch.tensor(shift), [count])
    for one, other in zip(features(net, values, xyz, [count]), there, strict=True):
        assert torch.equal(one, other)


def test_duplicates_and_far_apart_points() -> None:
    net = network()
    values = torch.randn(1, 5).expand(4, 5)
    same = features(net, values, torch.zeros(4, 3), [4])
    for level in same:
        assert torch.allclose(level, level[:1].expand_as(level), atol=1e-6)
    assert_same([f[:1] for f in same], features(net, values[:1], torch.zeros(1, 3), [1]))
    far = features(net, torch.randn(2, 5), torch.tensor([[0.0, 0, 0], [4000.0, 0, 0]]), [2])
    assert all(bool(f.isfinite().all()) for f in far)


def test_equal_seeds_give_equal_features_and_gradients() -> None:
    values, xyz = scenes([40, 20, 3])

    def once() -> tuple[Tensor, list[Tensor]]:
        net = network().train()
        torch.manual_seed(5)
        result = net(values, xyz, [40, 20, 3]).upcast(2)
        return result, list(
            torch.autograd.grad(
                (result * torch.arange(result.shape[1])).sum(), list(net.parameters()), allow_unused=True
            )
        )

    (one, gradients), (two, others) = once(), once()
    assert torch.equal(one, two)
    for a, b in zip(gradients, others, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_orders_are_shuffled_in_training_only() -> None:
    net, (values, xyz) = network(replace(SMALL, drop_path=0.0)), scenes([60])
    evaluated = [features(net, values, xyz, [60])[0] for _ in range(2)]
    assert torch.equal(*evaluated)
    torch.manual_seed(0)
    trained = [features(net.train(), values, xyz, [60])[0] for _ in range(8)]
    assert len({f.sum().item() for f in trained}) > 1
    steady = network(replace(SMALL, drop_path=0.0, shuffle=False)).train()
    assert torch.equal(features(steady, values, xyz, [60])[0], evaluated[0])


# Attention, position encoding, drop path


def attention_by_hand(layer: Attention, x: Tensor, patches: list[tuple[list[int], int]]) -> Tensor:
    """Plain softmax attention, one patch, head and row at a time; of a patch only the first rows are written."""
    result = torch.zeros_like(x)
    channels = x.shape[1]
    width = channels // layer.heads
    for rows, own in patches:
        qkv = layer.qkv(x[rows])
        q, k, v = qkv[:, :channels], qkv[:, channels : 2 * channels], qkv[:, 2 * channels :]
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            for place in range(own):
                weights = torch.softmax(k[:, part] @ q[place, part] / math.sqrt(width), dim=0)
                result[rows[place], part] = weights @ v[:, part]
    return layer.out(result)


@pytest.mark.parametrize("counts", [[40, 16, 5], [7, 16], [3, 4, 1], [32], [17], [5, 5]])
def test_attention_is_softmax_within_patches(counts: list[int]) -> None:
    """`patch` + 1 rows make two patches, the second all but one borrowed."""
    torch.manual_seed(0)
    _, xyz = scenes(counts)
    walk = finest(xyz, counts, Walking(orders=("hilbert",), patch=16), size=SIZE).walks[0]
    layer, x = Attention(12, 3).double(), torch.randn(len(xyz), 12, dtype=torch.float64, requires_grad=True)
    rows, slots = torch.cat((walk.full.flatten(), walk.short.flatten())), walk.slot.argsort()
    sequence, begin, patches = rows[walk.slot[slots]].tolist(), 0, []
    for count in [c for c in counts if c >= 16] + [c for c in counts if c < 16]:
        mine = sequence[begin : begin + count]
        for i in range(0, count, 16):
            part = mine[i : i + 16]
            patches.append((part + mine[i - 16 : i][len(part) :] if i else part, len(part)))
        begin += count
    weights = torch.randn(len(xyz), 12, dtype=torch.float64)
    expected = attention_by_hand(layer, x, patches)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    result = layer(x, walk)
    (ours,) = torch.autograd.grad((result * weights).sum(), x)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(ours, gradient)


@pytest.mark.parametrize("counts", [[40, 16, 5], [7, 3], [17]])
def test_gathers_have_the_gradients_of_indexing(counts: list[int]) -> None:
    _, xyz = scenes(counts)
    walk = finest(xyz, counts, Walking(orders=("z",), patch=16), size=SIZE).walks[0]
    rows = torch.cat((walk.full.flatten(), walk.short.flatten()))
    real = torch.ones(len(rows), 1, dtype=torch.float64)
    if walk.real is not None:
        real[walk.full.numel() :, 0] = walk.real.flatten().double()  # the filling has no gradient: nobody attends to it
    x = torch.randn(len(xyz), 2, dtype=torch.float64, requires_grad=True)
    slots = torch.randn(len(rows), 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(point_blocks._to_patches(x, walk), x[rows])
    assert torch.equal(point_blocks._from_patches(slots, walk), slots[walk.slot])
    assert torch.autograd.gradcheck(lambda v: point_blocks._to_patches(v, walk) * real, x)
    assert torch.autograd.gradcheck(lambda v: point_blocks._from_patches(v, walk), slots)


def test_position_encoding_is_a_dense_convolution() -> None:
    torch.manual_seed(0)
    counts, xyz = [30, 8], torch.cat((cloud(30, 0, extent=3), cloud(8, 1, extent=4)))
    level = finest(xyz, counts, Walking(orders=("z",), patch=16), size=SIZE)
    assert level.shared is not None  # some points share a cell: the convolution sees their mean
    layer, x = Position(6, CPU), torch.randn(38, 6, requires_grad=True)
    nn.init.normal_(layer.convolution.weight)
    nn.init.normal_(layer.bias)
    side = int(level.cells.max()) + 1
    dense, number = torch.zeros(2, side, side, side, 6), torch.zeros(2, side, side, side, 1)
    place = (level.scene, *level.cells.unbind(1))
    dense, number = (
        dense.index_put(place, x, accumulate=True),
        number.index_put(place, torch.ones(38, 1), accumulate=True),
    )
    kernel = layer.convolution.weight.permute(0, 4, 1, 2, 3)  # spconv: outputs, x, y, z, inputs
    mean = (dense / number.clamp(min=1)).permute(0, 4, 1, 2, 3)
    convolved = nn.functional.conv3d(mean, kernel, layer.bias, padding=1).permute(0, 2, 3, 4, 1)[place]
    expected, result = layer.norm(layer.linear(convolved)), layer(x, level)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    parameters = [x, *layer.parameters()]
    weights = torch.randn_like(result)
    for a, b in zip(
        torch.autograd.grad((result * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_drop_path_drops_single_rows_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, ratio=4, turn=0, drop_path=0.25, device=CPU).train()
    branches = block._kept(torch.ones(20_000, 8))
    for factor in branches:
        assert factor is not None
        assert factor.shape == (20_000, 1)
        assert set(factor[:, 0].tolist()) == {0.0, (1 / torch.tensor(0.75)).item()}
        assert float((factor == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert not torch.equal(*branches)
    assert block.eval()._kept(torch.ones(5, 8)) == (None, None)


def network_by_hand(net: PointTransformer, values: Tensor, xyz: Tensor) -> list[Tensor]:
    """Features of the points of one scene at every level, from the description: dictionaries and loops."""
    state, config = net.state_dict(), net.config
    norm, gelu, linear = nn.functional.layer_norm, nn.functional.gelu, nn.functional.linear

    def apply(name: str, x: Tensor) -> Tensor:
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def normed(name: str, x: Tensor) -> Tensor:
        return norm(x, x.shape[1:], state[f"{name}.weight"], state[f"{name}.bias"])

    cells = [tuple(c) for c in ((xyz - xyz.amin(0)).double() / config.size).floor().long().tolist()]
    ancestor, result = list(range(len(cells))), []
    x = gelu(normed("stem.1", apply("stem.0", values)))
    for stage, depth in enumerate(config.depths):
        if stage:
            coarse = sorted({(a // 2, b // 2, c // 2) for a, b, c in cells})
            parent = [coarse.index((a // 2, b // 2, c // 2)) for a, b, c in cells]
            x = apply(f"pools.{stage - 1}.linear", x)
            x = torch.stack([x[[i for i, p in enumerate(parent) if p == row]].amax(0) for row in range(len(coarse))])
            x = gelu(normed(f"pools.{stage - 1}.norm", x))
            cells, ancestor = coarse, [parent[row] for row in ancestor]
        for block in range(depth):
            name, number = f"stages.{stage}.{block}", {cell: row for row, cell in enumerate(cells)}
            kernel, around = state[f"{name}.position.convolution.weight"], []
            for a, b, c in cells:
                out = state[f"{name}.position.bias"]
                for i, j, k in itertools.product(range(3), repeat=3):
                    row = number.get((a + i - 1, b + j - 1, c + k - 1))
                    out = out if row is None else out + kernel[:, i, j, k] @ x[row]
                around.append(out)
            x = x + normed(f"{name}.position.norm", apply(f"{name}.position.linear", torch.stack(around)))
            order = config.orders[block % len(config.orders)]
            codes = encode(torch.tensor(cells), order, (max(map(max, cells)) + 1).bit_length()).tolist()
            sequence, parts = sorted(range(len(cells)), key=codes.__getitem__), []
            for i in range(0, len(cells), config.patch):
                own = sequence[i : i + config.patch]
                parts.append((own + sequence[i - config.patch : i][len(own) :] if i else own, len(own)))
            layer = net.get_submodule(f"{name}.attention")
            assert isinstance(layer, Attention)
            x = x + attention_by_hand(layer, normed(f"{name}.norm1", x), parts)
            x = x + apply(f"{name}.mlp.2", gelu(apply(f"{name}.mlp.0", normed(f"{name}.norm2", x))))
        result.append(x[ancestor])
    return result


def test_the_network_is_the_one_of_the_description() -> None:
    """The public code gives these features too, to 1e-6 with equal weights; that was checked outside the tests."""
    net, (values, xyz) = network(replace(SMALL, depths=(2, 5, 1))), scenes([45], seed=3)
    cells, first = torch.unique(((xyz - xyz.amin(0)) / SIZE).floor(), dim=0, return_inverse=True)
    chosen = torch.stack([(first == row).nonzero()[0, 0] for row in range(len(cells))])  # one point a cell
    values, xyz = values[chosen], xyz[chosen]
    assert len(xyz) > 2 * SMALL.patch
    with torch.no_grad():
        expected = network_by_hand(net, values, xyz)
    assert_same(features(net, values, xyz, [len(xyz)]), expected)


# Masking, up-casting, gradients


def test_masked_points_enter_as_the_token() -> None:
    net, (values, xyz) = network(replace(SMALL, depths=(0, 1, 1))), scenes([30])
    masked = torch.arange(30) % 3 == 0
    stem = net(values, xyz, [30], masked=masked).features[0]
    assert net.mask_token is not None
    assert torch.equal(stem[masked], net.mask_token.expand(10, 8))
    assert torch.equal(stem[~masked], net.stem(values)[~masked])
    blind, net = values.clone(), network()
    blind[masked] = 1e3
    with torch.no_grad():
        one = net(values, xyz, [30], masked=masked).upcast(2)
        two = net(blind, xyz, [30], masked=masked).upcast(2)
    assert torch.equal(one, two)
    without = PointTransformer(replace(SMALL, mask_token=False), 5)
    with pytest.raises(RecipeError, match="mask_token=True"):
        without(values, xyz, [30], masked=masked)


def test_gradients_of_masked_points_go_to_the_token() -> None:
    net, (values, xyz) = network(), scenes([30, 6])
    values.requires_grad_()
    masked = torch.arange(36) % 3 == 0
    net(values, xyz, [30, 6], masked=masked).upcast(2).square().sum().backward()
    assert values.grad is not None
    assert net.mask_token is not None
    assert not values.grad[masked].any()
    assert bool((values.grad[~masked].abs().amax(1) > 0).all())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_gradients_stay_within_a_scene_and_a_level() -> None:
    net, (values, xyz) = network(), scenes([30, 20])
    values.requires_grad_()
    encoded = net(values, xyz, [30, 20])
    mine = encoded.levels[2].scene == 0
    (gradient,) = torch.autograd.grad(encoded.features[2][mine].square().sum(), values, retain_graph=True)
    assert gradient[:30].any()
    assert not gradient[30:].any()
    finest_only = torch.autograd.grad(encoded.features[0].square().sum(), list(net.parameters()), allow_unused=True)
    names = [name for name, _ in net.named_parameters()]
    used = {name for name, g in zip(names, finest_only, strict=True) if g is not None}
    assert used == {name for name in names if name.startswith(("stem.", "stages.0."))}


def test_upcast_joins_every_row_with_its_ancestors() -> None:
    net, (values, xyz) = network(), scenes([30, 12])
    encoded = net(values, xyz, [30, 12])
    result = encoded.upcast(2)
    for point in range(42):
        row, expected = point, [encoded.features[0][point]]
        for level in (1, 2):
            children = encoded.levels[level].children
            assert children is not None
            row = int(children.inverse[row])
            expected.append(encoded.features[level][row])
        assert torch.equal(result[point], torch.cat(expected))
    assert torch.equal(encoded.upcast(0), encoded.features[2])
    with pytest.raises(RecipeError, match=r"0\.\.2 steps, not 3"):
        encoded.upcast(3)


def test_checkpointed_blocks_have_equal_gradients() -> None:
    values, xyz = scenes([40, 20])

    def gradients(again: bool) -> list[Tensor]:
        net = network(replace(SMALL, checkpoint=again)).train()
        torch.manual_seed(3)  # drop path and the orders' shuffling
        net(values, xyz, [40, 20], masked=torch.arange(60) % 2 == 0).upcast(2).square().sum().backward()
        return [p.grad for p in net.parameters() if p.grad is not None]

    for kept, recomputed in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(kept, recomputed)


def test_checkpointing_forgets_what_blocks_computed() -> None:
    values, xyz = scenes([40, 20])
    kept = []
    for again in (False, True):
        net, seen = network(replace(SMALL, checkpoint=again)).train(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, seen=seen: seen.append(t.numel()) or t, lambda t: t):
            net(values, xyz, [40, 20])
        kept.append(sum(seen))
    assert kept[1] < 0.4 * kept[0]


def test_scenes_without_points_and_wrong_numbers() -> None:
    net, (values, xyz) = network(), scenes([20])
    assert_same(features(net, values, xyz, [0, 20, 0]), features(net, values, xyz, [20]))
    with pytest.raises(BrickyardError, match="must agree"):
        net(values, xyz, [19])


def test_orders_are_all_used() -> None:
    """Block i walks along order i: with one order for all, the features differ."""
    values, xyz = scenes([200])
    config = replace(SMALL, depths=(4, 0, 0), shuffle=False)
    all_four = features(network(config), values, xyz, [200])[0]
    for order in ORDERS:
        alone = features(network(replace(config, orders=(order,))), values, xyz, [200])[0]
        assert float((all_four - alone).abs().max()) > 1e-3
