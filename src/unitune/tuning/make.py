"""The engine that does what recipes ask for: everything that a method makes before sampling."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from unitune.models import parameters
from unitune.models.cascade import Cascade
from unitune.models.parameters import Sizes
from unitune.models.stage import UNetStage
from unitune.storage import compression
from unitune.storage.store import Store
from unitune.tuning import naming
from unitune.tuning.data import ClassPictures, OneImage
from unitune.tuning.finetune import StepDone, snapshot_file
from unitune.tuning.learned import Learned, initializer_of, learned_embedding, learned_word
from unitune.tuning.recipe import Prior, Recipe, Tuning
from unitune.tuning.work import Work, costs
from unitune.types import Cost, Example, Tuned, Weights

FLOAT32 = 4  # bytes
NAMES = 512  # bytes of a stored tensor's name, shape and scale, for estimates
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

    Returns the bytes of one image's result (the last weights and every snapshot) and those that
    making it takes besides, both from above. While weights are tuned these are the same in float32,
    and a checkpoint of what is trained and its two moments, written aside.
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
    kept = working = 0
    for stage, tuning in tune.items():
        if tuning.steps and stage in sizes:
            trained = tuning.adapter.size(sizes[stage], tuning.select)
            names = NAMES * len(sizes[stage])
            kept += (compression.BYTES * trained + names) * len(tuning.kept)
            beside = FLOAT32 * trained * (len(tuning.kept) + 2 * 3)
            working = max(working, beside)
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
    start = tuned.start
    unmoved = learned is not None and start is not None and torch.equal(learned, start)
    # A word after 0 steps is asked for as it starts.
    if unmoved and (recipe.word is None or tuned.steps):
        return f"{what}; use a larger method.embedding.lr"
    still = [name for name, own in tuned.weights.items() if not cascade.stage(name).moved(own)]
    if not still:
        return ""
    return f"no weight of {' and '.join(still)} moved in {tuned.steps} steps; use a larger lr"


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
    steps = {name: tuning.steps if at is None else at for name, tuning in tune.items()}
    entries = {
        name: _tuned_stage(work, name, tuning, learned, at=steps[name])
        for name, tuning in tune.items()
        if tuning.steps
    }
    weights = {name: entry.weights for name, entry in entries.items()}
    took = [entry.costs for entry in entries.values()]
    before = Cost() if learned is None else learned.cost
    if took:  # what came before counts once: the last stage needs what the others do, and more
        before = took[-1]["before"]
    cost = sum((each["cost"] for each in took), before)
    stored = {name: entry.name for name, entry in entries.items()}
    most = max(steps.values(), default=0)
    tuned = replace(work.named, weights=weights, steps=most, cost=cost, stored=stored)
    if learned is not None:
        tuned = replace(tuned, embedding=learned.tensor, start=learned.start)
    return tuned


@dataclass(frozen=True)
class _TunedStage:
    """What the store has of a tuned stage: the entry's name, the weights and what they took."""

    name: str
    weights: Weights
    costs: Mapping[str, Cost]


def _tuned_stage(
    work: Work, name: str, tuning: Tuning, learned: Learned | None, *, at: int
) -> _TunedStage:
    """Tune a stage, or find the stored result; read the weights after `at` steps.

    Also the run that tunes reads them, so that every later one samples the same weights.

    Each stage has an entry of its own, as none knows of the others: other choices of `stage=` find
    it, too. The weights are tuned around an embedding that was `learned` before.
    """
    recipe, stage = work.recipe, work.cascade.stage(name)
    is_first = name == work.cascade.stages[0].name
    kinds = [type(tuning.optimizer).__name__, type(tuning.adapter).__name__]
    about: dict[str, object] = {"stage": name, "tune": asdict(tuning) | {"kinds": kinds}}
    about["prompt" if recipe.embedding is None else "text"] = work.text
    if recipe.embedding is not None and is_first:
        about["optimise"] = asdict(recipe.embedding)
    if recipe.prior is not None:
        stages = _up_to(work.cascade, name)
        images = recipe.prior.images.key(
            work.cascade, naming.filled(recipe.prior.prompt, work.example),
            stages=stages, seed=work.seed,
        )  # fmt: skip
        about |= {"prior": recipe.prior.weight, "class_images": images}
    key = work.key(stage, about)

    def build(folder: Path) -> None:
        before, prior = Cost(), None
        text, first = work.cascade.encode([work.text]), 0
        if learned is not None:
            before = learned.cost
            if is_first:  # which goes on with the noise where the embedding stopped
                text, first = learned.tensor, before.optimizer_steps
        if recipe.prior is not None:
            prior, before = _class_pictures(work, recipe.prior, stage)
        data = OneImage(stage, work.example, text, work.seed, tuning, first, prior)
        work.fit_into(folder, "tuned", key, data, before=before)

    with work.store.get_or_make("tuned", key, build) as entry:
        stored, took = parameters.load(snapshot_file(entry, name, at)), costs(entry)
        base = tuning.adapter.base(stage.network, tuning.select)
        trained = compression.restored(stored, base)
    return _TunedStage(entry.name, tuning.adapter.merged(trained, stage.network), took)


def _class_pictures(work: Work, prior: Prior, stage: UNetStage) -> tuple[ClassPictures, Cost]:
    """Sample pictures of the class, once for all its images, or read them; and their cost."""
    prompt = naming.filled(prior.prompt, work.example)
    needed = [_up_to(work.cascade, name) for name in work.recipe.weights]
    made, cost = prior.images.pictures(
        work.cascade, prompt, stages=max(needed, key=len), store=work.store, seed=work.seed
    )
    lows = made[_up_to(work.cascade, stage.name)[-2]] if stage.low_resolution else None
    text = work.cascade.encode([prompt])
    return ClassPictures(made[stage.name], lows, prompt, text, prior.weight), cost


def _up_to(cascade: Cascade, name: str) -> list[str]:
    """List a stage and those below it, all that its pictures are made by."""
    names = [stage.name for stage in cascade.stages]
    return names[: 1 + names.index(name)]


def _check_kept(tune: Mapping[str, Tuning], at: int | None) -> None:
    """Refuse before anything is tuned a snapshot that one of the stages will not have."""
    for stage, tuning in tune.items():
        tuning.check_kept(stage, at)
