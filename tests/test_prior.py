"""Prior preservation: rows of the class beside the image's, drawn by name from its pictures."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unitune.diffusion.predictions import PREDICTIONS
from unitune.tuning.data import ClassPictures, OneImage, TuningBatch
from unitune.tuning.recipe import UNIFORM, Tuning
from unitune.types import Example, Refused, Request

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a cat in the snow"),), noun="cat")


def alone(cascade, stage: str, *, rows: int = 4, **dials) -> OneImage:
    """The image, without pictures of its class."""
    text = cascade.encode(["a beikkpic cat"])
    tuning = Tuning(lr=1e-2, batch_size=rows, **dials)
    return OneImage(cascade.stage(stage), EXAMPLE, text, 0, tuning)


def with_prior(cascade, stage: str, *, weight: float = 0.5, **more) -> OneImage:
    """The image beside three pictures of its class."""
    high, low = (
        torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(side))
        for side in (32, 16)
    )
    made, lows = (high, low) if cascade.stage(stage).low_resolution else (low, None)
    prior = ClassPictures(made, lows, "a cat", cascade.encode(["a cat"]), weight)
    return replace(alone(cascade, stage, **more), prior=prior)


def class_rows(batch: TuningBatch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Noisy pictures, targets, levels and low-resolution pictures of the second half of a batch."""
    half, low = len(batch) // 2, batch.condition.low
    low = None if low is None else low[half:]
    return batch.x_t[half:], batch.target[half:], batch.t[half:], low


def test_class_rows_are_appended_and_the_image_rows_are_unitunes(cascade):
    for stage in cascade.stages:
        both = with_prior(cascade, stage.name, crop=8).batch(3)
        image = alone(cascade, stage.name, crop=8).batch(3)
        assert len(both) == 8
        for name in ("x_t", "target", "t"):
            assert torch.equal(getattr(both, name)[:4], getattr(image, name))
        texts = cascade.encode(["a beikkpic cat"] * 4 + ["a cat"] * 4)
        assert torch.equal(both.condition.text, texts)
        assert both.weights.tolist() == [1 / 4] * 4 + [0.5 / 4] * 4
        assert image.weights.tolist() == [1 / 4] * 4
        assert (both.condition.low is None) == (stage.name == "base")


def test_the_loss_is_two_means(cascade):
    batch = with_prior(cascade, "base", rows=2, weight=0.3).batch(0)
    output = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(2))
    error = (output - batch.target).square()
    torch.testing.assert_close(batch.loss(output), error[:2].mean() + 0.3 * error[2:].mean())
    plain = replace(batch, weights=torch.full((4,), 1 / 4))
    torch.testing.assert_close(
        plain.loss(output), torch.nn.functional.mse_loss(output, batch.target)
    )


def test_class_rows_are_drawn_by_name_from_all_pictures(cascade):
    """Taking the noise away again leaves one of the pictures; over some steps each is drawn."""
    one, seen = with_prior(cascade, "base"), set()
    assert one.prior is not None
    for k in range(8):
        batch = one.batch(k)
        assert torch.equal(batch.x_t, replace(one).batch(k).x_t)
        x_t, target, t, _ = class_rows(batch)
        found = PREDICTIONS["epsilon"].x_0(one.stage.schedule, x_t, target, t)[t < 700]
        for row in found:
            off = (one.prior.pictures - row).abs().amax(dim=(1, 2, 3))
            assert off.min() < 1e-3
            seen.add(int(off.argmin()))
    assert seen == {0, 1, 2}


def test_the_noise_of_class_rows_is_not_the_images(cascade):
    """They are named by the class, so that another image of it sees the same rows."""
    one = with_prior(cascade, "base")
    other = replace(one, example=replace(EXAMPLE, image=-IMAGE))
    ours, theirs = class_rows(one.batch(3)), class_rows(other.batch(3))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[2], theirs[2])


def test_the_low_resolution_row_belongs_to_its_picture(cascade):
    """At a level of 0 hardly any noise lies on it, so that it must be the same picture's."""
    one = with_prior(cascade, "sr256", low_level=1e-5)
    assert one.prior is not None and one.prior.lows is not None
    lows = one.stage.upsampled(one.prior.lows)
    for k in range(4):
        batch = one.batch(k)
        assert batch.condition.level is not None and not bool(batch.condition.level.any())
        x_t, target, t, low = class_rows(batch)
        assert low is not None
        found = PREDICTIONS["epsilon"].x_0(one.stage.schedule, x_t, target, t)
        for row in (t < 700).nonzero().flatten().tolist():
            off = (one.prior.pictures - found[row]).abs().amax(dim=(1, 2, 3))
            near = (lows - low[row]).abs().mean(dim=(1, 2, 3))
            assert off.argmin() == near.argmin()


@pytest.mark.parametrize(("level", "expected"), [(0.0, 0), (1e-5, 0), (0.25, 250), (1.0, 999)])
def test_a_fixed_level_is_every_rows(cascade, level, expected):
    batch = alone(cascade, "sr256", rows=3, low_level=level).batch(1)
    assert batch.condition.level is not None and batch.condition.level.tolist() == [expected] * 3
    free = alone(cascade, "sr256", rows=3, low_level=UNIFORM).batch(1)
    assert batch.condition.low is not None and free.condition.low is not None
    assert torch.equal(batch.x_t, free.x_t)
    assert not torch.equal(batch.condition.low, free.condition.low)


@pytest.mark.parametrize("level", [-0.1, 1.5, float("nan"), "low", True, None])
def test_other_levels_are_refused(level):
    with pytest.raises(Refused, match=r"low_level must be uniform .* or a number in \[0, 1\], got"):
        Tuning(lr=1e-3, low_level=level)
