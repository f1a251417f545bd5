"""Inversion: closed form on Gaussian data, parity with diffusers, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import FakeStage, Gaussian, Points, number
from diffusers import DDIMInverseScheduler

from unitune.diffusion.hold import Item
from unitune.diffusion.sampling import StageRun, StageSampling
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.stage import Condition
from unitune.diffusion.steps import DDIM, DDPM, Step, levels
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.files import Model
from unitune.prompt_to_prompt.chains import Chains
from unitune.prompt_to_prompt.control import PromptToPrompt
from unitune.prompt_to_prompt.inversion import invert, reconstructed
from unitune.types import Example, Inactive, Refused, Request

X_0 = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
CPU = torch.device("cpu")
TEXT = number(0.3)
DETERMINISTIC = DDIM()


def falling(schedule: Schedule, steps: int) -> torch.Tensor:
    return levels(schedule.T - 1, steps)[:, None]


def test_many_steps_reach_the_noise_of_the_flow():
    gaussian = Gaussian(mu=0.3)
    stage = FakeStage(gaussian)
    way = invert(stage, X_0, levels=falling(stage.schedule, 500), condition=TEXT)
    torch.testing.assert_close(
        gaussian.flow(stage.schedule, way[0], t=999, mu=0.3), X_0, rtol=0, atol=0.02
    )
    assert len(way) == 501 and torch.equal(way[-1], X_0)


def test_rounds_converge_to_the_exact_inverse_of_every_step():
    stage = FakeStage(Gaussian())
    ts = falling(stage.schedule, 12)
    dB = [
        reconstructed(
            stage,
            invert(stage, X_0, levels=ts, condition=TEXT, rounds=r),
            levels=ts,
            condition=TEXT,
        )
        for r in (1, 2, 4, 40)
    ]
    assert dB[0] < dB[1] - 3 and dB[1] < dB[2] - 3 and dB[3] > 90


def test_levels_that_repeat_leave_the_picture():
    stage = FakeStage(Gaussian())
    ts = torch.tensor([[5], [5], [2], [2], [-1]])
    way = invert(stage, X_0, levels=ts, condition=TEXT)
    assert (
        torch.equal(way[0], way[1])
        and torch.equal(way[2], way[3])
        and not torch.equal(way[1], way[2])
    )


@pytest.mark.parametrize("kind", ["floyd", "sd15"])
def test_one_round_is_the_inverse_scheduler_of_diffusers(kind: str, tmp_path: Path):
    if kind == "floyd":
        stage = backend.load(
            "tiny", tiny.floyd(tmp_path), stages=("base", "sr256"), device=CPU, dtype=torch.float32
        ).stages[0]
        config: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2"}
    else:
        model = Model(kind, ("base",), "stable_diffusion", str(tiny.sd15(tmp_path)))
        stage = backend.build(model, device=CPU, dtype=torch.float32).stages[0]
        config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    x = torch.randn(1, stage.channels, 16, 16, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 77, tiny.WIDTH, generator=torch.Generator().manual_seed(1))
    scheduler = DDIMInverseScheduler(clip_sample=False, timestep_spacing="trailing", **config)
    scheduler.set_timesteps(10)
    mine = invert(stage, x, levels=falling(stage.schedule, 10), condition=Condition(text))
    for k, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            eps = stage.network(x, t, text).sample[:, : stage.channels]
        x = scheduler.step(eps, int(t), x, return_dict=False)[0]
        torch.testing.assert_close(mine[-2 - k], x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))


def chains(*rows: int) -> Chains:
    control = PromptToPrompt()
    return control.chains(
        "a cat",
        ["a dog"] * len(rows),
        rows,
        tokenize=lambda text: [f"▁{w}" for w in text.split()],
        offset=0,
        length=4,
    )


def started(
    stage: FakeStage, made: Chains, firsts: list[int], known: dict, step: Step = DETERMINISTIC
) -> torch.Tensor:
    starts = [
        next(s / 1000 for s in range(1, 1001) if stage.schedule.level(s / 1000) == first)
        for first in firsts
    ]
    how = StageSampling(steps=20, step=step)
    text = number(*[0.3] * len(firsts))
    items = [Item(Request("a dog"), 0, 1.0, start, "a dog") for start in starts]
    run = StageRun(stage, how, items, Example("one", X_0, ()), text, text, X_0, X_0)
    made.inverted, made.memory = True, known
    x = made.first(run)
    assert x is not None
    return x


def test_all_rows_begin_at_their_source_chains_inversion_which_is_made_once():
    stage, made, known = FakeStage(Gaussian()), chains(0, 1, 0), {}
    x = started(stage, made, [999, 700, 999, 700, 999], known)
    assert (
        sorted(known) == [700, 999]
        and torch.equal(x[[0]], known[999][0])
        and torch.equal(x[[1]], known[700][0])
    )
    assert torch.equal(x[2:], x[[0, 1, 0]])
    assert len(made.trajectory) == 21 and torch.equal(made.trajectory[-1], X_0.repeat(2, 1, 1, 1))
    calls = len(stage.calls)
    assert (
        torch.equal(started(stage, chains(0), [999, 999], known), x[[0, 2]])
        and len(stage.calls) == calls
    )


def test_fresh_noise_cannot_be_inverted():
    for step in (DDPM(), DDIM(eta=0.5)):
        with pytest.raises(
            Refused,
            match=r"deterministic step: sampler.step='\$\{model.rules.deterministic\}', "
            "or sampler.control.inversion=off",
        ):
            started(FakeStage(Gaussian()), chains(0), [999, 999], {}, step)


def test_an_inversion_that_loses_the_picture_is_said():
    """The only picture that this stage knows is another one."""
    with pytest.raises(
        Inactive, match=r"lost the base image: sampled again it is .* dB from itself, needed are 15"
    ):
        started(FakeStage(Points(-X_0)), chains(0), [999, 999], {})
