"""Holding the base image outside a mask, and what a source of masks is asked.

Outside its mask an edit is held at the base image, noised anew to the level of every step; the
network always sees one noise level. diffusers' IFInpaintingPipeline holds otherwise: it noises the
picture inside the mask alone and then puts back what stood outside before the step, so there the
network sees the clean picture at every level. Both end with the base image's own pixels outside the
mask; inside, either takes the plain reverse step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.interpolation import Masks, mix
from unitune.diffusion.schedule import Image, Levels, Schedule
from unitune.diffusion.stage import CascadeProtocol
from unitune.types import Example, Request


@dataclass(frozen=True)
class Item:
    """One row of a batch: a sample with its dials, its whole prompt, and where it may change."""

    request: Request
    seed: int
    weight: float
    start: float
    prompt: str
    allowed: Masks | None = None


@dataclass(frozen=True)
class MaskRequest:
    """What a mask may be made from: the edits to sample, and the model with its tuned weights."""

    example: Example
    items: Sequence[Item]
    about: str  # the text that the image was tuned on; "" where there is none
    cascade: CascadeProtocol
    sample: Callable[[], Image]  # the finished pictures of the items without any mask


@runtime_checkable
class MaskSource(Protocol):
    """Makes one mask for each item, 1 where the picture may change; subclasses inherit defaults."""

    @property
    def name(self) -> str:
        """What records say that sampling saw."""
        ...

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse before a model is loaded what can be seen then: here nothing."""

    def texts(self, example: Example, *, about: str) -> list[str]:
        """List the texts that it embeds besides the edits' own prompts: here none."""
        return []

    def __call__(self, asked: MaskRequest) -> Masks:
        """Return the masks of all items at the example's resolution."""
        ...


def keep(
    schedule: Schedule, x_s: Image, base: Image, mask: Masks, *, s: Levels, noise: Image
) -> Image:
    """Put the base image, noised to level s, back where the mask is 0: SDEdit's masked rule."""
    return mix(x_s, schedule.add_noise(base, noise, s), mask)


def mask_at(mask: Masks, side: int) -> Float[Tensor, "B 1 h w"]:
    """Bring masks to the resolution of a stage's x_0; a place may change if any part of it may."""
    return F.adaptive_max_pool2d(mask, side)
