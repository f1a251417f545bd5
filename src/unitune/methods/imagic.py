"""Imagic (arXiv 2210.09276): optimise the edit prompt's embedding, then the weights around it.

Sampling mixes the optimised embedding with the prompt's own (sampler.text).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unitune.tuning.recipe import Recipe, Tuning, chosen
from unitune.types import Example, Refused, number


@dataclass(frozen=True)
class Imagic:
    """`share` of the first stage's steps optimise the embedding (as `embedding` says).

    The rest tune its weights; later stages are tuned on the prompt itself. The result belongs to
    one edit prompt. How the embeddings are mixed is the sampler's and tunes nothing again.
    """

    embedding: Tuning
    tune: Mapping[str, Tuning]
    stages: Sequence[str] = ("base", "sr256")
    share: float = 0.25
    name: str = "imagic"
    template: str = "{edit}"

    def __post_init__(self) -> None:
        chosen(self.tune, self.stages)
        if not (number(self.share) and 0 <= self.share <= 1):
            raise Refused(
                "method.share must be in [0, 1] (of the first stage's steps, for the embedding), "
                f"got {self.share}"
            )

    def recipe(self, example: Example) -> Recipe:
        """Optimise the embedding for at least one of the steps, then tune the weights."""
        steps = math.ceil(self.share * self.embedding.steps)
        embedding = replace(self.embedding, steps=steps, snapshots=())
        weights = chosen(self.tune, self.stages)
        return Recipe("imagic", template=self.template, weights=weights, embedding=embedding)
