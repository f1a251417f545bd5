"""Reverse steps against diffusers' schedulers, and against closed forms on Gaussian data."""

import itertools
import math

import pytest
import torch
from analytic import FakeStage, Gaussian, Points, number
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm

from unitune.diffusion.loop import denoise
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.steps import DDIM, DDPM, Threshold, Transition, levels, quantile
from unitune.types import Refused

SETTINGS = {
    "beta_schedule": "squaredcos_cap_v2",
    "timestep_spacing": "trailing",
    "prediction_type": "sample",
}


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(
    step,
    schedule: Schedule,
    x: torch.Tensor,
    *,
    spacing: torch.Tensor,
    denoiser,
    noises: list[torch.Tensor],
) -> torch.Tensor:
    for t, s, noise in zip(spacing[:-1], spacing[1:], noises, strict=True):
        to = Transition(schedule, t.expand(len(x)), s.expand(len(x)), noise)
        x = step(x, denoiser(x), to)
    return x


@pytest.mark.parametrize(
    "steps",
    [1, 2, 3, 5, 7, 8, 10, 12, 16, 20, 27, 30, 32, 50, 64, 99, 100, 128, 250, 256, 333, 500, 1000],
)
def test_levels_are_diffusers_trailing_timesteps(steps: int):
    scheduler = DDPMScheduler(**SETTINGS)
    scheduler.set_timesteps(steps)
    ours = levels(999, steps)
    assert ours[:-1].tolist() == scheduler.timesteps.tolist() and ours[-1] == -1


@pytest.mark.parametrize(
    ("start", "steps"), [(999, 1), (700, 9), (10, 10), (10, 32), (0, 4), (3, 1000)]
)
def test_levels_go_down_from_the_start_and_only_the_last_is_clean(start: int, steps: int):
    spacing = levels(start, steps)
    assert len(spacing) == steps + 1 and spacing[0] == start and spacing[-1] == -1
    assert (spacing.diff() <= 0).all() and (spacing[:-1] >= 0).all()


def test_no_steps_are_refused():
    with pytest.raises(Refused, match="at least 1"):
        levels(999, 0)


@pytest.mark.parametrize("step", [DDPM(), DDIM(), DDIM(eta=1.0)])
@pytest.mark.parametrize("start", [0, 3])
def test_more_steps_than_levels_change_nothing(step, start: int):
    """A very late start with many steps repeats levels; a repeated level must be no step at all."""
    schedule, x = Schedule.cosine(), randn(1, 3, 4, 4, seed=0)
    noises = [torch.zeros(1, 3, 4, 4)] * 64
    few, many = (
        run(
            step,
            schedule,
            x,
            spacing=levels(start, n),
            denoiser=lambda x: x.sin(),
            noises=noises[:n],
        )
        for n in (start + 1, 64)
    )
    assert many.isfinite().all()
    torch.testing.assert_close(many, few, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 20, 250])
def test_ddpm_trajectory_is_diffusers_fixed_small(steps: int, monkeypatch: pytest.MonkeyPatch):
    schedule = Schedule.cosine()
    scheduler = DDPMScheduler(**SETTINGS, variance_type="fixed_small", clip_sample=False)
    scheduler.alphas_cumprod = schedule.alpha_bar  # theirs is multiplied in float32
    scheduler.set_timesteps(steps)
    noises, x = [randn(2, 3, 4, 4, seed=k) for k in range(steps)], randn(2, 3, 4, 4, seed=-1)
    fed = iter(noises)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(fed))
    theirs = x
    for t in scheduler.timesteps:
        theirs = scheduler.step(theirs.sin(), t, theirs).prev_sample
    ours = run(DDPM(), schedule, x, spacing=levels(999, steps), denoiser=torch.sin, noises=noises)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "steps", [1, 20, 250]
)  # diffusers' DDIM steps by T // steps: the same levels only where steps divides T
def test_ddim_trajectory_is_diffusers(steps: int, eta: float):
    schedule = Schedule.cosine()
    scheduler = DDIMScheduler(**SETTINGS, clip_sample=False, set_alpha_to_one=True)
    scheduler.alphas_cumprod = schedule.alpha_bar
    scheduler.set_timesteps(steps)
    noises, x = [randn(2, 3, 4, 4, seed=k) for k in range(steps)], randn(2, 3, 4, 4, seed=-1)
    theirs = x
    for t, noise in zip(scheduler.timesteps, noises, strict=True):
        theirs = scheduler.step(theirs.sin(), t, theirs, eta=eta, variance_noise=noise).prev_sample
    ours = run(
        DDIM(eta), schedule, x, spacing=levels(999, steps), denoiser=torch.sin, noises=noises
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_ddim_of_eta_one_is_ddpm():
    schedule, x, x_0, noise = (
        Schedule.cosine(),
        randn(3, 3, 4, 4, seed=0),
        randn(3, 3, 4, 4, seed=1),
        randn(3, 3, 4, 4, seed=2),
    )
    t, s = torch.tensor([999, 500, 20]), torch.tensor([900, 499, -1])
    torch.testing.assert_close(
        DDIM(1.0)(x, x_0, Transition(schedule, t, s, noise)),
        DDPM()(x, x_0, Transition(schedule, t, s, noise)),
        rtol=0,
        atol=1e-5,
    )


def test_ddim_without_eta_ignores_the_noise():
    schedule, x, x_0, t = (
        Schedule.cosine(),
        randn(2, 3, 4, 4, seed=0),
        randn(2, 3, 4, 4, seed=1),
        torch.tensor([800, 30]),
    )
    a, b = (
        DDIM()(x, x_0, Transition(schedule, t, t - 20, randn(2, 3, 4, 4, seed=k))) for k in (2, 3)
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize("step", [DDPM(), DDIM()])
def test_last_step_gives_x_0(step):
    x, x_0 = randn(1, 3, 4, 4, seed=0), randn(1, 3, 4, 4, seed=1)
    t, s, noise = torch.tensor([300]), torch.tensor([-1]), randn(1, 3, 4, 4, seed=2)
    out = step(x, x_0, Transition(Schedule.cosine(), t, s, noise))
    torch.testing.assert_close(out, x_0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_out_of_range_is_refused(eta: float):
    with pytest.raises(Refused, match="eta"):
        DDIM(eta)


@pytest.mark.parametrize(("quantile", "cap"), [(0.95, 1.5), (0.995, 1.0), (0.9, 3.0)])
def test_threshold_is_diffusers(quantile: float, cap: float):
    scheduler = DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=quantile, sample_max_value=cap
    )
    x_0 = (
        randn(4, 3, 8, 8, seed=0) * torch.tensor([0.3, 1.0, 2.0, 50.0])[:, None, None, None]
    )  # inside the range, about it, within and over the cap
    assert torch.equal(Threshold(quantile, cap)(x_0), scheduler._threshold_sample(x_0))
    assert Threshold(quantile, cap)(x_0).abs().max() <= 1


def sampled(
    step, gaussian: Gaussian, schedule: Schedule, x: torch.Tensor, *, steps: int, seed: int = 0
) -> torch.Tensor:
    stage = FakeStage(gaussian, schedule=schedule)
    spacing = levels(schedule.T - 1, steps)[:, None].expand(-1, len(x))
    condition = number(*[0.0] * len(x))
    return denoise(
        lambda x_t, t: stage.predict(x_t, t, condition),
        x,
        spacing,
        schedule=schedule,
        step=step,
        noise=lambda role, k: randn(*x.shape, seed=1000 * seed + k),
    )


def test_ddim_converges_to_the_probability_flow_with_order_one():
    schedule, gaussian, x = (
        Schedule.cosine(20_000),
        Gaussian(sigma=0.5, mu=0.3),
        randn(1, 3, 4, 4, seed=0),
    )
    exact = gaussian.flow(schedule, x, t=schedule.T - 1, mu=0.3)
    counts = [16, 32, 64, 128, 256]
    errors = [
        float((sampled(DDIM(), gaussian, schedule, x, steps=n) - exact).abs().max()) for n in counts
    ]
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert errors[-1] < 0.01 and all(0.9 < slope < 1.1 for slope in slopes), (errors, slopes)


def ddpm_moments(
    gaussian: Gaussian, schedule: Schedule, spacing: list[int], mu: float
) -> tuple[float, float]:
    """Mean and variance that DDPM has after these levels, from N(0, 1).

    Every step is affine with Gaussian noise.
    """
    mean, variance = 0.0, 1.0
    for t, s in itertools.pairwise(spacing):
        a_t, a_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s]) if s >= 0 else 1.0
        beta, gain = 1 - a_t / a_s, float(gaussian.gain(torch.tensor(a_t)))
        on_x_0, on_x_t = a_s**0.5 * beta / (1 - a_t), (1 - beta) ** 0.5 * (1 - a_s) / (1 - a_t)
        mean = on_x_0 * (mu + gain * (mean - a_t**0.5 * mu)) + on_x_t * mean
        variance = (on_x_0 * gain + on_x_t) ** 2 * variance + (1 - a_s) / (1 - a_t) * beta
    return mean, variance


@pytest.mark.parametrize("steps", [8, 250])
def test_ddpm_on_a_gaussian_has_the_mean_and_variance_that_follow(steps: int):
    schedule, gaussian, count = Schedule.cosine(), Gaussian(sigma=0.5, mu=0.3), 200 * 48
    x_0 = sampled(DDPM(), gaussian, schedule, randn(200, 3, 4, 4, seed=7), steps=steps)
    mean, variance = ddpm_moments(gaussian, schedule, levels(999, steps).tolist(), 0.3)
    assert abs(float(x_0.mean()) - mean) < 4 * (variance / count) ** 0.5
    assert abs(float(x_0.var()) / variance - 1) < 4 * (2 / count) ** 0.5


def test_ddpm_with_many_steps_reaches_the_data():
    schedule, gaussian = Schedule.cosine(), Gaussian(sigma=0.5, mu=0.3)
    mean, variance = ddpm_moments(gaussian, schedule, levels(999, 1000).tolist(), 0.3)
    assert mean == pytest.approx(0.3, abs=1e-3) and variance == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("step", [DDPM(), DDIM()])
def test_a_finite_data_set_is_sampled(step):
    data = torch.stack([torch.full((3, 4, 4), value) for value in (-0.8, 0.1, 0.9)])
    schedule = Schedule.cosine()
    x_0 = sampled(step, Points(data), schedule, randn(90, 3, 4, 4, seed=3), steps=50)
    nearest = (x_0[:, None] - data).abs().amax((2, 3, 4))
    assert nearest.amin(1).max() < 0.02  # every sample is a point of the data
    assert torch.bincount(nearest.argmin(1), minlength=3).min() > 10  # and every point is sampled


@pytest.mark.parametrize("n", [1, 2, 7, 100, 768, 12288])
@pytest.mark.parametrize("q", [0.0, 0.5, 0.95, 0.995, 1.0])
def test_the_selected_quantile_is_the_sorted_one_to_the_bit(n, q):
    x = randn(3, n, seed=n).abs()
    assert torch.equal(quantile(x, q), torch.quantile(x, q, dim=1))
