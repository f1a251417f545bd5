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

    `uncaptioned` takes its place for an image whose caption is not known; "" refuses such an image. `stages` are tuned, each as `tune` says.
    An edit is sampled by `template`; "" writes the rare token before it, and the edit alone where the image was tuned on its description.
    """

    tune: Mapping[str, Tuning]
    stages: Sequence[str] = ("base", "sr256")
    prompt: str = "beikkpic"
    uncaptioned: str = ""
    name: str = "unitune"
    template: str = ""
    per_request: bool = False
    learns_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        weights.check(self.tune, self.stages)

    @property
    def needs_noun(self) -> bool:
        """Where a template has it."""
        return prompts.needs_noun(self.prompt, self.uncaptioned, self.template)

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

    def names(self, cascade: Cascade, example: Example, *, seed: int) -> Tuned:
        """Return the tuning prompt: as it is, a caption, or drawn by the seed."""
        described = "{caption}" in self.prompt
        prompt = self.uncaptioned if described and self.uncaptioned and not example.caption.strip() else self.prompt
        text = weights.rare(prompt, cascade, example, seed=seed)
        template = self.template or ("{edit}" if "{caption}" in prompt else "{rare} {edit}")
        return Tuned(text, template=template, about=text)

    def apart(self, cascade: Cascade, example: Example, *, seed: int) -> tuple[str, str] | None:
        """Return the tuning prompt, and the empty one that guidance pushes away from."""
        return self.names(cascade, example, seed=seed).about, ""

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> list[str]:
        """List the tuning prompt."""
        return [self.names(cascade, example, seed=seed).about]

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Compare the weights with the base's."""
        return weights.unmoved(cascade, tuned)

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Tune each stage for its steps, or read the stored result. The sampler, the edit prompts and `at` never tune again."""
        names = self.names(cascade, example, seed=seed)
        prompt = names.prompt
        key = {"recipe": "unitune", "prompt": prompt, "seed": seed, "image": example.digest}

        def batches(stage: str, tuning: Tuning) -> OneImage:
            return OneImage(cascade.stage(stage), example, cascade.encode([prompt]), seed, tuning.batch_size, tuning.dials)

        recipe = weights.Recipe(self.chosen, batches, lambda stage: key, names)
        return weights.tuned(recipe, cascade, store=store, at=at, report=report)
