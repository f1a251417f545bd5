"""Masks from words: what they name in the base image, found by a segmenter such as CLIPSeg."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from unitune import prompts
from unitune.diffusion.hold import MaskRequest, MaskSource
from unitune.diffusion.interpolation import Masks, grown
from unitune.masks.sources import check_area
from unitune.types import Example, Mask, Picture, Refused, Request


class Segmenter(Protocol):
    """Finds words in pictures."""

    def __call__(self, image: Picture, words: str) -> Mask:
        """Return the probability of the words at each pixel of a picture in [-1, 1]."""
        ...


@dataclass(frozen=True)
class Words(MaskSource):
    """Lets change what `words` name: a template of them for each edit.

    Probabilities above `threshold` count, grown by a share of the side. The check before a run asks
    the segmenter, so that a diffusion model is not loaded for nothing.
    """

    words: str
    segmenter: Segmenter
    name: str = "words"
    threshold: float = 0.5
    grow: float = 0.0

    def __post_init__(self) -> None:
        check_area(self.threshold, self.grow)

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse words that find nothing, and a CLIPSeg that cannot be had."""
        for example in examples:
            for request in example.requests:
                self.mask(example, request)

    def __call__(self, asked: MaskRequest) -> Masks:
        """Segment the base image once for each edit prompt."""
        found = {item.request.prompt: item.request for item in asked.items}
        masks = {prompt: self.mask(asked.example, request) for prompt, request in found.items()}
        return torch.cat([masks[item.request.prompt] for item in asked.items])

    def mask(self, example: Example, request: Request) -> Mask:
        """Return where the words of one edit are, at the picture's resolution."""
        known = {"caption": example.caption, "noun": example.noun}
        words = prompts.fill(self.words, rare="", edit=request.prompt, **known)
        p = self.segmenter(example.image, words)
        most = float(p.max())
        if most <= self.threshold:
            raise Refused(
                f"CLIPSeg finds no {words!r} in {example.id} (probability at most {most:.2f}, "
                f"mask.threshold is {self.threshold}); name with mask.words= what the picture shows"
            )
        return grown((p > self.threshold).float(), self.grow)
