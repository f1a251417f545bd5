"""The texts of a run, before anything is tuned: what is embedded, and advice on what is typed."""

from collections.abc import Sequence

from unitune import prompts
from unitune.runs import reference_rows
from unitune.runs.parts import Experiment
from unitune.tuning import make, naming, visibility
from unitune.tuning.visibility import Texts
from unitune.types import Example

RARE_PLACES = ("{rare}", "{named}", "{replaced}")  # of a template, where the rare token is put


def of_run(parts: Experiment, examples: Sequence[Example]) -> list[str]:
    """List every text of a run; Refused where the sampler could not use one."""
    cascade, seed = parts.cascade, parts.seed
    found: dict[str, None] = {}
    for example in examples:
        recipe, draws = parts.method.recipe(example), parts.plan.draws(example, seed)
        of_tuning = make.texts(recipe, cascade, example, seed=seed)
        names = naming.named(recipe, cascade, example, seed=seed)
        parts.sampler.check(cascade, example, draws, tuned=names)
        sampled = parts.sampler.texts(example, draws, tuned=names)
        measured = compared(parts, example)
        if of_tuning is not None:  # a word that is yet to be learned cannot be embedded
            found.update(dict.fromkeys([*of_tuning, *sampled]))
        if measured is not None:
            found.update(dict.fromkeys(measured.all()))
        found.update(dict.fromkeys(reference_rows.texts(example)))
    return list(found)


def compared(parts: Experiment, example: Example) -> Texts | None:
    """Return the texts that show whether the model sees the tuning prompt; None without one."""
    recipe = parts.method.recipe(example)
    apart = naming.apart(recipe, parts.cascade, example, seed=parts.seed)
    return None if apart is None else visibility.compared(example, apart)


def advice(parts: Experiment, example: Example) -> list[str]:
    """Say what will not work as hoped.

    These are unknown words, prompts that are cut, and a rare token that means something.
    """
    cascade, recipe = parts.cascade, parts.method.recipe(example)
    names = naming.named(recipe, cascade, example, seed=parts.seed)
    template = parts.sampler.template or names.template
    puts_rare = any(place in template for place in RARE_PLACES)
    rare = names.prompt if puts_rare and not recipe.learns_text else ""  # a learned word is no text
    meant = bool(example.caption.strip()) and names.prompt == prompts.clean(example.caption)
    return prompts.advice(
        rare=rare,
        edits=[request.prompt for request in example.requests],
        meant=meant,
        tokenize=cascade.tokenize,
        known=cascade.known,
        max_tokens=cascade.max_tokens,
        unseen=cascade.unseen,
        others=_others(parts, example),
    )


def _others(parts: Experiment, example: Example) -> list[str]:
    """List the texts of one image that hold no edit prompt: what it is tuned on and told from."""
    edits = [prompts.clean(request.prompt) for request in example.requests]
    if parts.method.recipe(example).learns_text:  # its words have vectors and no pieces
        return []
    every = of_run(parts, [example])
    return [text for text in every if not any(edit in text for edit in edits)]
