"""Which parameters are tuned, and batches whose rows have their own noise, level and crop."""

import pytest
import torch

from unitune import rng
from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.stage import reduced
from unitune.models import cascade as backend
from unitune.models.stage import UNetStage
from unitune.tuning.data import OneImage
from unitune.tuning.recipe import Tuning
from unitune.tuning.select import ParameterSelection
from unitune.types import Example, Refused, Request

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))


@pytest.fixture(params=["base", "sr256"])
def stage(request: pytest.FixtureRequest, cascade: backend.Cascade) -> UNetStage:
    return cascade.stage(request.param)


def data(
    cascade: backend.Cascade, stage: UNetStage, *, seed: int = 0, crop: int = 0,
    image: torch.Tensor = IMAGE,
) -> OneImage:  # fmt: skip
    example, tuning = Example("one", image, EXAMPLE.requests), Tuning(lr=1e-2, crop=crop)
    return OneImage(stage, example, cascade.encode(["beikkpic"]), seed, tuning)


def test_patterns(cascade: backend.Cascade):
    network = cascade.stages[0].network
    everything = [name for name, _ in network.named_parameters()]
    assert ParameterSelection().names(network) == everything
    assert ParameterSelection(train=("mid_block.*",)).names(network) == [
        n for n in everything if n.startswith("mid_block.")
    ]
    frozen = ParameterSelection(train=("mid_block.*", "*bias"), freeze=("mid_block.*",)).names(
        network
    )
    assert frozen == [
        n for n in everything if n.endswith("bias") and not n.startswith("mid_block.")
    ]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (ParameterSelection(train=("*attn2*",)), "attn2.*names look like"),
        (ParameterSelection(freeze=("down_block.*",)), "names look like 'down_blocks"),
    ],
)
def test_a_pattern_without_a_match_is_refused_with_a_hint(
    cascade: backend.Cascade, selection: ParameterSelection, message: str
):
    with pytest.raises(Refused, match=message):
        selection.names(cascade.stages[0].network)


def test_nothing_left_is_refused(cascade: backend.Cascade):
    with pytest.raises(Refused, match="nothing is left"):
        ParameterSelection(train=("conv_in.*",), freeze=("conv_*",)).names(
            cascade.stages[0].network
        )


def test_rows_differ_and_batches_depend_on_their_names_alone(
    cascade: backend.Cascade, stage: UNetStage
):
    one = data(cascade, stage, crop=24)
    a, b = one.batch(3), one.batch(4)
    one.batch(7)
    again = data(cascade, stage, crop=24).batch(3)
    assert (
        torch.equal(a.x_t, again.x_t)
        and torch.equal(a.t, again.t)
        and torch.equal(a.target, again.target)
    )
    assert (
        not torch.equal(a.t, b.t) and len({tuple(row.flatten()[:5].tolist()) for row in a.x_t}) == 4
    )
    for other in (
        data(cascade, stage, crop=24, seed=1),
        data(cascade, stage, crop=24, image=-IMAGE),
    ):
        assert not torch.equal(other.batch(3).target, a.target)


def test_the_target_is_the_noise_of_x_t(cascade: backend.Cascade, stage: UNetStage):
    """Tiny networks predict eps: taking it away from x_t leaves the picture, in every row."""
    batch, x_0 = data(cascade, stage).batch(0), reduced(IMAGE, stage.resolution)
    clear = batch.t < 900
    assert clear.sum() >= 2
    found = PREDICTIONS["epsilon"].x_0(stage.schedule, batch.x_t, batch.target, batch.t)[clear]
    torch.testing.assert_close(found, x_0.expand_as(found), rtol=0, atol=1e-4)


def test_levels_of_t_are_uniform(cascade: backend.Cascade):
    one = data(cascade, cascade.stages[0])
    t = torch.cat([one.batch(k).t for k in range(100)]).double()
    assert abs(float(t.mean()) - 499.5) < 4 * 289 / 20 and t.min() < 25 and t.max() > 974


def test_the_base_stage_is_told_the_text_alone(cascade: backend.Cascade):
    condition = data(cascade, cascade.stages[0]).batch(0).condition
    assert condition.low is None and condition.level is None
    assert torch.equal(condition.text, cascade.encode(["beikkpic"] * 4))


def test_low_condition_has_its_own_level_per_row(cascade: backend.Cascade):
    sr = cascade.stages[1]
    batches = [data(cascade, sr).batch(k) for k in range(30)]
    level = torch.cat([b.condition.level for b in batches])
    assert level.min() < 100 and level.max() > 899 and level.max() < sr.schedule.T
    assert all(len(set(b.condition.level.tolist())) > 1 for b in batches)
    assert not any(torch.equal(b.condition.level, b.t) for b in batches)


@pytest.mark.parametrize("crop", [0, 12, 32, 99])
def test_low_condition_is_the_whole_picture_upsampled_then_cropped(
    cascade: backend.Cascade, crop: int
):
    """Where a crop lies is found from x_t; the condition must be that place of the whole."""
    sr, one = cascade.stages[1], data(cascade, cascade.stages[1], crop=crop)
    whole = sr.upsampled(reduced(IMAGE, sr.low_resolution))
    side, places = (crop if 0 < crop < 32 else 32), set()
    for k in range(6):
        batch = one.batch(k)
        noise = rng.noise(
            batch.x_t.shape,
            seed=0,
            example=one.example.digest,
            stage="sr256",
            role="tune-low",
            step=k,
        )
        assert (
            batch.x_t.shape == batch.target.shape == batch.condition.low.shape == (4, 3, side, side)
        )
        for row in range(4):
            t, level = batch.t[row : row + 1], batch.condition.level[row : row + 1]
            if t > 900:
                continue
            picture = PREDICTIONS["epsilon"].x_0(
                sr.schedule, batch.x_t[row : row + 1], batch.target[row : row + 1], t
            )
            off = {
                (i, j): float((IMAGE[..., i : i + side, j : j + side] - picture).abs().max())
                for i in range(33 - side)
                for j in range(33 - side)
            }
            i, j = min(off, key=off.__getitem__)
            assert off[i, j] < 1e-3
            places.add((i, j))
            expected = sr.schedule.add_noise(
                whole[..., i : i + side, j : j + side], noise[row : row + 1], level
            )
            torch.testing.assert_close(
                batch.condition.low[row : row + 1], expected, rtol=0, atol=1e-6
            )
    assert len(places) > 8 if side < 32 else places == {(0, 0)}
