"""A mask from attention to words, read as Prompt-to-Prompt's local blending reads it.

That is section 4 of arXiv 2208.01626; as a source of masks it is our own.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unitune.diffusion.hold import MaskRequest
from unitune.diffusion.interpolation import Masks, grown
from unitune.diffusion.stage import Condition, Probabilities
from unitune.masks.sources import FromNoise
from unitune.prompt_to_prompt.align import changed, tokens
from unitune.prompt_to_prompt.maps import WordMaps
from unitune.types import Example, Inactive, Refused

LAYERS = 0.5  # share of the side of x_t: finer layers' maps are not read


@dataclass(frozen=True, kw_only=True)
class Attention(FromNoise):
    """Where the edit's words that the base image's caption lacks attract attention in it.

    Where the edit only leaves words out: those. The maps are those of Prompt-to-Prompt's local
    blending, and so is the threshold, a share of the map's range, but one mask made before sampling
    serves all seeds and steps. They are averaged over heads, layers of at most half the side and
    draws of noise, and reach one place further on a grid of 16 x 16. The network reads the edit's
    own prompt, without what the method puts before it: a rare token, too, is a word that the
    caption lacks.
    """

    name: str = "attention"
    threshold: float = 0.3

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse base images without a caption, and edits of the same words."""
        for example in examples:
            if not example.caption.strip():
                raise Refused(
                    "mask=attention compares an edit with the base image's caption, and "
                    f"{example.id} has none; describe it: caption='a cat in a city'"
                )
            for request in example.requests:
                _differing(example.caption, request.prompt, _split, offset=0, end=sys.maxsize)

    def texts(self, example: Example, *, about: str) -> list[str]:
        """List the caption and the edits' own prompts."""
        return [example.caption, *(request.prompt for request in example.requests)]

    def __call__(self, asked: MaskRequest) -> Masks:
        """Read the maps of each edit prompt once."""
        edits = [item.request.prompt for item in asked.items]
        found = {edit: self._mask(asked, edit) for edit in dict.fromkeys(edits)}
        return torch.cat([found[edit] for edit in edits])

    def _mask(self, asked: MaskRequest, edit: str) -> Masks:
        cascade, stage, caption = asked.cascade, asked.cascade.stages[0], asked.example.caption
        condition = Condition(cascade.encode([caption, edit]))
        length = condition.text.shape[1]
        offset = length - cascade.max_tokens
        places = _differing(caption, edit, cascade.tokenize, offset=offset, end=length - 1)
        gone, new = torch.zeros(2, 1, length)
        gone[0, places[0]], new[0, places[1]] = 1, 1
        reader = _Reader(WordMaps(gone, new, LAYERS))
        for x_t, t in self.noised(asked, role="attention"):
            reader.words.side = x_t.shape[-1]
            with stage.attention(reader):
                stage.predict(x_t, t, condition)
        mask = reader.words.mask(asked.example.image.shape[-1], threshold=self.threshold)
        if not bool(mask.any()):
            raise Inactive(
                f"mask=attention finds no place for the words in which {edit!r} and {caption!r} "
                "differ; use mask=diffedit"
            )
        return grown(mask, self.grow)


@dataclass(frozen=True)
class _Reader:
    """Reads attention to the caption and to the edit, one row each, and changes nothing."""

    words: WordMaps
    rows: int = 2
    active: bool = True

    def wants(self, *, text: int, pixels: int) -> bool:
        """Read every layer that looks at the text."""
        return text > 0

    def edit(self, M: Probabilities, *, text: int) -> Probabilities:
        """Add the layer's maps of the words."""
        self.words.add(M[:1, ..., :text], M[1:, ..., :text])
        return M


def _split(text: str) -> list[str]:
    return [f"▁{word}" for word in text.split()]


def _differing(
    caption: str, edit: str, tokenize: Callable[[str], list[str]], *, offset: int, end: int
) -> tuple[list[int], list[int]]:
    """Places of the caption's words to look for, and of the edit's; one of the lists is empty."""
    before, after = (tokens(tokenize(text), offset=offset, end=end) for text in (caption, edit))
    gone, new = changed(before, after)
    if not (gone or new):
        raise Refused(
            f"mask=attention looks for the words in which the edit {edit!r} and the caption "
            f"{caption!r} differ, and there are none; reword one"
        )
    return ([], new) if new else (gone, [])
