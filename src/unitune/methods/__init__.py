"""Editing methods: each says with a recipe what is made of an image BEFORE the one sampler.

Sampling, noise, scores and records are shared. A new method is a frozen dataclass with a `name` and
a `recipe`; `tuning.make` does what recipes ask for.
"""

from typing import Protocol

from unitune.tuning.recipe import Recipe
from unitune.types import Example


class Method(Protocol):
    """Says what the sampler needs for one image."""

    @property
    def name(self) -> str:
        """Label of tables."""
        ...

    def recipe(self, example: Example) -> Recipe:
        """Say what is to be made of the image; Refused where that cannot be."""
        ...
