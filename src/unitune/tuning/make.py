"""The engine that does what recipes ask for: everything that a method makes before sampling."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from unitune.models.cascade import Cascade
from unitune.models.parameters import Sizes
from unitune.storage.store import Store
from unitune.tuning import naming, weights
from unitune.tuning.finetune import StepDone
from unitune.tuning.learned import initializer_of, learned_embedding, learned_word
from unitune.tuning.recipe import Recipe, Tuning
from unitune.tuning.work import Work
from unitune.types import Example, Tuned

FLOAT32 = 4  # bytes
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
        edits = [request.prompt for request in example.requests]
        return [naming.filled(recipe.template, example, edit=edit) for edit in edits]
    about = naming.named(recipe, cascade, example, seed=seed).about
    if recipe.prior is None:
        return [about] if about else []
    # Class images are guided away from the empty prompt.
    return [about, naming.filled(recipe.prior.prompt, example), ""]


def room(recipe: Recipe, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
    """Refuse a snapshot that is not kept, before a model of these parameters by stage is loaded.

    Returns the bytes of one image's result (every kept snapshot) and those that making it takes
    besides, both from above. While weights are tuned these are the snapshots once more, and a
    checkpoint of what is trained and its two moments, written aside.
    """
    if recipe.word is not None:
        tuning = recipe.word.tuning
        tuning.check_kept("the embedding", at)
        made = bool(tuning.steps) and at != 0
        numbers = WIDEST * recipe.word.vectors * (len(tuning.kept) + 1) if made else 0
        return FLOAT32 * numbers, 4 * FLOAT32 * numbers
    tune = recipe.tunings(next(iter(sizes or recipe.weights), ""))
    _check_kept(tune, at)
    if at == 0:
        return 0, 0
    kept = checkpoint = 0
    for stage, tuning in tune.items():
        if tuning.steps and stage in sizes:
            trained = FLOAT32 * tuning.adapter.size(sizes[stage], tuning.select)
            kept += trained * len(tuning.kept)
            checkpoint = max(checkpoint, 2 * 3 * trained)
    working = kept + checkpoint
    if recipe.prior is not None and working:
        working += 2 * recipe.prior.images.count * LARGEST_PICTURE  # all images of a class share it
    if recipe.embedding is not None:
        kept, working = kept + 2 * FLOAT32 * LARGEST, working + 8 * FLOAT32 * LARGEST
    return kept, working


def inactive(recipe: Recipe, cascade: Cascade, tuned: Tuned) -> str:
    """Say in what way the result equals doing nothing although something was asked for, or ""."""
    learned, what = tuned.embedding, "the embedding of the edit prompt did not move"
    if recipe.word is not None:
        learned = tuned.tokens[recipe.rare]
        what = f"the vectors of {recipe.rare} did not move in {tuned.steps} steps"
    stands = learned is not None and tuned.start is not None and torch.equal(learned, tuned.start)
    if stands and (recipe.word is None or tuned.steps):
        return f"{what}; use a larger method.embedding.lr"
    return weights.unmoved(cascade, tuned)


def prepare(
    recipe: Recipe, cascade: Cascade, example: Example, *, store: Store, seed: int = 0,
    at: int | None = None, report: StepDone | None = None,
) -> Tuned:  # fmt: skip
    """Make what the recipe asks for, or take the stored result.

    `at` picks a snapshot of the tuning by its step (None: the last, 0: untouched weights).
    """
    work = Work(recipe, cascade, example, store, seed, report)
    if recipe.word is not None:
        return learned_word(work, recipe.word, at)
    tune = recipe.tunings(cascade.stages[0].name)
    if at == 0 or (recipe.embedding is None and not tune):
        return work.named
    _check_kept(tune, at)
    learned = learned_embedding(work)
    entries = {
        name: weights.tuned_stage(work, name, tuning, learned)
        for name, tuning in tune.items()
        if tuning.steps
    }
    tuned = replace(
        work.named,
        weights=weights.load(entries, cascade, tune=tune, at=at),
        steps=max((tuning.steps if at is None else at for tuning in tune.values()), default=0),
        cost=weights.cost(list(entries.values())),
        stored={name: entry.name for name, entry in entries.items()},
    )
    if learned is None:
        return tuned
    cost = tuned.cost if entries else learned.cost
    return replace(tuned, embedding=learned.tensor, start=learned.start, cost=cost)


def _check_kept(tune: Mapping[str, Tuning], at: int | None) -> None:
    """Refuse before anything is tuned a snapshot that one of the stages will not have."""
    for stage, tuning in tune.items():
        tuning.check_kept(stage, at)
