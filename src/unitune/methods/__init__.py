"""Editing methods: each is only another way to make weights or embeddings BEFORE the one sampler; sampling, noise, scores and records are shared.

A new method is a frozen dataclass with a `name` and `prepare(cascade, example, ...) -> Tuned`.
"""

from typing import Protocol

from unitune.backends.cascade import Cascade
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

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Tune, or take the stored result; `at` picks a snapshot of the tuning by its step (None: the last, 0: untouched weights)."""
        ...
