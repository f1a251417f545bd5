"""Selection: the best of N samples, or a gate that rejects and redraws.

A CLIP chooses that does not score; what was not chosen stays on record beside it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch.nn.functional as F

from unitune.metrics.clip import ClipSource, features_of, text_features
from unitune.types import Draw, Edit, Example, Refused, number, whole

log = logging.getLogger(__name__)
T = TypeVar("T", Edit, Draw)
Redraw = Callable[[Sequence[Draw]], list[Edit]]


@dataclass(frozen=True)
class Choice:
    """One sample that was chosen: in the place of which planned one, and out of which.

    `empty` places of the same call have no sample that could be chosen; `vain` was tried for them,
    and all that were chosen share what it cost.
    """

    edit: Edit
    place: Edit
    candidates: Sequence[Edit]
    vain: Sequence[Edit] = ()
    empty: int = 0


class Selection(Protocol):
    """Chooses among the samples of one example; configs call it by its name."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def check(self, draws: Sequence[Draw]) -> None:
        """Refuse what cannot be chosen from the planned samples, and a CLIP that is missing."""
        ...

    def __call__(self, edits: Sequence[Edit], *, example: Example, redraw: Redraw) -> list[Choice]:
        """Choose; `redraw` takes more samples.

        `example` holds all edits of the image, also where a method prepares each apart.
        """
        ...


@dataclass(frozen=True)
class Best:
    """The best of the first `count` samples of each prompt, whatever their dials.

    That is the highest alignment + `keep` * similarity to the base: alignment alone favours edits
    that change too much. Both are cosines of the selecting CLIP, so that no metric of a table
    chose its own row.
    """

    clip: ClipSource
    count: int
    keep: float = 0.5
    name: str = "best"

    def __post_init__(self) -> None:
        if not (whole(self.count) and self.count >= 1):
            raise Refused(
                "selection.count must be a whole number of at least 1 "
                f"(samples of each prompt that are compared), got {self.count}"
            )
        if not number(self.keep):
            raise Refused(
                f"selection.keep must be a finite number (0 = alignment alone), got {self.keep}"
            )

    def check(self, draws: Sequence[Draw]) -> None:
        """Refuse fewer samples than are to be compared."""
        self.clip.load()
        fewest = min(len(group) for group in _by_prompt(draws))
        if fewest < self.count:
            raise Refused(
                f"selection.count={self.count} samples are to be compared and {fewest} drawn; "
                f"set seeds={self.count}, or lower selection.count"
            )

    def __call__(self, edits: Sequence[Edit], *, example: Example, redraw: Redraw) -> list[Choice]:
        """Choose one sample of each prompt; the first of equals."""
        clip = self.clip.load()
        chosen = []
        for group in _by_prompt(edits):
            group = group[: self.count]
            pictures = features_of(clip, [edit.image for edit in group])
            text = text_features(clip, [group[0].request.prompt])
            aligned = F.cosine_similarity(pictures, text)
            kept = F.cosine_similarity(pictures, features_of(clip, [example.image]))
            best = group[int((aligned + self.keep * kept).argmax())]
            chosen.append(Choice(best, best, group))
        return chosen


@dataclass(frozen=True)
class Gate:
    """Rejects samples that are malformed or off-prompt, and draws them again with the next seeds.

    Each is drawn again at most `redraws` times. Malformed: aligned with its prompt, by the
    selecting CLIP, by less than `threshold`. Off-prompt: nearer to another edit prompt of the
    image, or to its caption, than to its own.
    """

    clip: ClipSource
    threshold: float
    redraws: int = 3
    name: str = "gate"

    def __post_init__(self) -> None:
        if not (number(self.threshold) and -1 <= self.threshold <= 1):
            raise Refused(
                f"selection.threshold must be in [-1, 1] (a cosine), got {self.threshold}"
            )
        if not (whole(self.redraws) and self.redraws >= 0):
            raise Refused(
                f"selection.redraws must be a whole number of at least 0, got {self.redraws}"
            )

    def check(self, draws: Sequence[Draw]) -> None:
        """Refuse a CLIP that cannot be had."""
        self.clip.load()

    def __call__(self, edits: Sequence[Edit], *, example: Example, redraw: Redraw) -> list[Choice]:
        """Return what passed, at most one for each planned sample."""
        tries = [[edit] for edit in edits]  # at each place
        next_seed = {
            group[0].request.prompt: max(edit.seed for edit in group) + 1
            for group in _by_prompt(edits)
        }
        for _ in range(self.redraws):
            failed = [tried for tried in tries if not self.passes(tried[-1], example)]
            draws = []
            for first, *_ in failed:
                prompt = first.request.prompt
                draws.append(Draw(first.request, next_seed[prompt], first.weight, first.start))
                next_seed[prompt] += 1
            for tried, edit in zip(failed, redraw(draws) if draws else [], strict=True):
                tried.append(edit)
        passed, vain = [], []
        for tried in tries:
            if self.passes(tried[-1], example):
                passed.append(tried)
            else:
                vain += tried
        more, empty = sum(map(len, tries)) - len(edits), len(edits) - len(passed)
        said = "%s: %d of %d samples passed the gate after %d more; places that stay empty: %d"
        log.info(said, example.id, len(passed), len(edits), more, empty)
        return [Choice(tried[-1], tried[0], tried, vain, empty) for tried in passed]

    def passes(self, edit: Edit, example: Example) -> bool:
        """Whether a sample is aligned enough, and with no other text of its image more."""
        own = edit.request.prompt
        texts = [*(request.prompt for request in example.requests), example.caption]
        others = [text for text in texts if text.strip() and text != own]
        clip = self.clip.load()
        features = text_features(clip, [own, *others])
        aligned = F.cosine_similarity(features_of(clip, [edit.image]), features)
        return float(aligned[0]) >= self.threshold and bool((aligned[0] >= aligned[1:]).all())


def _by_prompt(samples: Sequence[T]) -> list[list[T]]:
    groups: dict[str, list[T]] = {}
    for sample in samples:
        groups.setdefault(sample.request.prompt, []).append(sample)
    return list(groups.values())
