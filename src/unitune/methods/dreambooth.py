"""DreamBooth (arXiv 2208.12242): tune on the image as "a [V] class" beside pictures of the class.

The untouched model makes those, so that only [V] changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unitune.tuning.class_images import ClassImages
from unitune.tuning.recipe import Prior, Recipe, Tuning, chosen
from unitune.types import Example, Refused, number


@dataclass(frozen=True)
class DreamBooth:
    """`token` is the rare identifier [V] ("{random}": the paper's rule).

    `identifier` takes the place of a token that is a description of the image ("{caption}").
    `prompt` is what the image is tuned on, `class_prompt` its class. `prior` is lambda, the weight
    of prior preservation; 0 tunes without it. Of every batch as many rows are class images as draws
    of the image.
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

    def __post_init__(self) -> None:
        chosen(self.tune, self.stages)
        if not (number(self.prior) and self.prior >= 0):
            raise Refused(
                "method.prior (lambda) must be 0 (no prior preservation) or a finite number above, "
                f"got {self.prior!r}"
            )

    def recipe(self, example: Example) -> Recipe:
        """Tune weights on the prompt with the identifier, beside its class's."""
        token = self.identifier if "{caption}" in self.token else self.token
        if not token:
            raise Refused(
                "method=dreambooth puts a rare word before the noun, and a description is none; "
                "choose token=beikkpic or token=random"
            )
        weights = chosen(self.tune, self.stages)
        prior = Prior(self.prior, self.class_prompt, self.class_images) if self.prior else None
        return Recipe(
            "dreambooth", token, self.prompt, self.template, apart=self.class_prompt,
            weights=weights, prior=prior,
        )  # fmt: skip
