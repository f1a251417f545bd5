"""Selection: the best of N samples, or a gate that rejects and redraws. A CLIP chooses that does not score; what was not chosen stays on record beside it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch.nn.functional as F

from unitune.metrics.clip import Clip, features_of, text_features
from unitune.types import Draw, Edit, Example, Refused, number, whole

log = logging.getLogger(__name__)
T = TypeVar("T", Edit, Draw)
Redraw = Callable[[Sequence[Draw]], list[Edit]]


class Selecting(Protocol):
    """A CLIP that is loaded when it is first asked."""

    def load(self) -> Clip: ...  # noqa: D102


@dataclass(frozen=True)
class Choice:
    """One sample that was chosen: in the place of which planned one, and out of which.

    `empty` places of the same call have no sample that could be chosen; `vain` was tried for them, and all that were chosen share what it cost.
    """

    edit: Edit
    place: Edit
    candidates: Sequence[Edit]
    vain: Sequence[Edit] = ()
    empty: int = 0


class Selection(Protocol):
    """Chooses among the samples of one example."""

    @property
    def name(self) -> str:
        """What configs call it."""
        ...

    def check(self, draws: Sequence[Draw]) -> None:
        """Refuse before a model is loaded what it cannot choose from the planned samples of an example, and a CLIP that cannot be had."""
        ...

    def __call__(self, edits: Sequence[Edit], *, example: Example, redraw: Redraw) -> list[Choice]:
        """Choose; `redraw` takes more samples. `example` holds all edits of the image, also where a method prepares each apart."""
        ...


@dataclass(frozen=True)
class Best:
    """The best of the first `count` samples of each prompt (of several dials' too, as the plan drew them), by alignment + `keep` * similarity to the base.

    Alignment alone favours edits that change too much. Both are cosines of the selecting CLIP, so that no metric of a table chose its own row.
    """

    clip: Selecting
    count: int
    keep: float = 0.5
    name: str = "best"

    def __post_init__(self) -> None:
        if not (whole(self.count) and self.count >= 1):
            raise Refused(
                f"selection.count must be a whole number of at least 1 (samples of each prompt that are compared), got {self.count}"
            )
        if not number(self.keep):
            raise Refused(
                f"selection.keep must be a finite number (0 = alignment alone), got {self.keep}"
            )

    def check(self, draws: Sequence[Draw]) -> None:
        """Refuse fewer samples than are to be compared."""
        self.clip.load()
        if (fewest := min(map(len, _by_prompt(draws)))) < self.count:
            raise Refused(
                f"selection.count={self.count} samples are to be compared and {fewest} drawn; set seeds={self.count}, or lower selection.count"
            )

    def __call__(self, edits: Sequence[Edit], *, example: Example, redraw: Redraw) -> list[Choice]:
        """Choose one sample of each prompt; the first of equals."""
        chosen = []
        for group in _by_prompt(edits):
            group = group[: self.count]
            pictures = features_of(self.clip.load(), [edit.image for edit in group])
            aligned = F.cosine_similarity(
                pictures, text_features(self.clip.load(), [group[0].request.prompt])
            )
            kept = F.cosine_similarity(pictures, features_of(self.clip.load(), [example.image]))
            best = group[int((aligned + self.keep * kept).argmax())]
            chosen.append(Choice(best, best, group))
        return chosen


@dataclass(frozen=True)
class Gate:
    """Rejects samples that the selecting CLIP finds malformed or off-prompt, and draws them again with the next seeds, at most `redraws` times each.

    Malformed: aligned with their prompt by less than `threshold`. Off-prompt: nearer to another edit prompt of the image, or to its caption, than to their own.
    """

    clip: Selecting
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
        """Return what passed, one for each planned sample, in order; a place where nothing did stays empty."""
        tried = {id(edit): [edit] for edit in edits}
        following = {
            group[0].request.prompt: max(edit.seed for edit in group) + 1
            for group in _by_prompt(edits)
        }
        for _ in range(self.redraws):
            failed = [place for place in edits if not self.passes(tried[id(place)][-1], example)]
            draws = []
            for place in failed:
                draws.append(
                    Draw(place.request, following[place.request.prompt], place.weight, place.start)
                )
                following[place.request.prompt] += 1
            for place, edit in zip(failed, redraw(draws) if draws else [], strict=True):
                tried[id(place)].append(edit)
        passed = [place for place in edits if self.passes(tried[id(place)][-1], example)]
        vain = [
            edit
            for place in edits
            if id(place) not in set(map(id, passed))
            for edit in tried[id(place)]
        ]
        more, empty = sum(map(len, tried.values())) - len(edits), len(edits) - len(passed)
        log.info(
            "%s: %d of %d samples passed the gate after %d more; places that stay empty: %d",
            example.id,
            len(passed),
            len(edits),
            more,
            empty,
        )
        return [
            Choice(tried[id(place)][-1], place, tried[id(place)], vain, empty) for place in passed
        ]

    def passes(self, edit: Edit, example: Example) -> bool:
        """Say whether a sample is aligned enough, and with no other text of its image more than with its own."""
        own = edit.request.prompt
        others = [
            text
            for text in (*(request.prompt for request in example.requests), example.caption)
            if text.strip() and text != own
        ]
        picture = features_of(self.clip.load(), [edit.image])
        aligned = F.cosine_similarity(picture, text_features(self.clip.load(), [own, *others]))
        return float(aligned[0]) >= self.threshold and bool((aligned[0] >= aligned[1:]).all())


def _by_prompt(samples: Sequence[T]) -> list[list[T]]:
    groups: dict[str, list[T]] = {}
    for sample in samples:
        groups.setdefault(sample.request.prompt, []).append(sample)
    return list(groups.values())
