"""Holding the base image outside a mask, and what a source of masks is asked.

Outside its mask an edit is held at the base image, noised anew to the level of every step
(`blend.keep`); the network always sees one noise level. diffusers' IFInpaintingPipeline holds
otherwise: it noises the picture inside the mask alone and then puts back what stood outside before
the step, so there the network sees the clean picture at every level. Both end with the base image's
own pixels outside the mask; inside, either takes the plain reverse step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.blend import Masks
from unitune.diffusion.schedule import Image
from unitune.diffusion.stage import Stage, Texts
from unitune.types import Draw, Example


@dataclass(frozen=True)
class MaskRequest:
    """What a mask may be made from: the edits to sample with their whole prompts, and the model with its tuned weights in place."""

    example: Example
    draws: Sequence[Draw]
    texts: Sequence[str]  # of each draw
    about: str  # the text that the image was tuned on; "" where there is none
    stage: Stage  # the first
    encode: Callable[[Sequence[str]], Texts]
    tokenize: Callable[[str], list[str]]
    max_tokens: int
    sample: Callable[[], Image]  # the finished pictures of the draws without any mask


@runtime_checkable
class MaskSource(Protocol):
    """Makes one mask for each draw, 1 where the picture may change."""

    @property
    def name(self) -> str:
        """What records say that sampling saw."""
        ...

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse before a model is loaded what can be seen then."""
        ...

    def texts(self, example: Example, *, about: str) -> list[str]:
        """List the texts that it embeds besides the edits' own prompts."""
        ...

    def __call__(self, asked: MaskRequest) -> Masks:
        """Return the masks of all draws at the example's resolution."""
        ...


def at(mask: Masks, side: int) -> Float[Tensor, "B 1 h w"]:
    """Bring masks to the resolution of a stage's x_0; a place may change if any part of it may."""
    return F.adaptive_max_pool2d(mask, side)
