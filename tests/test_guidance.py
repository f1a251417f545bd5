"""Guidance: closed forms on Gaussians, what it costs, and whose prediction the reference is."""

import itertools
from functools import partial

import pytest
import torch
from analytic import FakeCascade, FakeStage, Gaussian, number

from unitune.diffusion.guidance import Guidance, conditioned, guide, guided, guided_at_once
from unitune.diffusion.hold import Item
from unitune.diffusion.loop import denoise
from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import StageRun, StageSampling
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.steps import DDIM, DDPM, Step, Transition, levels
from unitune.types import Draw, Example, Refused, Request, Tuned

STEPS = 10
ANCESTRAL = DDPM()


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(
    stage: FakeStage,
    *,
    texts: list[float],
    references: list[float],
    weight: list[float],
    from_base: bool = False,
    step: Step = ANCESTRAL,
) -> torch.Tensor:
    x = randn(1, 3, 4, 4, seed=1).expand(len(texts), -1, -1, -1)
    items = [Item(Request("a dog"), 0, w, 1.0, "a dog") for w in weight]
    stage_run = StageRun(
        stage,
        StageSampling(steps=STEPS, step=step),
        items,
        Example("one", x[:1], ()),
        condition=number(*texts),
        reference=number(*references),
        origin=x[:1],
        base=x[:1],
        reference_from_base=from_base,
    )
    return denoise(
        stage_run.denoiser(stage.predict),
        x,
        stage_run.levels,
        schedule=stage.schedule,
        step=step,
        noise=lambda role, k: randn(1, 3, 4, 4, seed=100 + k).expand(len(x), -1, -1, -1),
    )


def test_weight_one_is_the_plain_prediction_bitwise_and_costs_one_call():
    plain, x = FakeStage(Gaussian()), randn(1, 3, 4, 4, seed=1)
    for k, (t, s) in enumerate(itertools.pairwise(levels(999, STEPS)[:, None])):
        to = Transition(plain.schedule, t, s, noise=randn(1, 3, 4, 4, seed=100 + k))
        x = DDPM()(x, plain.predict(x, t, number(0.4)), to)
    for from_base in (False, True):
        stage = FakeStage(Gaussian())
        assert torch.equal(
            run(stage, texts=[0.4], references=[-5.0], weight=[1.0], from_base=from_base), x
        )
        assert stage.calls == [1] * STEPS


def test_other_weights_cost_one_call_of_twice_the_rows():
    stage = FakeStage(Gaussian())
    run(stage, texts=[0.4] * 3, references=[0.0] * 3, weight=[1.0, 1.0, 4.0])
    assert stage.calls == [6] * STEPS


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0, 32.0, -1.0])
def test_guidance_between_gaussians_is_a_gaussian_with_the_extrapolated_mean(weight: float):
    """x_0 is affine in the mean with one slope: pushing x_0 by w is pushing the mean by w."""
    pushed = run(FakeStage(Gaussian()), texts=[0.4], references=[-0.1], weight=[weight])
    moved = run(FakeStage(Gaussian()), texts=[-0.1 + weight * 0.5], references=[0.0], weight=[1.0])
    torch.testing.assert_close(pushed, moved, rtol=1e-4, atol=1e-5)


def test_x_0_and_eps_may_be_guided_alike():
    schedule, t, w = Schedule.cosine(), torch.tensor([300, 700]), torch.tensor([3.0, 7.5])
    x_t, eps, eps_ref = (randn(2, 3, 4, 4, seed=k).double() for k in range(3))
    imagen = w[:, None, None, None] * eps + (1 - w[:, None, None, None]) * eps_ref
    through_x_0 = guide(
        PREDICTIONS["epsilon"].x_0(schedule, x_t, eps, t),
        PREDICTIONS["epsilon"].x_0(schedule, x_t, eps_ref, t),
        w,
    )
    torch.testing.assert_close(
        through_x_0, PREDICTIONS["epsilon"].x_0(schedule, x_t, imagen, t), rtol=0, atol=1e-9
    )


def test_one_call_of_twice_the_rows_gives_what_two_calls_give():
    stage, x, t = FakeStage(Gaussian()), randn(2, 3, 4, 4, seed=1), torch.tensor([900, 400])
    condition, reference = number(0.4, 0.2), number(0.0, -0.1)
    push = partial(Guidance().push, weight=torch.tensor([3.0, 5.0]))
    twice = guided(
        conditioned(stage.predict, condition), conditioned(stage.predict, reference), push
    )
    once = guided_at_once(conditioned(stage.predict, condition + reference), push)
    assert torch.equal(once(x, t), twice(x, t)) and stage.calls == [4, 2, 2]


def test_weights_per_item():
    together = run(
        FakeStage(Gaussian()),
        texts=[0.4, 0.4, 0.2],
        references=[0.0, -0.3, 0.0],
        weight=[1.0, 4.0, 0.0],
    )
    alone = [
        run(FakeStage(Gaussian()), texts=[m], references=[r], weight=[w])
        for m, r, w in ((0.4, 0.0, 1.0), (0.4, -0.3, 4.0), (0.2, 0.0, 0.0))
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().min() > 0.1


def test_reference_of_the_base_weights_takes_two_calls_and_their_context():
    stage = FakeStage(Gaussian(), base=Gaussian(mu=-0.2))
    out = run(stage, texts=[0.4], references=[9.0], weight=[3.0], from_base=True)
    assert stage.calls == [1] * (2 * STEPS) and stage.base_calls == STEPS and not stage.in_base
    moved = run(FakeStage(Gaussian()), texts=[-0.2 + 3.0 * 0.6], references=[0.0], weight=[1.0])
    torch.testing.assert_close(out, moved, rtol=1e-4, atol=1e-5)


def sample(
    guidance: Guidance,
    *,
    meaning: dict[str, float],
    caption: str = "",
    stage: FakeStage | None = None,
    reference: str = "tuned",
) -> tuple[torch.Tensor, FakeCascade]:
    cascade = FakeCascade([stage or FakeStage(Gaussian())], meaning)
    sampler = Sampler("test", steps=STEPS, guidance=guidance, step=DDIM(), reference=reference)
    example = Example("one", torch.zeros(1, 3, 4, 4), (Request("a dog"),), caption)
    return sampler(cascade, example, tuned=Tuned("beikkpic"), draws=[Draw(example.requests[0], 0)])[
        0
    ].image, cascade


@pytest.mark.parametrize(
    ("reference", "text"),
    [("", ""), ("{rare}", "beikkpic"), ("{caption}", "a cat in the city"), ("a photo", "a photo")],
)
def test_the_reference_prompt_is_used(reference: str, text: str):
    meaning = {"beikkpic a dog": 0.5, text: -0.3}
    pushed, cascade = sample(
        Guidance(4.0, reference=reference), meaning=meaning, caption="a cat in the city"
    )
    moved, _ = sample(Guidance(1.0), meaning={"beikkpic a dog": -0.3 + 4.0 * 0.8})
    torch.testing.assert_close(pushed, moved, rtol=1e-4, atol=1e-5)
    assert set(cascade.seen) == {"beikkpic a dog", text}


def test_sampler_passes_whose_weights_the_reference_has():
    stage = FakeStage(Gaussian(), base=Gaussian())
    sample(Guidance(4.0), meaning={}, stage=stage, reference="base")
    assert stage.base_calls == STEPS and len(stage.calls) == 2 * STEPS


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_weight_must_be_finite(weight: float):
    with pytest.raises(Refused, match="finite"):
        Guidance(weight)


def test_weights_must_be_known():
    with pytest.raises(Refused, match="tuned or base"):
        Sampler("test", reference="other")
