"""A mask from attention to words: a source of our own, made of what Prompt-to-Prompt's local blending reads (arXiv 2208.01626, section 4)."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unitune import rng
from unitune.diffusion import blend
from unitune.diffusion.blend import Masks
from unitune.diffusion.hold import MaskRequest
from unitune.diffusion.stage import Condition
from unitune.masks.sources import check_numbers, grown
from unitune.prompt_to_prompt.align import NONE, changed, tokens
from unitune.prompt_to_prompt.chains import Chains
from unitune.prompt_to_prompt.control import LocalBlend, PromptToPrompt
from unitune.types import Example, Inactive, Refused


@dataclass(frozen=True)
class Attention:
    """Where the edit's words that the base image's caption lacks attract attention in the base image, noised to `start`; without any, those it leaves out.

    The maps are those of Prompt-to-Prompt's local blending (arXiv 2208.01626, section 4), and so is the threshold, but one mask made before sampling serves
    all seeds and steps. They are averaged over heads, layers of at most half the side and draws of noise, and reach one place further on a grid of 16 x 16.
    The network reads the edit's own prompt, without what the method puts before it: a rare token, too, is a word that the caption lacks.
    """

    name: str = "attention"
    noises: int = 10
    start: float = 0.5
    threshold: float = 0.3  # of the map's range
    grow: float = 0.0  # share of the picture's side

    def __post_init__(self) -> None:
        check_numbers(
            noises=self.noises, start=self.start, threshold=self.threshold, grow=self.grow
        )

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse base images without a caption, and edits of the same words."""
        for example in examples:
            if not example.caption.strip():
                raise Refused(
                    f"mask=attention compares an edit with the base image's caption, and {example.id} has none; describe it: caption='a cat in a city'"
                )
            for request in example.requests:
                _differing(
                    example.caption,
                    request.prompt,
                    tokenize=lambda text: [f"▁{word}" for word in text.split()],
                    offset=0,
                    end=sys.maxsize,
                )

    def texts(self, example: Example, *, about: str) -> list[str]:
        """List the caption and the edits' own prompts."""
        return [example.caption, *(request.prompt for request in example.requests)]

    def __call__(self, asked: MaskRequest) -> Masks:
        """Read the maps of each edit prompt once."""
        edits = [draw.request.prompt for draw in asked.draws]
        found = {edit: self._mask(asked, edit) for edit in dict.fromkeys(edits)}
        return torch.cat([found[edit] for edit in edits])

    def _mask(self, asked: MaskRequest, edit: str) -> Masks:
        stage, example = asked.stage, asked.example
        text = asked.encode([example.caption, edit])
        length = text.shape[1]
        gone, new = torch.zeros(2, 1, length)
        places = _differing(
            example.caption,
            edit,
            tokenize=asked.tokenize,
            offset=length - asked.max_tokens,
            end=length - 1,
        )
        gone[0, places[0]], new[0, places[1]] = 1, 1
        reading = PromptToPrompt(
            cross_share=0.0,
            self_share=0.0,
            blend=LocalBlend(self.threshold, layers=0.5),
            inversion="off",
        )
        chains = Chains(
            reading,
            torch.zeros(1).long(),
            torch.full(new.shape, NONE),
            torch.ones(new.shape),
            gone,
            new,
            True,
        )
        base = stage.encode(blend.reduced(example.image, stage.resolution))
        t = torch.full((2,), stage.schedule.level(self.start))
        for k in range(self.noises):
            eps = rng.noise(
                base.shape, seed=0, example=example.id, stage=stage.name, role="attention", step=k
            )
            chains.begin(k, self.noises, side=base.shape[-1])
            x_t = stage.schedule.add_noise(base, eps, t[:1]).expand(2, -1, -1, -1)
            with stage.attention(chains):
                stage.predict(x_t, t, Condition(text))
        mask = chains.mask(example.image.shape[-1])
        if not bool(mask.any()):
            raise Inactive(
                f"mask=attention finds no place for the words in which {edit!r} and {example.caption!r} differ; use mask=diffedit"
            )
        return grown(mask, self.grow)


def _differing(
    caption: str, edit: str, *, tokenize: Callable[[str], list[str]], offset: int, end: int
) -> tuple[list[int], list[int]]:
    """Places of the caption's words to look for, and of the edit's; one of the lists is empty."""
    before, after = (tokens(tokenize(text), offset=offset, end=end) for text in (caption, edit))
    gone, new = changed(before, after)
    if not (gone or new):
        raise Refused(
            f"mask=attention looks for the words in which the edit {edit!r} and the caption {caption!r} differ, and there are none; reword one"
        )
    return ([], new) if new else (gone, [])
