"""UniTune (arXiv 2210.09477): tune the base and the 64->256 stage on the pair (image, rare token).

There is nothing else in the loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitune.tuning.recipe import Recipe, Tuning, chosen
from unitune.types import Example


@dataclass(frozen=True)
class UniTune:
    """`prompt` is the tuning prompt: rare tokens, "{caption}" (the description) or "{random}".

    "{random}" draws a rare token by DreamBooth's rule. `uncaptioned` takes the prompt's place for
    an image whose caption is not known; "" refuses such an image. `stages` are tuned, each as
    `tune` says. An edit is sampled by `template`; "" writes the rare token before it, and the edit
    alone where the image was tuned on its description.
    """

    tune: Mapping[str, Tuning]
    stages: Sequence[str] = ("base", "sr256")
    prompt: str = "beikkpic"
    uncaptioned: str = ""
    name: str = "unitune"
    template: str = ""

    def __post_init__(self) -> None:
        chosen(self.tune, self.stages)

    def recipe(self, example: Example) -> Recipe:
        """Tune weights on one text, which guidance by the empty prompt must not give back."""
        bare = "{caption}" in self.prompt and not example.caption.strip()
        prompt = self.uncaptioned if bare and self.uncaptioned else self.prompt
        template = self.template or ("{edit}" if "{caption}" in prompt else "{rare} {edit}")
        weights = chosen(self.tune, self.stages)
        return Recipe("unitune", prompt, "{rare}", template, apart="", weights=weights)
