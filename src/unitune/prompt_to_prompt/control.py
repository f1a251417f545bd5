"""Prompt-to-Prompt (arXiv 2208.01626) in the loop: edits borrow attention from a source chain.

A chain for the description of the base image runs beside the edits and lends them its attention.
Rows of a controlled batch: first the source chains, then the edits; edits whose source chain would
be the same share one. Every attention layer gives its probabilities to `Chains.edit`; rows behind
(guidance's reference) stay as they are.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from unitune.diffusion.hold import Item
from unitune.diffusion.sampling import Memory
from unitune.diffusion.stage import CascadeProtocol
from unitune.diffusion.texts import filled
from unitune.prompt_to_prompt import align
from unitune.prompt_to_prompt.chains import Chains
from unitune.prompt_to_prompt.maps import WordMaps
from unitune.types import Example, Refused, Tuned, number, whole

INVERSIONS = ("auto", "on", "off")


@dataclass(frozen=True)
class LocalBlend:
    """Put the source chain back after a step where the words that differ attract no attention.

    Section 4. `words` of either prompt replace those that differ. The threshold is a share of the
    map's range (public code: of its maximum, but joint attention gives a word some weight
    everywhere); `start` is the share of the steps before the first blend, as the maps of the first
    steps are vague. Both numbers are public code's for real images.
    """

    threshold: float = 0.3
    start: float = 0.2
    words: Sequence[str] = ()
    layers: float = 1.0  # share of the side of x_t: finer layers' maps are not read

    def __post_init__(self) -> None:
        for name in ("threshold", "start", "layers"):
            _check_share(f"blend.{name}", getattr(self, name))


@dataclass(frozen=True)
class PromptToPrompt:
    """Which attention an edit takes from its source chain, and how long.

    Shares are of the steps, from the first one; `self_side` is one of the side of x_t: attention
    among the pixels of finer layers is left alone. `mode`: swap takes the source's map of
    every token (for prompts of equally many), refine those of shared words; auto swaps where words
    are only replaced. `reweight` multiplies maps of words of the edit by a number in [-2, 2], in
    all steps. `inversion`: the chains start from the base image inverted (`inversion.invert`); auto
    unless the first stage was tuned on a text that `source` holds, which then brings the image.
    Deterministic, so all seeds of an edit are alike then.
    """

    mode: str = "auto"
    cross_share: float = 0.4
    self_share: float = 0.6
    self_side: float = 0.5
    reweight: Mapping[str, float] | None = None
    blend: LocalBlend | None = None
    source: str = "{caption}"
    inversion: str = "auto"
    rounds: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (("mode", align.MODES), ("inversion", INVERSIONS)):
            if (value := getattr(self, name)) not in allowed:
                one = ", ".join(allowed)
                raise Refused(f"control.{name} must be one of {one}, got {value!r}")
        for name in ("cross_share", "self_share", "self_side"):
            _check_share(name, getattr(self, name))
        for word, c in (self.reweight or {}).items():
            if not (number(c) and -2 <= c <= 2):
                raise Refused(
                    f"control.reweight gives {word!r} {c}; "
                    "a word's factor must be in [-2, 2] (1 = unchanged)"
                )
        if not (whole(self.rounds) and self.rounds >= 1):
            raise Refused(f"control.rounds must be a whole number of at least 1, got {self.rounds}")

    def texts(self, example: Example, tuned: Tuned) -> list[str]:
        """List the source's text."""
        return [filled(self.source, example, tuned)]

    def check(
        self, cascade: CascadeProtocol, example: Example, tuned: Tuned, edits: Sequence[str]
    ) -> None:
        """Refuse edits whose words cannot be aligned with the source's."""
        (source,), length = self.texts(example, tuned), cascade.max_tokens
        rows = [0] * len(edits)
        self.chains(source, edits, rows, tokenize=cascade.tokenize, offset=0, length=length)

    def companion(
        self,
        cascade: CascadeProtocol,
        items: Sequence[Item],
        example: Example,
        tuned: Tuned,
        memory: Memory,
    ) -> Chains:
        """Put the items of the source chains before the edits.

        Where edits have one start and noise, they share a chain.
        """
        if tuned.embedding is not None or tuned.tokens:
            raise Refused(
                "prompt-to-prompt aligns the tokenizer's words, and this method samples learned "
                "ones; use another sampler"
            )
        (text,) = self.texts(example, tuned)
        inverted = self.inverts(tuned, text, stage=cascade.stages[0].name)
        keys = [i.start if inverted else (i.start, i.weight, i.seed) for i in items]
        first, rows = shared(keys)
        length = cascade.encode([text]).shape[1]
        chains = self.chains(
            text,
            [item.prompt for item in items],
            rows,
            tokenize=cascade.tokenize,
            offset=length - cascade.max_tokens,
            length=length,
        )
        batch = [*(replace(items[k], prompt=text) for k in first), *items]
        return replace(chains, items=batch, inverted=inverted, memory=memory)

    def inverts(self, tuned: Tuned, source: str, *, stage: str) -> bool:
        """Say whether the chains start from the base image inverted, with this source's text.

        `stage` is the first.
        """
        word = rf"(?<!\w){re.escape(tuned.prompt)}(?!\w)"
        named = tuned.prompt and re.search(word, source, flags=re.IGNORECASE)
        brought = stage in tuned.weights and named
        return self.inversion == "on" or (self.inversion == "auto" and not brought)

    def chains(
        self,
        source: str,
        edits: Sequence[str],
        rows: Sequence[int],
        *,
        tokenize: Callable[[str], list[str]],
        offset: int,
        length: int,
    ) -> Chains:
        """Align each edit's text with the source's.

        `rows` are its source chain's, `offset` the first piece's place, `length` all places.
        """
        end = length - 1
        before = align.tokens(tokenize(source), offset=offset, end=end)
        A, c = [], []
        gone, new = torch.zeros(len(edits), length), torch.zeros(len(edits), length)
        for i, edit in enumerate(edits):
            after = align.tokens(tokenize(edit), offset=offset, end=end)
            A.append(align.partners(before, after, mode=self.mode, length=length))
            c.append(align.factors(after, self.reweight or {}, prompt=edit, length=length))
            lost, found = self._places(before, after, source, edit)
            gone[i, lost], new[i, found] = 1, 1
        differ = any(edit != source for edit in edits)
        words = WordMaps(gone, new, self.blend.layers) if self.blend else None
        return Chains(self, torch.tensor(rows), torch.tensor(A), torch.tensor(c), differ, words)

    def _places(
        self, before: align.Tokens, after: align.Tokens, source: str, edit: str
    ) -> tuple[list[int], list[int]]:
        """Places of the words that local blending looks at, in the source's text and the edit's."""
        words = self.blend.words if self.blend else ()
        if not words:
            return align.changed(before, after)
        gone, new = [], []
        for word in words:
            if word.lower() not in (*before.words, *after.words):
                after.of(word, f"{source} / {edit}")  # refuses
            for prompt, places in ((before, gone), (after, new)):
                places += prompt.of(word, edit) if word.lower() in prompt.words else []
        return gone, new


def shared(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Number equal keys alike: where each different key is first, and every key's number."""
    first = list(dict.fromkeys(keys))
    return [keys.index(key) for key in first], [first.index(key) for key in keys]


def _check_share(name: str, value: object) -> None:
    if not (number(value) and 0 <= value <= 1):  # type: ignore[operator]
        raise Refused(f"control.{name} must be in [0, 1], got {value!r}")
