"""Prompt-to-Prompt as maps on attention probabilities, and which token continues which.

Hertz et al. (2022), arXiv 2208.01626. M are the probabilities of the source prompt's chain, M*
(`M_star`) those of the edited one's; a row is a pixel's, a column a text token's. Where a network
joins text and pixels in one softmax, the columns of pixels follow those of text, and only `massed`
sees them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune.types import Refused

Maps = Float[Tensor, "B heads N L"]
# A(j): the source token that token j of the edit continues, NONE where it is new.
Partners = Int[Tensor, "B L"]
Factors = Float[Tensor, "B L"]
NONE = -1
MODES = ("auto", "swap", "refine")


def refine(M: Maps, M_star: Maps, A: Partners) -> Maps:
    """M[i, A(j)] where token j has a partner, M*[i, j] where it is new (section 3.2).

    Swap is A(j) = j for every token.
    """
    columns = A.to(M.device)[:, None, None, :].expand_as(M_star)
    return torch.where(columns >= 0, M.gather(-1, columns.clamp(min=0)), M_star)


def massed(M: Maps, M_star: Maps) -> Maps:
    """M with every row scaled to the mass of M*'s, for a part of a softmax that is taken alone.

    M* where M has no mass. A quotient of equal masses is 1: equal maps stay equal to the bit.
    """
    mass = M.sum(-1, keepdim=True)
    share = M_star.sum(-1, keepdim=True) / mass.clamp(min=torch.finfo(M.dtype).tiny)
    return torch.where(mass > 0, M * share, M_star)


def reweight(M: Maps, c: Factors) -> Maps:
    """c(j) M[i, j]: a word counts more, less, or against its meaning.

    Rows do not sum to 1 then, in the paper neither.
    """
    return c.to(M)[:, None, None, :] * M


@dataclass(frozen=True)
class Tokens:
    """A prompt's words, and the places of each word's pieces among those the network reads."""

    words: tuple[str, ...]
    places: tuple[range, ...]

    @property
    def end(self) -> int:
        """Place of the end mark."""
        return self.places[-1].stop

    def of(self, word: str, prompt: str) -> list[int]:
        """Places of a word's pieces, wherever it stands; Refused where it does not."""
        named = zip(self.words, self.places, strict=True)
        found = [place for known, places in named if known == word.lower() for place in places]
        if not found:
            raise Refused(
                f"the word {word!r} of sampler.control is not in {prompt!r}; "
                f"its words are: {', '.join(dict.fromkeys(self.words))}"
            )
        return found


def tokens(pieces: Sequence[str], *, offset: int, end: int) -> Tokens:
    """Group a tokenizer's pieces, the first of them at place `offset`, into words, lower case.

    What does not stand before place `end` is cut off, as the network never reads it. SentencePiece
    marks a word's beginning with "▁", CLIP's vocabulary its end with "</w>". Punctuation is a word
    of its own, which SentencePiece does not mark.
    """
    words: list[str] = []
    places: list[range] = []
    closed = True
    for place, piece in enumerate(pieces[: end - offset], start=offset):
        text = piece.removeprefix("▁").removesuffix("</w>").lower()
        if closed or piece.startswith("▁") or (words[-1] and _spelled(text) != _spelled(words[-1])):
            words.append("")
            places.append(range(place, place))
        words[-1] += text
        places[-1] = range(places[-1].start, place + 1)
        closed = piece.endswith("</w>")
    if not words:
        raise Refused(
            "a prompt without words cannot be aligned with another; "
            "describe the picture and the desired result"
        )
    return Tokens(tuple(words), tuple(places))


def changed(source: Tokens, edit: Tokens) -> tuple[list[int], list[int]]:
    """Places of the words that only the source prompt has, and of those that only the edit has."""
    pairs = _pairs(source, edit)
    shared = {i for i, _ in pairs}, {j for _, j in pairs}
    gone, new = (
        [place for k, places in enumerate(prompt.places) if k not in kept for place in places]
        for prompt, kept in zip((source, edit), shared, strict=True)
    )
    return gone, new


def partners(source: Tokens, edit: Tokens, *, mode: str, length: int) -> list[int]:
    """A(j) for each of `length` places.

    `auto` swaps where words are only replaced, by others of as many tokens, and refines otherwise.
    """
    pairs = _pairs(source, edit)
    said, asked = " ".join(source.words), " ".join(edit.words)
    alike = [len(p) for p in source.places] == [len(p) for p in edit.places]
    if mode == "swap" or (mode == "auto" and alike and pairs):
        if source.end != edit.end:
            counts = ", ".join(
                f"{word} {len(places)}"
                for prompt, other in ((source, edit), (edit, source))
                for word, places in zip(prompt.words, prompt.places, strict=True)
                if word not in other.words
            )
            had, has = (sum(map(len, prompt.places)) for prompt in (source, edit))
            raise Refused(
                f"swap needs prompts of equally many tokens: {said!r} has {had}, {asked!r} {has} "
                f"(tokens of the words that differ: {counts}); use sampler.control.mode=refine"
            )
        return list(range(length))
    if not pairs:
        raise Refused(
            f"the prompts {said!r} and {asked!r} share no word, so attention cannot be carried "
            "over; reword the edit"
        )
    A = [NONE] * length
    A[: edit.places[0].start] = range(edit.places[0].start)  # the begin mark, where there is one
    for i, j in pairs:
        for here, there in zip(source.places[i], edit.places[j], strict=False):
            A[there] = here
    # End mark and padding, which the network reads too, continue those of the source as far as it
    # has as many.
    shift = source.end - edit.end
    for j in range(edit.end, length):
        A[j] = j + shift if j + shift < length else NONE
    return A


def factors(edit: Tokens, weights: Mapping[str, float], *, prompt: str, length: int) -> list[float]:
    """c(j) for each of `length` places: a word's tokens get its number, all others 1."""
    c = [1.0] * length
    for word, weight in weights.items():
        for place in edit.of(word, prompt):
            c[place] = float(weight)
    return c


def _spelled(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return any(letter.isalnum() for letter in text)


def _pairs(source: Tokens, edit: Tokens) -> list[tuple[int, int]]:
    """The words that both prompts have in the same order, by their numbers."""
    blocks = SequenceMatcher(None, source.words, edit.words, autojunk=False).get_matching_blocks()
    return [(i + n, j + n) for i, j, size in blocks for n in range(size)]
