"""The texts of sampling: templates that are filled in, and embeddings that are mixed."""

from dataclasses import dataclass

from torch import Tensor

from unitune import prompts
from unitune.diffusion.guidance import Guidance
from unitune.types import Example, Refused, Tuned, number


@dataclass(frozen=True)
class Mix:
    """Imagic's text (arXiv 2210.09276): eta e_tgt + (1 - eta) e_opt; its paper: eta 0.6 to 0.8.

    1 is the prompt's own embedding, 0 the optimised one; beyond 1 lies past the prompt.
    """

    eta: float = 0.7

    def __post_init__(self) -> None:
        if not number(self.eta):
            raise Refused(
                "sampler.text.eta must be a finite number (0 = the learned embedding, 1 = the "
                f"text), got {self.eta}"
            )

    def __call__(self, text: Tensor, learned: Tensor | None) -> Tensor:
        """Mix the embedding of the prompts (B, L, D) with a learned one, where there is one."""
        return text if learned is None else self.eta * text + (1 - self.eta) * learned


def reference_text(guidance: Guidance, example: Example, tuned: Tuned) -> str:
    """Return the text that guidance pushes away from."""
    return filled(guidance.reference, example, tuned) if guidance.reference else ""


def filled(template: str, example: Example, tuned: Tuned, *, edit: str = "") -> str:
    """Fill a template with what is known of the image and of its tuning."""
    known = {"rare": tuned.prompt, "tuned": tuned.about}
    return prompts.fill(template, edit=edit, caption=example.caption, noun=example.noun, **known)
