"""DDIM inversion: the noise, and the way from it, that lead a stage to a given picture.

It is the deterministic step run backwards, at guidance weight 1.
"""

import logging
import math

import torch
from jaxtyping import Int
from torch import Tensor

from unitune.diffusion.guidance import conditioned, thresholded
from unitune.diffusion.loop import denoise
from unitune.diffusion.sampling import StageRun
from unitune.diffusion.schedule import Image
from unitune.diffusion.stage import Condition, Stage
from unitune.diffusion.steps import DDIM
from unitune.types import Inactive, Refused

Ways = dict[int, list[Tensor]]  # first level -> x_t (1, C, H, W) at every level
STRONG = math.sqrt(0.5)  # sigma above which further rounds hold x_0
# dB; on the pocket cascade one round gives 21-30, a picture of another scene about 8.
RECONSTRUCTS = 15.0

log = logging.getLogger(__name__)


def invert(
    stage: Stage, x_0: Image, *, levels: Int[Tensor, "N B"], condition: Condition, rounds: int = 1
) -> list[Image]:
    """Follow the probability flow from x_0 up through `levels`; return x_t at each, in their order.

    `levels` fall to -1, as sampling lists them. The step down from t to s uses the prediction at
    (x_t, t), and x_t is what is sought: the first round takes eps at (x_s, t), as diffusers'
    DDIMInverseScheduler does for networks that predict eps; each further one predicts at the x_t of
    the round before and converges to the exact inverse of the step. Where the signal is weak x_0 is
    held while solving, not eps: it hardly follows x_t there, and eps is nearly x_t itself.
    """
    x, way, schedule = x_0, [x_0], stage.schedule
    for t, s in zip(levels[:-1].flip(0), levels[1:].flip(0), strict=True):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.at(t), schedule.at(s)
        x_t = x
        for n in range(rounds):
            x_0 = stage.predict(x_t, t, condition)
            eps = schedule.eps_from_x_0(x_t, x_0, t)
            # Equation 12 of Song et al. (2021) without noise, solved for x_t with eps, with x_0.
            ratio = alpha_t / alpha_s
            by_eps = ratio.to(x) * x + (sigma_t - ratio * sigma_s).to(x) * eps
            clipped, weak = stage.threshold(x_0), sigma_s > STRONG
            share = (sigma_t / sigma_s.clamp(min=STRONG)).to(x)
            by_x_0 = share * (x - alpha_s.to(x) * clipped) + alpha_t.to(x) * clipped
            x_t = torch.where(weak, by_x_0, by_eps) if n else by_eps
        # Where steps are more than levels some repeat, and the picture stays.
        x = torch.where((t == s)[:, None, None, None], x, x_t)
        way.append(x)
    return way[::-1]


def reconstructed(
    stage: Stage, way: list[Image], *, levels: Int[Tensor, "N B"], condition: Condition
) -> float:
    """Sample down again from the end of an inversion, at weight 1; return the PSNR in dB."""
    x_0 = denoise(
        thresholded(conditioned(stage.predict, condition), stage.threshold),
        way[0],
        levels,
        schedule=stage.schedule,
        step=DDIM(),
        noise=lambda role, step: torch.zeros_like(way[0]),
    )
    mse = (stage.decode(x_0) - stage.decode(way[-1])).square().mean()
    return float(10 * torch.log10(4 / mse))


def trajectory(run: StageRun, sources: int, *, rounds: int, known: Ways) -> list[Image]:
    """Invert the base image for the source chains, the first rows; return x_t at every level.

    The chains follow it: direct inversion (arXiv 2310.01506). `known` holds the inversions of this
    image and text by their first level, for the other rows and batches that begin there.
    """
    if not isinstance(run.how.step, DDIM) or run.how.step.eta:
        raise Refused(
            "inversion needs the deterministic step: sampler.step='${model.rules.deterministic}', "
            "or sampler.control.inversion=off"
        )
    ways = []
    for row in range(sources):
        first = int(run.levels[0, row])
        if first not in known:
            known[first] = _inverted(run, row, rounds=rounds)
        ways.append(known[first])
    return [torch.cat(rows) for rows in zip(*ways, strict=True)]


def _inverted(run: StageRun, row: int, *, rounds: int) -> list[Tensor]:
    """Invert the base image with one row's text; Inactive where that loses it."""
    levels, text = run.levels[:, row : row + 1], Condition(run.condition.text[row : row + 1])
    way = invert(run.stage, run.base, levels=levels, condition=text, rounds=rounds)
    psnr = reconstructed(run.stage, way, levels=levels, condition=text)
    log.info("the base image, inverted and sampled again, is %.1f dB from itself", psnr)
    if not psnr >= RECONSTRUCTS:
        raise Inactive(
            f"inversion lost the base image: sampled again it is {psnr:.1f} dB from itself, "
            f"needed are {RECONSTRUCTS:g}; take more sampler.steps or sampler.control.rounds, or "
            "describe the picture better"
        )
    return way
