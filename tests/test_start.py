"""Late starts: the base image noised to the level of the paper's time."""

import pytest
import torch
from analytic import FakeCascade, FakeStage, Gaussian, Points

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.schedule import Schedule, cosine_alpha_bar
from unitune.diffusion.steps import DDIM, DDPM, Step
from unitune.types import Draw, Example, Refused, Request, Tuned

COSINE = Schedule.cosine()
GAUSSIAN, ANCESTRAL = Gaussian(mu=0.2), DDPM()


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def levels(times: list[float]) -> torch.Tensor:
    return torch.tensor([COSINE.level(time) for time in times])


@pytest.mark.parametrize("time", [0.3, 0.8, 0.98])
def test_first_image_has_the_mean_and_variance_of_the_forward_process(time: float):
    base, noise = torch.linspace(-1, 1, 48).view(1, 3, 4, 4), randn(5_000, 3, 4, 4, seed=0)
    x = COSINE.first_image(base, noise, levels([time] * len(noise)))
    a = cosine_alpha_bar(time)
    torch.testing.assert_close(x.mean(0), a**0.5 * base[0], rtol=0, atol=5 / len(noise) ** 0.5)
    torch.testing.assert_close(
        x.var(0), torch.full((3, 4, 4), 1 - a), rtol=5 * (2 / len(noise)) ** 0.5, atol=0
    )


def test_start_one_is_pure_noise():
    base, noise = torch.full((1, 3, 4, 4), 1e6), randn(2, 3, 4, 4, seed=0)
    assert torch.equal(COSINE.first_image(base, noise, levels([1.0, 1.0])), noise)


def test_items_have_their_own_starts():
    base, noise, times = randn(1, 3, 4, 4, seed=1), randn(3, 3, 4, 4, seed=0), [1.0, 0.9, 0.4]
    t = levels(times)
    assert t.tolist() == [999, 899, 399]
    alone = [COSINE.first_image(base, noise[i : i + 1], t[i : i + 1]) for i in range(3)]
    assert torch.equal(COSINE.first_image(base, noise, t), torch.cat(alone))


def sample(
    times: list[float],
    *,
    steps: int = 6,
    denoiser: Gaussian | Points = GAUSSIAN,
    step: Step = ANCESTRAL,
    base: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sample with these starts in one batch; the seed of an item is named by its start."""
    image = randn(1, 3, 4, 4, seed=5).clamp(-1, 1) if base is None else base
    example = Example("one", image, (Request("a dog"),))
    draws = [Draw(example.requests[0], seed=round(100 * time), start=time) for time in times]
    sampler = Sampler("test", guidance=Guidance(1.0), steps=steps, step=step)
    return torch.cat(
        [
            edit.image
            for edit in sampler(
                FakeCascade([FakeStage(denoiser)]), example, tuned=Tuned(), draws=draws
            )
        ]
    )


@pytest.mark.parametrize("step", [DDPM(), DDIM()])
def test_starts_in_one_batch_equal_one_by_one(step):
    times = [1.0, 0.95, 0.8, 0.3]
    together = sample(times, step=step)
    torch.testing.assert_close(
        together, torch.cat([sample([time], step=step) for time in times]), rtol=0, atol=1e-6
    )


def test_pure_noise_knows_nothing_of_the_base_image():
    assert torch.equal(
        sample([1.0], base=torch.ones(1, 3, 4, 4)), sample([1.0], base=-torch.ones(1, 3, 4, 4))
    )


@pytest.mark.parametrize(("time", "steps"), [(0.001, 32), (0.01, 32), (0.02, 200)])
def test_the_latest_start_returns_the_base_image(time: float, steps: int):
    """With fewer levels left than steps, the base image comes back (nearly) as it is, not NaN."""
    image = randn(1, 3, 4, 4, seed=5).clamp(-1, 1)
    out = sample([time], steps=steps, denoiser=Points(torch.cat([image, -image])), base=image)
    torch.testing.assert_close(out, image, rtol=0, atol=1e-3)


@pytest.mark.parametrize("time", [0.4, 0.8, 0.95])
def test_how_much_of_the_base_image_a_late_start_keeps(time: float):
    """DDIM carries each pixel's quantile from level t to the data: the mean is known."""
    mu, base, gaussian, a, count = -0.5, 0.9, Gaussian(mu=-0.5), cosine_alpha_bar(time), 96
    example = Example("one", torch.full((1, 3, 4, 4), base), (Request("a dog"),))
    sampler = Sampler("test", guidance=Guidance(1.0), steps=200, step=DDIM(), start=time)
    draws = [Draw(example.requests[0], seed) for seed in range(count)]
    out = torch.cat(
        [
            edit.image
            for edit in sampler(
                FakeCascade([FakeStage(gaussian)]), example, tuned=Tuned(), draws=draws
            )
        ]
    )
    scale = gaussian.sigma / (a * gaussian.sigma**2 + 1 - a) ** 0.5
    assert float(out.mean()) == pytest.approx(
        mu + scale * a**0.5 * (base - mu),
        abs=0.02 + 4 * scale * (1 - a) ** 0.5 / (48 * count) ** 0.5,
    )


@pytest.mark.parametrize("time", [0.0, 1.1, float("nan")])
def test_a_draw_out_of_range_is_refused(time: float):
    with pytest.raises(Refused, match="start"):
        levels([time])
