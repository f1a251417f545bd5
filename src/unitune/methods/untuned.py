"""The base model as it is: with a late start this is SDEdit, without one plain text-to-image."""

from dataclasses import dataclass

from unitune.tuning.recipe import Recipe
from unitune.types import Example


@dataclass(frozen=True)
class Untuned:
    """Change nothing; the prompt has no rare token."""

    name: str = "untuned"
    template: str = "{edit}"

    def recipe(self, example: Example) -> Recipe:
        """Return the empty recipe."""
        return Recipe(template=self.template)
