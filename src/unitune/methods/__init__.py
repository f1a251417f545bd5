"""Editing methods: each is only another way to make weights or embeddings BEFORE the one sampler; sampling, noise, scores and records are shared.

A new method is a frozen dataclass with a `name` and `prepare(cascade, example, ...) -> Tuned`.
"""

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
    def prompt(self) -> str:
        """The tuning prompt, "" where nothing is tuned."""
        ...

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Refuse what cannot be tuned in stages of these parameters; return the bytes of one image's result and those that making it takes besides."""
        ...

    def rare(self, cascade: Cascade, example: Example, *, seed: int) -> str:
        """Return the tuning prompt of an example, its placeholders filled."""
        ...

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Tune, or take the stored result; `at` picks a snapshot of the tuning by its step (None: the last, 0: untouched weights)."""
        ...
