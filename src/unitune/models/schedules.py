"""What a scheduler's file says of the noise schedule that a network was trained on.

Every key of the file is honoured, known not to matter here, or refused. The schedule (alpha_bar
by level) is the network's; which steps are taken along it, and by which rule, is the sampler's,
which replaces whatever scheduler the file names.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.schedule import Schedule
from unitune.models.libraries import DDPMScheduler
from unitune.types import Refused

# Classes of diffusers that step along one and the same schedule: alpha_bar from betas. Flow
# matching (sigmas by a shift), EDM and distilled ones (LCM, TCD) do not.
CLASSES = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "EulerDiscrete",
        "EulerAncestralDiscrete", "DPMSolverMultistep", "DPMSolverMultistepInverse",
        "DPMSolverSinglestep", "DPMSolverSDE", "UniPCMultistep", "LMSDiscrete", "HeunDiscrete",
        "DEISMultistep", "KDPM2Discrete", "KDPM2AncestralDiscrete", "SASolver",
    )
)  # fmt: skip
BETAS = ("beta_schedule", "beta_start", "beta_end")  # needed: defaults differ between the classes
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")
# Honoured: here, and (prediction and thresholding) by who builds the stage.
HONOURED = frozenset((
    *BETAS, "num_train_timesteps", "trained_betas", "rescale_betas_zero_snr", "prediction_type",
    "thresholding", "dynamic_thresholding_ratio", "sample_max_value",
))  # fmt: skip
# The file's scheduler would take its steps by these; our sampler takes its own: trailing levels
# down to the clean picture, x_0 clipped in pixels and not in latents, a fixed variance.
REPLACED = frozenset((
    "timestep_spacing", "steps_offset", "set_alpha_to_one", "skip_prk_steps", "clip_sample",
    "variance_type", "interpolation_type", "final_sigmas_type", "sigma_min", "sigma_max",
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas",
    "lambda_min_clipped", "solver_order", "solver_type", "solver_p", "algorithm_type",
    "lower_order_final", "euler_at_final", "predict_x0", "disable_corrector", "predictor_order",
    "corrector_order", "tau_func", "noise_sampler_seed", "flow_shift", "time_shift_type",
))  # fmt: skip
# These would change what the network is fed or what its output means; they may stand in a file at
# this value.
NEUTRAL = {
    "clip_sample_range": 1.0,
    "timestep_type": "discrete",
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
}
# What networks on a schedule of betas predict; a flow has a schedule of its own.
PREDICTIONS = ("epsilon", "v_prediction")
# alpha_bar of the last level where it would be 0, as in diffusers' Euler sampler: x_0 and eps stay
# finite, and of the picture 2^-12 is left, less than a byte's step.
LAST = 2.0**-24
TELL = (
    "use a folder whose scheduler is one of DDPM, DDIM, PNDM, Euler or DPM-Solver "
    "on the betas that the network was trained with"
)


def schedule(settings: Mapping[str, Any], *, file: Path, latent: bool) -> Schedule:
    """Return the schedule of a scheduler's settings.

    Raises Refused with the file and the key where they mean something that is not done here.
    """
    if problem := next(_problems(settings, latent), None):
        raise Refused(f"{file} {problem}")
    names = (*BETAS, "num_train_timesteps", "trained_betas")
    known = {name: settings[name] for name in names if name in settings}
    try:
        alpha_bar = torch.cumprod(1 - DDPMScheduler(**known).betas.double(), 0)
        if settings.get("rescale_betas_zero_snr"):
            alpha_bar = zero_terminal_snr(alpha_bar)
        return Schedule.variance_preserving(alpha_bar)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Refused(
            f"{file} gives no noise schedule ({' '.join(str(error).split())}); "
            "copy or download it again"
        ) from None


def zero_terminal_snr(alpha_bar: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """Shift and scale sqrt(alpha_bar) so that it begins where it did and ends at 0.

    The last alpha_bar is LAST, or half the one before where that is less.
    """
    # Lin et al. (arXiv 2305.08891), algorithm 1.
    root = alpha_bar.sqrt()
    rescaled = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    rescaled[-1] = min(LAST, float(rescaled[-2]) / 2)
    return rescaled


def _problems(settings: Mapping[str, Any], latent: bool) -> Iterator[str]:
    kind, get = settings.get("_class_name"), settings.get
    if kind is not None and kind not in CLASSES:
        yield (
            f"names {kind}, whose noise schedule is not made of betas or whose network is "
            f"distilled; {TELL}"
        )
    for key, value in settings.items():
        if key in NEUTRAL and value not in (NEUTRAL[key], None):
            yield (f"sets {key}: {value!r}, which is not supported (only {NEUTRAL[key]!r}); {TELL}")
        known = key.startswith("_") or key in HONOURED | REPLACED | NEUTRAL.keys()
        if not known and value not in (None, False):
            yield (
                f"sets {key}: {value!r}, which is not known here, so it cannot be said what it "
                f"would change; {TELL}"
            )
    if get("trained_betas") is None:
        for key in BETAS:
            if get(key) is None:
                yield f"has no {key}, without which its noise levels are not known; {TELL}"
        if (named := get("beta_schedule")) not in SCHEDULES:
            yield f"sets beta_schedule: {named!r}; known are {', '.join(SCHEDULES)}: {TELL}"
    prediction = get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        yield (
            f"sets prediction_type: {prediction!r}, and this prediction type is not supported "
            f"(only {' and '.join(PREDICTIONS)} are); {TELL}"
        )
    if get("rescale_betas_zero_snr") and prediction != "v_prediction":
        yield (
            f"sets rescale_betas_zero_snr: true with prediction_type {prediction}; nothing of the "
            "picture is left at its last level, from which only v_prediction can start: use a "
            "model that predicts v, or set the key to false if this one was trained without it"
        )
    if latent and get("thresholding"):
        yield (
            "sets thresholding: true, and latents have no range to threshold to; set it to false"
        )
