"""UniTune (arXiv 2210.09477): tune the base and the 64->256 stage on the pair (image, rare token), nothing else in the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from unitune import prompts
from unitune.backends.cascade import Cascade
from unitune.methods import weights
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import StepDone, Tuning
from unitune.types import Example, Tuned


@dataclass(frozen=True)
class UniTune:
    """`prompt` is the tuning prompt: rare tokens, "{caption}" for the description variant, "{random}" for DreamBooth's rule.

    `stages` are tuned, each as `tune` says.
    """

    tune: Mapping[str, Tuning]
    stages: Sequence[str] = ("base", "sr256")
    prompt: str = "beikkpic"
    name: str = "unitune"
    template: str = "{rare} {edit}"
    per_request: bool = False
    learns_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        weights.check(self.tune, self.stages)

    @property
    def needs_noun(self) -> bool:
        """Where a template has it."""
        return prompts.needs_noun(self.prompt, self.template)

    @property
    def chosen(self) -> dict[str, Tuning]:
        """How the tuned stages are tuned."""
        return {stage: self.tune[stage] for stage in self.stages}

    @property
    def makes(self) -> set[str]:
        """What the store keeps of an image."""
        return {*self.stages}

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Count the bytes of trained weights."""
        return weights.room(self.chosen, sizes, at=at)

    def rare(self, cascade: Cascade, example: Example, *, seed: int) -> str:
        """Return the tuning prompt: as it is, a caption, or drawn by the seed."""
        return weights.rare(self.prompt, cascade, example, seed=seed)

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> list[str]:
        """List the tuning prompt."""
        return [self.rare(cascade, example, seed=seed)]

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Compare the weights with the base's."""
        return weights.unmoved(cascade, tuned)

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Tune each stage for its steps, or read the stored result. The sampler, the edit prompts and `at` never tune again."""
        prompt = self.rare(cascade, example, seed=seed)
        key = {"recipe": "unitune", "prompt": prompt, "seed": seed, "image": example.digest}

        def batches(stage: str, tuning: Tuning) -> OneImage:
            return OneImage(cascade.stage(stage), example, cascade.encode([prompt]), seed, tuning.batch_size, tuning.crop, tuning.low_level)

        recipe = weights.Recipe(self.chosen, batches, lambda stage: key, prompt, self.template)
        return weights.tuned(recipe, cascade, store=store, at=at, report=report)
