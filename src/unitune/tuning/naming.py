"""The texts of a recipe, filled in for one image."""

from unitune import prompts
from unitune.diffusion import texts
from unitune.models.cascade import Cascade
from unitune.tuning.recipe import Recipe
from unitune.types import Example, Refused, Tuned


def filled(template: str, example: Example, *, rare: str = "", edit: str = "") -> str:
    """Fill a template with what is known of the image."""
    return texts.filled(template, example, Tuned(rare), edit=edit)


def named(recipe: Recipe, cascade: Cascade, example: Example, *, seed: int) -> Tuned:
    """Return what sampling is told of the image before anything is made.

    That is its name in prompts (a text, its caption, or a rare token that the seed draws), their
    template, and the whole text that is tuned on.
    """
    rare = recipe.rare
    if rare == prompts.RANDOM:
        rare = prompts.random_rare_token(cascade.pieces, seed=seed)
    elif "{rare}" in rare:
        raise Refused(
            f"the tuning prompt {rare!r} asks for {{rare}}, which is what it names itself; "
            "write the rare token out, e.g. token.text=beikkpic"
        )
    elif rare:
        rare = filled(rare, example)
    about = filled(recipe.about, example, rare=rare) if recipe.about else ""
    return Tuned(rare, template=recipe.template, about=about)


def apart(
    recipe: Recipe, cascade: Cascade, example: Example, *, seed: int
) -> tuple[str, str] | None:
    """Return the text that tuning ties to the image, and the one that must stay apart from it.

    None where no weights are tuned on a text that names the image.
    """
    if recipe.apart is None:
        return None
    other = filled(recipe.apart, example) if recipe.apart else ""
    return named(recipe, cascade, example, seed=seed).about, other
