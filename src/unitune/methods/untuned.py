"""The base model as it is: with a late start this is SDEdit, without one plain text-to-image."""

from dataclasses import dataclass
from typing import ClassVar

from unitune.backends.cascade import Cascade
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning.finetune import StepDone
from unitune.types import Example, Tuned


@dataclass(frozen=True)
class Untuned:
    """Change nothing; the prompt has no rare token."""

    name: str = "untuned"
    template: str = "{edit}"
    per_request: bool = False
    learns_text: ClassVar[bool] = False
    needs_noun: ClassVar[bool] = False

    @property
    def makes(self) -> set[str]:
        """What the store keeps of an image."""
        return set()

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Take no room."""
        return 0, 0

    def names(self, cascade: Cascade, example: Example, *, seed: int) -> Tuned:
        """Return no name."""
        return Tuned(template=self.template)

    def apart(self, cascade: Cascade, example: Example, *, seed: int) -> None:
        """Tie no text to the image."""

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> list[str]:
        """Need none."""
        return []

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Doing nothing is what was asked for."""
        return ""

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Return no weights."""
        return Tuned()
