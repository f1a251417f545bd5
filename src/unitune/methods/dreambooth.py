"""DreamBooth (arXiv 2208.12242): tune on the image as "a [V] class", beside pictures of the class made by the untouched model, so that only [V] changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

from torch import Tensor

from unitune import prompts
from unitune.backends.cascade import Cascade
from unitune.methods import weights
from unitune.methods.class_images import ClassImages
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning.data import Batches, OneImage
from unitune.tuning.finetune import StepDone, Tuning
from unitune.tuning.prior import Pictures, WithPrior
from unitune.types import Cost, Example, Refused, Tuned, number

LARGEST_PICTURE = 3 * 512**2  # bytes of a class image, for estimates


@dataclass(frozen=True)
class DreamBooth:
    """`token` is the rare identifier [V] ("{random}": the paper's rule), `prompt` what the image is tuned on, `class_prompt` its class.

    `identifier` takes the place of a `token` that is a description of the image ("{caption}").
    `prior` is lambda, the weight of prior preservation; 0 tunes without it. Of every batch as many rows are class images as draws of the image.
    """

    tune: Mapping[str, Tuning]
    stages: Sequence[str] = ("base", "sr256")
    token: str = "beikkpic"
    identifier: str = "beikkpic"
    prompt: str = "a {rare} {noun}"
    class_prompt: str = "a {noun}"
    prior: float = 1.0
    class_images: ClassImages = field(default_factory=ClassImages)
    name: str = "dreambooth"
    template: str = "{named}"
    per_request: bool = False
    learns_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        weights.check(self.tune, self.stages)
        if not (number(self.prior) and self.prior >= 0):
            raise Refused(f"method.prior (lambda) must be 0 (no prior preservation) or a finite number above, got {self.prior!r}")

    @property
    def needs_noun(self) -> bool:
        """Where a template has it."""
        return prompts.needs_noun(self.prompt, self.class_prompt, self.template)

    @property
    def chosen(self) -> dict[str, Tuning]:
        """How the tuned stages are tuned."""
        return {stage: self.tune[stage] for stage in self.stages}

    @property
    def makes(self) -> set[str]:
        """What the store keeps of an image."""
        return {*self.stages}

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Count the bytes of trained weights, and of class images, which all images of a class share."""
        kept, working = weights.room(self.chosen, sizes, at=at)
        return kept, working + (2 * self.class_images.count * LARGEST_PICTURE if working and self.prior else 0)

    def names(self, cascade: Cascade, example: Example, *, seed: int) -> Tuned:
        """Return the identifier, and the prompt that it stands in."""
        token = self.identifier if "{caption}" in self.token else self.token
        if not token:
            raise Refused("method=dreambooth puts a rare word before the noun, and a description is none; choose token=beikkpic or token=random")
        rare = weights.rare(token, cascade, example, seed=seed)
        return Tuned(rare, template=self.template, about=self._filled(self.prompt, rare, example))

    def apart(self, cascade: Cascade, example: Example, *, seed: int) -> tuple[str, str] | None:
        """Return the prompt with the identifier, and its class's."""
        return self.names(cascade, example, seed=seed).about, self._filled(self.class_prompt, "", example)

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> list[str]:
        """List what is tuned on, and the empty prompt, which the class images are guided away from."""
        texts = [self.names(cascade, example, seed=seed).about]
        return [*texts, self._filled(self.class_prompt, "", example), ""] if self.prior else texts

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Compare the weights with the base's; missing class images stop the tuning itself."""
        return weights.unmoved(cascade, tuned)

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Tune each stage for its steps, or read the stored result; class images are sampled before, once for all images of the class."""
        names = self.names(cascade, example, seed=seed)
        prompt, of_class = names.about, self._filled(self.class_prompt, "", example)
        order = [stage.name for stage in cascade.stages]
        stages = max((order[: 1 + order.index(stage)] for stage in self.stages), key=len, default=[])  # a super-resolution stage needs what it super-resolves

        def key(stage: str) -> dict[str, object]:
            about: dict[str, object] = {"recipe": "dreambooth", "prompt": prompt, "seed": seed, "image": example.digest, "prior": self.prior}
            own = order[: 1 + order.index(stage)]  # the pictures of a stage do not depend on later ones
            return about | {"class_images": self.class_images.key(cascade, of_class, stages=own, seed=seed)} if self.prior else about

        @cache
        def pictures() -> tuple[dict[str, Tensor], Cost]:
            return self.class_images.pictures(cascade, of_class, stages=stages, store=store, seed=seed)

        def batches(name: str, tuning: Tuning) -> Batches:
            stage, text = cascade.stage(name), cascade.encode([prompt])
            one = OneImage(stage, example, text, seed, tuning.batch_size, tuning.dials)
            if not self.prior:
                return one
            made, before = pictures()[0], order.index(name) - 1
            lows = made[order[before]] if stage.low_resolution else None
            other = Pictures(stage, made[name], lows, cascade.encode([of_class]), of_class, seed, tuning.batch_size, tuning.dials)
            return WithPrior(one, other, self.prior)

        recipe = weights.Recipe(self.chosen, batches, key, names, before=(lambda: pictures()[1]) if self.prior else Cost)
        return weights.tuned(recipe, cascade, store=store, at=at, report=report)

    def _filled(self, template: str, rare: str, example: Example) -> str:
        return prompts.fill(template, rare=rare, edit="", caption=example.caption, noun=example.noun)
