"""The engine that does what recipes ask for: everything that a method makes before sampling."""

from dataclasses import replace

import torch

from unitune.models.cascade import Cascade
from unitune.models.parameters import Sizes
from unitune.storage.store import Store
from unitune.tuning import weights
from unitune.tuning.finetune import StepDone
from unitune.tuning.learned import embedded, initializer_of, learned_word
from unitune.tuning.material import material
from unitune.tuning.naming import filled, named
from unitune.tuning.recipe import Recipe
from unitune.types import Example, Tuned

WIDEST = 4096  # numbers of a token's vector in T5-XXL
LARGEST = 77 * WIDEST  # of a prompt's embedding by it
LARGEST_PICTURE = 3 * 512**2  # bytes of a class image, for estimates


def texts(recipe: Recipe, cascade: Cascade, example: Example, *, seed: int) -> list[str] | None:
    """List the texts that making embeds; None where prompts hold a word that is yet to be learned.

    Refused where a word would start from one that has no vector.
    """
    if recipe.word is not None:
        initializer_of(recipe.word, recipe.rare, cascade, example)
        return None
    if recipe.embedding is not None:
        return [filled(recipe.template, example, edit=one.prompt) for one in example.requests]
    about = named(recipe, cascade, example, seed=seed).about
    if recipe.prior is None:
        return [about] if about else []
    return [about, filled(recipe.prior.prompt, example), ""]  # class images are guided away from ""


def room(recipe: Recipe, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
    """Refuse a snapshot that is not kept, before a model of these parameters by stage is loaded.

    Returns the bytes of one image's result and those that making it takes besides, both from above.
    """
    if recipe.word is not None:
        tuning = recipe.word.tuning
        tuning.check_kept("the embedding", at)
        made = bool(tuning.steps) and at != 0
        kept = 4 * WIDEST * recipe.word.vectors * (len(tuning.kept) + 1) if made else 0
        return kept, 4 * kept
    first = next(iter(sizes or recipe.weights), "")
    kept, working = weights.room(recipe.tunings(first), sizes, at=at)
    if recipe.prior is not None and working:
        working += 2 * recipe.prior.images.count * LARGEST_PICTURE  # all images of a class share it
    if recipe.embedding is not None and at != 0:
        kept, working = kept + 2 * 4 * LARGEST, working + 8 * 4 * LARGEST
    return kept, working


def inactive(recipe: Recipe, cascade: Cascade, tuned: Tuned) -> str:
    """Say in what way the result equals doing nothing although something was asked for, or ""."""
    if recipe.word is not None:
        vectors = tuned.tokens[recipe.rare]
        if tuned.steps and tuned.start is not None and torch.equal(vectors, tuned.start):
            what = f"the vectors of {recipe.rare} did not move in {tuned.steps} steps"
            return f"{what}; use a larger method.embedding.lr"
        return ""
    embedding, start = tuned.embedding, tuned.start
    if embedding is not None and start is not None and torch.equal(embedding, start):
        return "the embedding of the edit prompt did not move; use a larger method.embedding.lr"
    return weights.unmoved(cascade, tuned)


def prepare(
    recipe: Recipe, cascade: Cascade, example: Example, *, store: Store, seed: int = 0,
    at: int | None = None, report: StepDone | None = None,
) -> Tuned:  # fmt: skip
    """Make what the recipe asks for, or take the stored result.

    `at` picks a snapshot of the tuning by its step (None: the last, 0: untouched weights).
    """
    told = named(recipe, cascade, example, seed=seed)
    if recipe.word is not None:
        return learned_word(
            recipe.word, told, recipe.kind, cascade, example,
            store=store, seed=seed, at=at, report=report,
        )  # fmt: skip
    first = cascade.stages[0].name
    tune = recipe.tunings(first)
    if at == 0 or (recipe.embedding is None and not tune):
        return told
    weights.check_kept(tune, at)
    if recipe.embedding is not None:
        e, of = embedded(recipe, cascade, example, store=store, seed=seed, report=report)
    else:
        e, of = None, material(recipe, told.about, cascade, example, store=store, seed=seed)
    made = weights.stored(tune, of, cascade, store=store, report=report)
    steps = max((tuning.steps if at is None else at for tuning in tune.values()), default=0)
    tuned = replace(
        told, weights=weights.load(made, cascade, tune=tune, at=at), steps=steps,
        cost=weights.cost(made.values()), stored={name: entry.name for name, entry in made.items()},
    )  # fmt: skip
    if e is None:
        return tuned
    cost = tuned.cost if any(tuning.steps for tuning in tune.values()) else e.cost
    return replace(tuned, embedding=e.tensor, start=e.start, cost=cost)
