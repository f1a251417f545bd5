"""Editing methods: each is only another way to make weights or embeddings BEFORE the one sampler; sampling, noise, scores and records are shared.

A new method is a frozen dataclass with a `name` and `prepare(cascade, example, ...) -> Tuned`; the rest of the protocol is a line or two each.
"""

from collections.abc import Collection
from typing import Protocol

from unitune.backends.cascade import Cascade
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning.finetune import StepDone
from unitune.types import Example, Tuned


class Method(Protocol):
    """Makes what the sampler needs for one image."""

    @property
    def name(self) -> str:
        """Label of tables."""
        ...

    @property
    def per_request(self) -> bool:
        """Whether the result belongs to one edit prompt (Imagic) and not to the image: it is then given examples of one request each."""
        ...

    @property
    def needs_noun(self) -> bool:
        """Whether the class noun of the image must be known."""
        ...

    @property
    def learns_text(self) -> bool:
        """Whether words or embeddings are learned: no tokenizer says where in a prompt they stand."""
        ...

    @property
    def makes(self) -> Collection[str]:
        """What the store keeps of an image: names of tuned stages, and "embedding"."""
        ...

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Refuse what cannot be tuned in stages of these parameters; return the bytes of one image's result and those that making it takes besides."""
        ...

    def names(self, cascade: Cascade, example: Example, *, seed: int) -> Tuned:
        """Return what sampling is told of the image before anything is made: its name in prompts, the template, the whole text that is tuned on."""
        ...

    def apart(self, cascade: Cascade, example: Example, *, seed: int) -> tuple[str, str] | None:
        """Return the text that tuning ties to the image, and the text that must stay apart from it; None where no weights are tuned on a text that names it."""
        ...

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> list[str] | None:
        """List the texts that preparing embeds; None where prompts hold a word that has no embedding before."""
        ...

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Say in what way the result equals doing nothing although something was asked for; "" where it does not."""
        ...

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Tune, or take the stored result; `at` picks a snapshot of the tuning by its step (None: the last, 0: untouched weights)."""
        ...
