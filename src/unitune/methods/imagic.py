"""Imagic (arXiv 2210.09276): optimise the edit prompt's embedding, then the weights around it; sampling mixes the two embeddings (sampler.embedding_mix)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch

from unitune import prompts
from unitune.backends.cascade import Cascade
from unitune.methods import weights
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning import embedding
from unitune.tuning.embedding import Told
from unitune.tuning.finetune import StepDone, Tuning
from unitune.types import Cost, Example, Refused, Tuned, number

LARGEST = 77 * 4096  # numbers of a prompt's embedding by T5-XXL


@dataclass(frozen=True)
class Imagic:
    """`share` of the first stage's steps optimise the embedding (as `embedding` says), the rest the weights; later stages are tuned on the prompt itself.

    The result belongs to one edit prompt. How the embeddings are mixed is the sampler's and tunes nothing again.
    """

    embedding: Tuning
    tune: Mapping[str, Tuning]
    stages: Sequence[str] = ("base", "sr256")
    share: float = 0.25
    name: str = "imagic"
    template: str = "{edit}"
    per_request: bool = True
    learns_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        weights.check(self.tune, self.stages)
        if not (number(self.share) and 0 <= self.share <= 1):
            raise Refused(f"method.share must be in [0, 1] (of the first stage's steps, for the embedding), got {self.share}")

    @property
    def needs_noun(self) -> bool:
        """Where a template has it."""
        return prompts.needs_noun(self.template)

    @property
    def optimise(self) -> Tuning:
        """How the embedding is optimised; at least one step of those that the first stage has."""
        return replace(self.embedding, steps=math.ceil(self.share * self.embedding.steps), snapshots=())

    @property
    def makes(self) -> set[str]:
        """What the store keeps of an image."""
        return {*self.stages, "embedding"}

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Refuse a snapshot that is not kept. Count the bytes of trained weights, and of the largest embedding with its start, checkpoint and moments."""
        kept, working = weights.room(self._left(next(iter(sizes or self.stages), "")), sizes, at=at)
        return (0, 0) if at == 0 else (kept + 2 * 4 * LARGEST, working + 8 * 4 * LARGEST)

    def names(self, cascade: Cascade, example: Example, *, seed: int) -> Tuned:
        """Return no name: the edit prompt itself stands for the image."""
        return Tuned(template=self.template)

    def apart(self, cascade: Cascade, example: Example, *, seed: int) -> None:
        """Tie no text but the edit's own to the image."""

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> list[str]:
        """List the edit prompts."""
        return [self._text(replace(example, requests=(request,))) for request in example.requests]

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Compare the embedding with the prompt's own, and the weights with the base's."""
        if tuned.embedding is not None and tuned.start is not None and torch.equal(tuned.embedding, tuned.start):
            return "the embedding of the edit prompt did not move; use a larger method.embedding.lr"
        return weights.unmoved(cascade, tuned)

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Optimise the embedding, then tune each stage, for the example's one request; or read the stored results."""
        if at == 0:
            return self.names(cascade, example, seed=seed)
        text, first, optimise = self._text(example), cascade.stages[0], self.optimise
        weights.check_kept(tune := self._left(first.name), at)
        e_opt = e_tgt = cascade.encode([text])
        key = {"recipe": "imagic", "text": text, "weights": cascade.digest, "arithmetic": [first.arithmetic, cascade.words.arithmetic]}
        found = None
        if optimise.steps:
            lesson = embedding.Lesson(first, optimise, lambda: e_tgt, lambda e, k: e, key, cascade.release)
            found = embedding.learn(lesson, example, seed=seed, step=optimise.steps, store=store, report=report)
            e_opt = found.tensor

        def batches(stage: str, tuning: Tuning) -> Told:
            data = embedding.pictures(cascade.stage(stage), example, seed=seed, tuning=tuning)
            # The first stage's weights go on with the noise where the embedding stopped.
            return Told(data, lambda k: e_opt, optimise.steps) if stage == first.name else Told(data, lambda k: e_tgt)

        def named(stage: str) -> dict[str, object]:
            about: dict[str, object] = {"recipe": "imagic", "text": text, "seed": seed, "image": example.digest}
            return about | {"optimise": asdict(optimise)} if stage == first.name else about  # later stages see the prompt itself

        recipe = weights.Recipe(tune, batches, named, Tuned(template=self.template), before=lambda: Cost() if found is None else found.cost)
        made = weights.tuned(recipe, cascade, store=store, at=at, report=report)
        if found is None:
            return made
        cost = made.cost if any(tuning.steps for tuning in tune.values()) else found.cost
        return replace(made, embedding=found.tensor, start=found.start, cost=cost)

    def _left(self, first: str) -> dict[str, Tuning]:
        """How the weights are tuned: the model's first stage for the steps that the embedding leaves it."""
        tune = {stage: self.tune[stage] for stage in self.stages}
        return {name: replace(t, steps=max(0, t.steps - self.optimise.steps)) if name == first else t for name, t in tune.items()}

    def _text(self, example: Example) -> str:
        (request,) = example.requests
        return prompts.fill(self.template, rare="", edit=request.prompt, caption=example.caption, noun=example.noun)
