"""Scheduler files: the stock ones give diffusers' own noise schedule.

Whatever else a file may say is honoured, or refused by name.
"""

import inspect
import itertools
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.steps import DDIM, Transition, levels
from unitune.models import schedules
from unitune.models.stage import read_schedule
from unitune.types import Refused

SCALED = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
COSINE = {
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
LATENT = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
IF = {
    "_class_name": "DDPMScheduler", "_diffusers_version": "0.15.0.dev0", "clip_sample": True,
    "clip_sample_range": 1.0, "prediction_type": "epsilon", "dynamic_thresholding_ratio": 0.95,
    "sample_max_value": 1.5, "thresholding": True, "variance_type": "learned_range",
}  # fmt: skip
STOCK = {
    "IF-I": COSINE | IF | {"lambda_min_clipped": -5.1},
    "IF-II": COSINE | IF | {"sample_max_value": 1.0},
    "SD 1.5": SCALED | LATENT | {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0"},
    "SD 2.1 base": SCALED | LATENT | {"_class_name": "PNDMScheduler", "prediction_type": "epsilon"},
    "SD 2.1": SCALED | LATENT | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
}
ZERO = STOCK["SD 2.1"] | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def read(folder: Path, settings: dict) -> Schedule:
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    return read_schedule(folder)[0]


@pytest.mark.parametrize("name", STOCK)
def test_stock_files_give_diffusers_own_schedule(tmp_path, name):
    settings = STOCK[name]
    theirs = getattr(diffusers, settings["_class_name"]).from_config(
        {k: v for k, v in settings.items() if not k.startswith("_")}
    )
    torch.testing.assert_close(
        read(tmp_path, settings).alpha_bar, theirs.alphas_cumprod.double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize(
    "name", sorted(schedules.CLASSES - {"DPMSolverSDEScheduler"})
)  # that one needs a package which is not asked for
def test_what_diffusers_writes_of_an_accepted_class_is_accepted(tmp_path, name):
    """Every key that the installed diffusers gives such a class stands in a table.

    So none is dropped in silence.
    """
    kind = getattr(diffusers, name)
    given = dict(inspect.signature(kind.__init__).parameters)
    assert (
        not set(given)
        - {"self", "kwargs"}
        - schedules.HONOURED
        - schedules.REPLACED
        - set(schedules.NEUTRAL)
    )
    scheduler = kind(**SCALED, prediction_type="v_prediction")
    scheduler.save_pretrained(tmp_path / "scheduler")
    torch.testing.assert_close(
        read_schedule(tmp_path)[0].alpha_bar, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize(
    "betas",
    [SCALED, COSINE, SCALED | {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}],
)
def test_zero_terminal_snr_is_diffusers_own_but_for_the_last_level(tmp_path, betas):
    """The last level is 2^-24, as their Euler sampler has it, or less if the one before is."""
    ours, plain = (
        read(tmp_path, ZERO | betas).alpha_bar,
        read(tmp_path, ZERO | betas | {"rescale_betas_zero_snr": False}).alpha_bar,
    )
    theirs = DDIMScheduler(**betas, rescale_betas_zero_snr=True).alphas_cumprod.double()
    assert theirs[-1] == 0 and 0 < ours[-1] <= 2.0**-24
    torch.testing.assert_close(ours.sqrt(), theirs.sqrt(), rtol=1e-3, atol=2.0**-12)
    assert ours[0] == pytest.approx(float(plain[0]), rel=1e-6)
    if betas is SCALED:
        euler = EulerDiscreteScheduler(**betas, rescale_betas_zero_snr=True).alphas_cumprod
        assert float(ours[-1]) == float(euler[-1]) == 2.0**-24 and float(
            plain[-1]
        ) ** 0.5 == pytest.approx(0.0683, abs=1e-3)


def test_sampling_at_zero_terminal_snr_is_diffusers_own(tmp_path):
    """From pure noise with v, deterministic: their DDIM with trailing levels."""
    ours = read(tmp_path, ZERO)
    theirs: Any = DDIMScheduler.from_config(ZERO | {"set_alpha_to_one": True})
    theirs.set_timesteps(5)
    x = y = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    spacing = levels(ours.level(1.0), 5)
    assert spacing[:-1].tolist() == theirs.timesteps.tolist() and spacing[0] == 999
    for t, s in itertools.pairwise(spacing):
        x_0 = PREDICTIONS["v_prediction"].x_0(ours, x, x.tanh(), t.expand(2))
        to = Transition(ours, t.expand(2), s.expand(2), noise=torch.zeros_like(x))
        x = DDIM()(x, x_0, to)
        y = theirs.step(y.tanh(), int(t), y, eta=0.0).prev_sample
    torch.testing.assert_close(x, y, rtol=0, atol=2e-3)


FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": False,
}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ZERO | {"prediction_type": "epsilon"},
            "sets rescale_betas_zero_snr: true with prediction_type epsilon.* set the key to false",
        ),
        ({k: v for k, v in ZERO.items() if k != "prediction_type"}, "rescale_betas_zero_snr"),
        (FLOW, "names FlowMatchEulerDiscreteScheduler, whose noise schedule is not made of betas"),
        (
            {k: v for k, v in FLOW.items() if k != "_class_name"},
            "sets shift: 3.0, which is not known here",
        ),
        (SCALED | {"_class_name": "LCMScheduler"}, "LCMScheduler, .*distilled"),
        (SCALED | {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
        (
            SCALED | {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
            "sets use_flow_sigmas: True, which is not supported",
        ),
        (
            SCALED | {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "sets timestep_type: 'continuous'.*only 'discrete'",
        ),
        (SCALED | {"clip_sample_range": 2.0}, "clip_sample_range: 2.0"),
        (SCALED | {"new_key": 3}, "sets new_key: 3"),
        ({"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}, "has no beta_schedule"),
        (SCALED | {"beta_start": None}, "has no beta_start"),
        (SCALED | {"beta_schedule": "cosine"}, "beta_schedule: 'cosine'; known are linear"),
        (SCALED | {"beta_end": 2.0}, "gives no noise schedule"),
        (SCALED | {"beta_end": "much"}, "gives no noise schedule"),
        (SCALED | {"trained_betas": [0.1, 1.5]}, "gives no noise schedule"),
    ],
)
def test_what_is_not_done_here_is_refused_by_name(tmp_path, settings, said):
    with pytest.raises(Refused, match=said) as refused:
        read(tmp_path, settings)
    assert str(tmp_path / "scheduler/scheduler_config.json") in str(
        refused.value
    ) and "\n" not in str(refused.value)


def test_neutral_and_unset_keys_are_no_matter(tmp_path):
    plain = read(tmp_path, SCALED).alpha_bar
    more = {
        "use_flow_sigmas": False,
        "timestep_type": "discrete",
        "shift_terminal": None,
        "new_key": None,
        "another": False,
        "use_karras_sigmas": True,
    }
    assert torch.equal(read(tmp_path, SCALED | more).alpha_bar, plain)
    betas = [0.1, 0.2, 0.3]
    torch.testing.assert_close(
        read(tmp_path, {"trained_betas": betas}).alpha_bar,
        torch.tensor([0.9, 0.72, 0.504]).double(),
        rtol=0,
        atol=1e-6,
    )


def test_latents_are_not_thresholded(tmp_path):
    read(tmp_path, STOCK["IF-I"])
    (tmp_path / "vae").mkdir()
    with pytest.raises(Refused, match="sets thresholding: true, and latents"):
        read(tmp_path, STOCK["IF-I"])
