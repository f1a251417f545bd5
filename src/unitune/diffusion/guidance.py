"""Guidance: push a prediction away from a reference prediction.

Classifier-free guidance takes that of the empty prompt. The functions below `Guidance` make one
denoiser, (x_t, t) -> x_0, of another.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.loop import Denoiser
from unitune.diffusion.schedule import Image, Levels
from unitune.diffusion.stage import Condition, Predict, Stage
from unitune.types import Refused, number

OFF = 1.0
Push = Callable[[Image, Image], Image]  # (x_0, x_0 of the reference) -> x_0


def guide(x: Image, x_ref: Image, weight: Float[Tensor, " B"]) -> Image:
    """x_ref + weight * (x - x_ref), per image.

    It is linear, so it may be applied to x_0 as well as to eps (Imagen's form:
    w eps(c) + (1 - w) eps("")).
    """
    return x_ref + weight.to(x)[:, None, None, None] * (x - x_ref)


def rescale(x: Image, x_cond: Image, share: float) -> Image:
    """Bring a guided prediction back towards the spread of the conditional one, per image.

    Share 0 changes nothing, 1 all of it: Lin et al. (2023), eq. 15 and 16, there on a network's own
    output. Here x_0 is guided and so x_0 is rescaled: near pure noise, where large weights
    overexpose, that is v up to its sign; an eps prediction is mostly x_t there, whose spread
    guidance hardly changes.
    """
    if share == 0:
        return x
    wanted, got = (y.flatten(1).std(dim=1)[:, None, None, None] for y in (x_cond, x))
    whole = x * (wanted / got.clamp(min=torch.finfo(x.dtype).tiny))
    return share * whole + (1 - share) * x


@dataclass(frozen=True)
class Guidance:
    """How far to push, and away from what; another rule is a subclass with another `push`.

    `reference` is a prompt template: "" is the unconditional branch; "{tuned}" or a caption is the
    paper's prompt guidance. `rescale` in [0, 1] undoes the overexposure of large weights, for
    latents, which have no thresholding (0 = off).
    """

    weight: float = 8.0
    reference: str = ""
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not number(self.weight):
            given = self.weight
            raise Refused(f"the guidance weight must be a finite number (1 = off), got {given}")
        if not (number(self.rescale) and 0 <= self.rescale <= 1):
            raise Refused(f"guidance.rescale must be in [0, 1] (0 = off), got {self.rescale}")

    def push(self, x_0: Image, x_ref: Image, weight: Float[Tensor, " B"]) -> Image:
        """Push x_0 away from the reference's by each item's own weight."""
        return rescale(guide(x_0, x_ref, weight), x_0, self.rescale)


def conditioned(predict: Predict, condition: Condition) -> Denoiser:
    """Fix what the network sees beside x_t."""
    return lambda x_t, t: predict(x_t, t, condition)


def guided(denoiser: Denoiser, reference: Denoiser, push: Push) -> Denoiser:
    """Push what a denoiser predicts away from what another one predicts."""
    return lambda x_t, t: push(denoiser(x_t, t), reference(x_t, t))


def guided_at_once(denoiser: Denoiser, push: Push) -> Denoiser:
    """Guide in one network call of twice the rows: the items, then the references."""

    def both(x_t: Image, t: Levels) -> Image:
        x_0, x_ref = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t])).chunk(2)
        return push(x_0, x_ref)

    return both


def with_base_weights(stage: Stage, denoiser: Denoiser) -> Denoiser:
    """Predict with the stage's untouched weights."""

    def untuned(x_t: Image, t: Levels) -> Image:
        with stage.base_weights():
            return denoiser(x_t, t)

    return untuned


def thresholded(denoiser: Denoiser, threshold: Callable[[Image], Image]) -> Denoiser:
    """Clip what a denoiser predicts."""
    return lambda x_t, t: threshold(denoiser(x_t, t))
