"""Prompt-to-Prompt (arXiv 2208.01626) as maps on attention probabilities, and which token of an edited prompt continues which of the source prompt.

M are the probabilities of the source prompt's chain, M* (`M_star`) those of the edited one's; a row is a pixel's, a column a text token's. Where a network
joins text and pixels in one softmax, the columns of pixels follow those of text, and only `massed` sees them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune.types import Refused

Maps = Float[Tensor, "B heads N L"]
Partners = Int[
    Tensor, "B L"
]  # A(j): the source token that token j of the edit continues, NONE where it is new
Factors = Float[Tensor, "B L"]
NONE = -1
MODES = ("auto", "swap", "refine")


def refine(M: Maps, M_star: Maps, A: Partners) -> Maps:
    """M[i, A(j)] where token j has a partner, M*[i, j] where it is new (section 3.2); swap is A(j) = j for every token."""
    columns = A.to(M.device)[:, None, None, :].expand_as(M_star)
    return torch.where(columns >= 0, M.gather(-1, columns.clamp(min=0)), M_star)


def massed(M: Maps, M_star: Maps) -> Maps:
    """M with every row scaled to the mass of M*'s, for a part of a softmax that is taken alone; M* where M has none."""
    # A quotient of equal masses is 1, so that equal maps stay equal to the bit.
    mass = M.sum(-1, keepdim=True)
    return torch.where(
        mass > 0,
        M * (M_star.sum(-1, keepdim=True) / mass.clamp(min=torch.finfo(M.dtype).tiny)),
        M_star,
    )


def reweight(M: Maps, c: Factors) -> Maps:
    """c(j) M[i, j]: a word counts more, less, or against its meaning; rows do not sum to 1 then, in the paper neither."""
    return c.to(M)[:, None, None, :] * M


@dataclass(frozen=True)
class Tokens:
    """A prompt cut into pieces, and which word each belongs to; the first of them stands at `offset` of the L places that the network reads."""

    words: tuple[str, ...]
    places: tuple[range, ...]  # of each word's pieces

    @property
    def end(self) -> int:
        """Place of the end mark."""
        return self.places[-1].stop

    def of(self, word: str, prompt: str) -> list[int]:
        """Places of a word's pieces, wherever it stands; Refused where it does not."""
        found = [
            place
            for known, places in zip(self.words, self.places, strict=True)
            if known == word.lower()
            for place in places
        ]
        if not found:
            raise Refused(
                f"the word {word!r} of sampler.control is not in {prompt!r}; its words are: {', '.join(dict.fromkeys(self.words))}"
            )
        return found


def tokens(pieces: Sequence[str], *, offset: int, end: int) -> Tokens:
    """Group a tokenizer's pieces into words, lower case; what does not stand before place `end` is cut off, as the network never reads it.

    SentencePiece marks a word's beginning with "▁", CLIP's vocabulary its end with "</w>". Punctuation is a word of its own, which SentencePiece does not mark.
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
            "a prompt without words cannot be aligned with another; describe the picture and the desired result"
        )
    return Tokens(tuple(words), tuple(places))


def changed(source: Tokens, edit: Tokens) -> tuple[list[int], list[int]]:
    """Places of the words that only the source prompt has, and of those that only the edit has."""
    blocks = [block for block in _blocks(source, edit) if block[0] != "equal"]
    gone = [place for _, i, j, _, _ in blocks for places in source.places[i:j] for place in places]
    new = [place for _, _, _, i, j in blocks for places in edit.places[i:j] for place in places]
    return gone, new


def partners(source: Tokens, edit: Tokens, *, mode: str, length: int) -> list[int]:
    """A(j) for each of `length` places. `auto` swaps where words are only replaced, by others of as many tokens, and refines otherwise."""
    if mode == "auto":
        mode = (
            "swap"
            if [len(p) for p in source.places] == [len(p) for p in edit.places]
            and _shared(source, edit)
            else "refine"
        )
    if mode == "swap":
        if source.end != edit.end:
            counts = ", ".join(
                f"{word} {len(places)}"
                for t in (source, edit)
                for word, places in zip(t.words, t.places, strict=True)
                if _alone(word, source, edit)
            )
            raise Refused(
                f"swap needs prompts of equally many tokens: {' '.join(source.words)!r} has {_count(source)}, {' '.join(edit.words)!r} {_count(edit)} "
                f"(tokens of the words that differ: {counts}); use sampler.control.mode=refine"
            )
        return list(range(length))
    if not _shared(source, edit):
        raise Refused(
            f"the prompts {' '.join(source.words)!r} and {' '.join(edit.words)!r} share no word, so attention cannot be carried over; reword the edit"
        )
    A = [NONE] * length
    A[: edit.places[0].start] = range(edit.places[0].start)  # the begin mark, where there is one
    for _, i, _, k, end in (block for block in _blocks(source, edit) if block[0] == "equal"):
        for here, there in zip(source.places[i : i + end - k], edit.places[k:end], strict=True):
            for a, j in zip(here, there, strict=False):
                A[j] = a
    # End mark and padding, which the network reads too, continue those of the source as far as it has as many.
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


def _blocks(source: Tokens, edit: Tokens) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, source.words, edit.words, autojunk=False).get_opcodes()


def _shared(source: Tokens, edit: Tokens) -> bool:
    return any(block[0] == "equal" for block in _blocks(source, edit))


def _alone(word: str, *prompts: Tokens) -> bool:
    return not all(word in prompt.words for prompt in prompts)


def _count(prompt: Tokens) -> int:
    return sum(map(len, prompt.places))
