"""Masks from words: what they name in the base image, found by a segmenter such as CLIPSeg."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unitune import prompts
from unitune.diffusion.hold import MaskRequest
from unitune.masks.sources import grown
from unitune.types import Example, Mask, Picture, Refused, Request, number


@runtime_checkable
class Segmenter(Protocol):
    """Finds words in pictures."""

    def __call__(self, image: Picture, words: str) -> Mask:
        """Return the probability of the words at each pixel of a picture in [-1, 1]."""
        ...


@dataclass(frozen=True)
class Words:
    """Lets change what `words` name: a template of them for each edit. Probabilities above `threshold` count, grown by a share of the side.

    The check before a run asks the segmenter, so that a diffusion model is not loaded for nothing.
    """

    words: str
    segmenter: Segmenter
    name: str = "words"
    threshold: float = 0.5
    grow: float = 0.0

    def __post_init__(self) -> None:
        if not (number(self.threshold) and 0 < self.threshold < 1):
            raise Refused(f"mask.threshold must be in (0, 1), got {self.threshold}")
        if not (number(self.grow) and 0 <= self.grow < 1):
            raise Refused(
                f"mask.grow must be in [0, 1) (share of the picture's side), got {self.grow}"
            )

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse words that find nothing, and a CLIPSeg that cannot be had."""
        for example in examples:
            for request in example.requests:
                self.mask(example, request)

    def texts(self, example: Example, *, about: str) -> list[str]:
        """Embed nothing: CLIPSeg has a text encoder of its own."""
        return []

    def __call__(self, asked: MaskRequest) -> Tensor:
        """Segment the base image once for each edit prompt."""
        found = {draw.request.prompt: draw.request for draw in asked.draws}
        masks = {prompt: self.mask(asked.example, request) for prompt, request in found.items()}
        return torch.cat([masks[draw.request.prompt] for draw in asked.draws])

    def mask(self, example: Example, request: Request) -> Mask:
        """Return where the words of one edit are, at the picture's resolution."""
        words = prompts.fill(
            self.words, rare="", edit=request.prompt, caption=example.caption, noun=example.noun
        )
        p = self.segmenter(example.image, words)
        if float(p.max()) <= self.threshold:
            raise Refused(
                f"CLIPSeg finds no {words!r} in {example.id} (probability at most {float(p.max()):.2f}, mask.threshold is {self.threshold}); "
                "name with mask.words= what the picture shows"
            )
        return grown((p > self.threshold).float(), self.grow)
