"""The noise schedule against diffusers, and the paper's unit of a late start."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.schedule import Schedule, cosine_alpha_bar
from unitune.diffusion.steps import DDIM, DDPM, Transition
from unitune.types import Refused

COSINE = Schedule.cosine()


@pytest.fixture(scope="module")
def scaled_linear() -> Schedule:
    """Stable Diffusion 1.x's schedule."""
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return Schedule.variance_preserving(torch.cumprod(1 - scheduler.betas.double(), 0))


def theirs() -> DDPMScheduler:
    """Diffusers' scheduler with the cosine schedule in all its digits.

    Its own is multiplied in float32.
    """
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    scheduler.alphas_cumprod = COSINE.alpha_bar
    return scheduler


def images(count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, 3, 4, 4, generator=g).double(),
        torch.randn(count, 3, 4, 4, generator=g).double(),
        torch.tensor([0, 7, 250, 640, 900, 980])[:count],
    )


@pytest.mark.parametrize("T", [10, 1000])
def test_cosine_is_squaredcos_cap_v2(T: int):
    theirs = DDPMScheduler(
        num_train_timesteps=T, beta_schedule="squaredcos_cap_v2"
    ).alphas_cumprod.double()
    ours = Schedule.cosine(T).alpha_bar
    # Theirs multiplies in float32; the last level's beta .999 in float32 leaves 1 - beta with a
    # relative error of 6e-5.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)


def test_add_noise_is_diffusers():
    x_0, eps, t = images()
    torch.testing.assert_close(
        COSINE.add_noise(x_0, eps, t), theirs().add_noise(x_0, eps, t), rtol=0, atol=1e-12
    )


def test_v_is_diffusers_velocity():
    x_0, eps, t = images()
    torch.testing.assert_close(
        PREDICTIONS["v_prediction"].target(COSINE, x_0, eps, t),
        theirs().get_velocity(x_0, eps, t),
        rtol=0,
        atol=1e-12,
    )


def test_conversions_are_inverses():
    x_0, eps, t = images()
    x_t = COSINE.add_noise(x_0, eps, t)
    for got, wanted in (
        (PREDICTIONS["epsilon"].x_0(COSINE, x_t, eps, t), x_0),
        (
            PREDICTIONS["v_prediction"].x_0(
                COSINE, x_t, PREDICTIONS["v_prediction"].target(COSINE, x_0, eps, t), t
            ),
            x_0,
        ),
        (COSINE.eps_from_x_0(x_t, x_0, t), eps),
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_float32_keeps_digits_through_v_near_pure_noise():
    x_0, eps = (x.float() for x in images(1)[:2])
    t = torch.tensor([999])
    x_t = COSINE.add_noise(x_0, eps, t)
    torch.testing.assert_close(
        PREDICTIONS["v_prediction"].x_0(
            COSINE, x_t, PREDICTIONS["v_prediction"].target(COSINE, x_0, eps, t), t
        ),
        x_0,
        rtol=0,
        atol=1e-5,
    )


def test_minus_one_is_the_clean_image():
    x_0, eps, _ = images()
    assert torch.equal(COSINE.add_noise(x_0, eps, torch.full((6,), -1)), x_0)


def test_snr():
    _, _, t = images()
    torch.testing.assert_close(
        COSINE.snr(t), torch.stack([COSINE.alpha_bar[i] / (1 - COSINE.alpha_bar[i]) for i in t])
    )


# The paper's range of late starts: alpha_bar, log-SNR, and the level of equal log-SNR of Stable
# Diffusion's schedule.
@pytest.mark.parametrize(
    ("start", "alpha_bar", "log_snr", "level"),
    [
        (0.80, 0.0940, -2.27, 682),
        (0.85, 0.0537, -2.87, 756),
        (0.90, 0.0241, -3.70, 847),
        (0.95, 0.0061, -5.10, 977),
    ],
)
def test_starts_of_the_paper(
    scaled_linear: Schedule, start: float, alpha_bar: float, log_snr: float, level: int
):
    a = cosine_alpha_bar(start)
    assert a == pytest.approx(alpha_bar, abs=6e-5)
    assert math.log(a / (1 - a)) == pytest.approx(log_snr, abs=6e-3)
    assert abs(scaled_linear.level(start) - level) <= 2


def test_start_beyond_the_terminal_noise_is_its_last_level(scaled_linear: Schedule):
    assert cosine_alpha_bar(0.98) < scaled_linear.alpha_bar[-1]
    assert scaled_linear.level(0.98) == scaled_linear.level(1.0) == scaled_linear.T - 1


@pytest.mark.parametrize("T", [50, 1000])
def test_level_undoes_cosine_time(T: int):
    schedule = Schedule.cosine(T)
    assert [schedule.level((t + 1) / T) for t in range(T)] == list(range(T))


def test_level_is_monotone(scaled_linear: Schedule):
    for schedule in (COSINE, scaled_linear):
        levels = [schedule.level(k / 200) for k in range(1, 201)]
        assert levels == sorted(levels) and levels[-1] == schedule.T - 1
        assert len(set(levels)) > 150


@pytest.mark.parametrize("start", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_start_out_of_range_is_refused(start: float):
    with pytest.raises(Refused, match=r"\(0, 1\]"):
        COSINE.level(start)


@pytest.mark.parametrize(
    "alpha_bar",
    [
        torch.tensor([0.9, 0.5]),
        torch.tensor([0.5, 0.9]).double(),
        torch.tensor([1.0, 0.5]).double(),
        torch.tensor([0.5, 0.0]).double(),
        torch.ones(2, 2).double() / 2,
    ],
)
def test_what_is_no_schedule_is_refused(alpha_bar: torch.Tensor):
    with pytest.raises((ValueError, TypeError)):
        Schedule.variance_preserving(alpha_bar)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_is_diffusers(shift: float):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    sigma = Schedule.flow_matching(shift=shift).sigma
    # Theirs falls, ours rises; their last level is pure noise, where ours keeps a little.
    torch.testing.assert_close(sigma[:-1], theirs.sigmas.flip(0)[:-1].double(), rtol=0, atol=1e-6)
    assert 0.9989 < float(sigma[-1]) < 1


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_every_prediction_gives_x_0_back_and_weighs_its_error(kind: str):
    schedule = Schedule.flow_matching() if kind == "flow_prediction" else COSINE
    x_0, eps, t = images()
    predicted, x_t = PREDICTIONS[kind], schedule.add_noise(x_0, eps, t)
    out = predicted.target(schedule, x_0, eps, t)
    torch.testing.assert_close(predicted.x_0(schedule, x_t, out, t), x_0, rtol=0, atol=1e-9)
    off = predicted.x_0(schedule, x_t, out + 1, t) - x_0
    torch.testing.assert_close(off.square()[:, 0, 0, 0], 1 / predicted.gain(schedule, t))


def test_a_flow_starts_late_where_the_paper_would():
    schedule = Schedule.flow_matching()
    for start in (0.3, 0.8, 0.9):
        (snr,) = schedule.snr(torch.tensor([schedule.level(start)]))
        a = cosine_alpha_bar(start)
        assert math.log(float(snr)) == pytest.approx(math.log(a / (1 - a)), abs=0.02)


@pytest.mark.parametrize("step", [DDIM(), DDIM(1.0), DDPM()])
def test_steps_keep_the_marginals_of_either_schedule(step):
    """From x_t of a known x_0 a step with that x_0 gives x_s of it, with the right variance."""
    for schedule in (COSINE, Schedule.flow_matching()):
        t, s = torch.tensor([700]), torch.tensor([400])
        x_0 = torch.full((1, 1, 100, 100), 0.3, dtype=torch.float64)
        eps, noise = (
            torch.randn(x_0.shape, generator=torch.Generator().manual_seed(k)).double()
            for k in (0, 1)
        )
        x_s = step(schedule.add_noise(x_0, eps, t), x_0, Transition(schedule, t, s, noise))
        alpha, sigma = (float(value) for value in schedule.at(s))
        assert float(x_s.mean()) == pytest.approx(alpha * 0.3, abs=0.05 * sigma)
        assert float(x_s.std()) == pytest.approx(sigma, rel=0.03)
