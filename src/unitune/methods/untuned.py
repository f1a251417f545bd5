"""The base model as it is: with a late start this is SDEdit, without one plain text-to-image."""

from dataclasses import dataclass

from unitune.backends.cascade import Cascade
from unitune.store import Store
from unitune.tuning.finetune import StepDone
from unitune.types import Example, Tuned


@dataclass(frozen=True)
class Untuned:
    """Change nothing; the prompt has no rare token."""

    name: str = "untuned"
    prompt: str = ""

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Return no weights."""
        return Tuned()
