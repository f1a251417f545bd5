"""Guidance: push a prediction away from a reference prediction. Classifier-free guidance is the reference with the empty prompt."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.schedule import Image
from unitune.types import Refused

OFF = 1.0


def guide(x: Image, x_ref: Image, weight: Float[Tensor, " B"]) -> Image:
    """x_ref + weight * (x - x_ref), per image; linear, so it may be applied to x_0 as well as to eps (Imagen's form: w eps(c) + (1 - w) eps(""))."""
    return x_ref + weight.to(x)[:, None, None, None] * (x - x_ref)


@dataclass(frozen=True)
class Guidance:
    """How far to push, and away from what.

    `reference` is a prompt template: "" is the unconditional branch; "{rare}" or a caption is the paper's prompt guidance.
    `weights` says whose prediction the reference is: short tuning also degrades the unconditional one, so "base" takes it from the untouched model.
    """

    weight: float = 8.0
    reference: str = ""
    weights: str = "tuned"

    def __post_init__(self) -> None:
        if not torch.isfinite(torch.tensor(float(self.weight))):
            raise Refused(f"the guidance weight must be a finite number (1 = off), got {self.weight}")
        if self.weights not in ("tuned", "base"):
            raise Refused(f"guidance.weights must be tuned or base, got {self.weights!r}")
