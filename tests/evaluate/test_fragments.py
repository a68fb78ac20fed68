"""Prediction by fragments: every raw point speaks for itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.evaluate.fragments import INDOOR, OUTDOOR, PLAIN, Classify, Variant, predict, vary
from brickyard.train.clouds import Cloud, join_clouds
from brickyard.train.students.base import Rows
from brickyard.train.voxels import representatives

CLASSES = 4


def cloud(points: int, seed: int, spread: float = 1.0) -> Cloud:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=generator) * spread
    normal = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)
    color = torch.rand(points, 3, generator=generator)
    return Cloud(key="toy/0", domain="indoor", xyz=xyz, values={"color": color, "normal": normal})


def by_colour(size: float) -> Classify:
    """A network that tells a point's class by its own colour, one point a voxel."""

    def classify(clouds: Sequence[Cloud], turn: int) -> Rows:
        joined = join_clouds(clouds, ("color",), "cpu").centred()
        inverse, chosen = representatives(joined.cell_codes(joined.cells(size)), turn)
        logits = torch.nn.functional.one_hot((joined.values["color"][chosen, 0] * CLASSES).long(), CLASSES) * 5.0
        return Rows(features=logits, inverse=inverse, representative=chosen)

    return classify


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 99), st.sampled_from([0.05, 0.3, 0.6]), st.sampled_from([PLAIN, INDOOR]))
def test_every_point_is_predicted_by_what_it_is(
    points: int, seed: int, size: float, variants: tuple[Variant, ...]
) -> None:
    scene = cloud(points, seed)
    found = predict(by_colour(size), scene, variants, most_turns=100)
    assert found.shared == 0 and int(found.votes.min()) >= len(variants)
    assert torch.equal(found.scores.argmax(1), (scene.values["color"][:, 0] * CLASSES).long())
    torch.testing.assert_close(found.scores.sum(1), found.votes.float())


def test_with_one_point_a_voxel_it_is_plain_inference() -> None:
    scene = cloud(50, 0, spread=100.0)
    classify = by_colour(0.01)
    rows = classify([scene], 0)
    assert len(rows.features) == 50
    found = predict(classify, scene)
    assert torch.equal(found.scores, rows.features.softmax(1)[rows.inverse]) and (found.votes == 1).all()


def test_turns_are_bounded_and_the_silent_take_their_voxels_scores() -> None:
    scene = cloud(30, 1)
    found = predict(by_colour(10.0), scene, most_turns=4)
    assert found.shared == 26 and (found.votes > 0).sum() == 4
    assert (found.scores.sum(1) > 0).all()
    spoke = torch.arange(4)
    assert torch.equal(found.scores[spoke].argmax(1), (scene.values["color"][spoke, 0] * CLASSES).long())
    average = predict(by_colour(10.0), scene, most_turns=4).scores[29]
    torch.testing.assert_close(average, found.scores[spoke].sum(0))


def test_variants_are_rigid_up_to_scale_and_take_normals_along() -> None:
    scene = cloud(20, 2)
    for variant in (*INDOOR, *OUTDOOR):
        shown = vary(scene, variant)
        torch.testing.assert_close(
            torch.cdist(shown.xyz, shown.xyz), torch.cdist(scene.xyz, scene.xyz) * variant.scale, atol=1e-4, rtol=1e-4
        )
        dot = ((shown.xyz - shown.xyz[:1]) * shown.values["normal"]).sum(1)
        torch.testing.assert_close(
            dot, ((scene.xyz - scene.xyz[:1]) * scene.values["normal"]).sum(1) * variant.scale, atol=1e-5, rtol=1e-4
        )
        assert torch.equal(shown.values["color"], scene.values["color"])
    assert len(INDOOR) == 13 and len(OUTDOOR) == 10
    assert len({tuple(vary(scene, v).xyz.flatten().tolist()) for v in INDOOR}) == 13
    assert len({tuple(vary(scene, v).xyz.flatten().tolist()) for v in OUTDOOR}) == 10
    turned = vary(Cloud(key="", domain="", xyz=torch.tensor([[1.0, 0, 0]]), values={}), Variant(turn=1))
    assert turned.xyz.tolist() == [[0, 1, 0]]
