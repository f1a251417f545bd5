"""Learned texts: the embedding of one edit prompt (Imagic), a new word (Textual Inversion)."""

from dataclasses import asdict, replace

from torch import Tensor

from unitune import rng
from unitune.models.cascade import Cascade
from unitune.storage.store import Store
from unitune.tuning import embedding
from unitune.tuning.embedding import WithText
from unitune.tuning.finetune import StepDone, Tuning
from unitune.tuning.naming import filled
from unitune.tuning.recipe import Recipe, Word
from unitune.tuning.weights import Material
from unitune.types import Cost, Example, Refused, Tuned


def embedded(
    recipe: Recipe, cascade: Cascade, example: Example, *, store: Store, seed: int,
    report: StepDone | None,
) -> tuple[embedding.Learned | None, Material]:  # fmt: skip
    """Optimise the one edit prompt's embedding; the weights are then tuned around it."""
    assert recipe.embedding is not None
    (request,) = example.requests
    text = filled(recipe.template, example, edit=request.prompt)
    first, tuning = cascade.stages[0], recipe.embedding.tuning
    e_opt = e_tgt = cascade.encode([text])
    arithmetic = [first.arithmetic, cascade.words.arithmetic]
    key = {"recipe": recipe.kind, "text": text, "weights": cascade.digest, "arithmetic": arithmetic}
    found = None
    if tuning.steps:
        lesson = embedding.Lesson(
            first, tuning, lambda: e_tgt, lambda e, k: e, key, cascade.release
        )
        found = embedding.learn(
            lesson, example, seed=seed, step=tuning.steps, store=store, report=report
        )
        e_opt = found.tensor

    def batches(name: str, how: Tuning) -> WithText:
        data = embedding.pictures(cascade.stage(name), example, seed=seed, tuning=how)
        if name != first.name:  # later stages see the prompt itself
            return WithText(data, lambda k: e_tgt)
        # The first stage's weights go on with the noise where the embedding stopped.
        return WithText(data, lambda k: e_opt, tuning.steps)

    def named_by(stage: str) -> dict[str, object]:
        about: dict[str, object] = {"recipe": recipe.kind, "text": text, "seed": seed}
        about["image"] = example.digest
        return about | {"optimise": asdict(tuning)} if stage == first.name else about

    def before() -> Cost:
        return Cost() if found is None else found.cost

    return found, Material(batches, named_by, before)


def learned_word(
    word: Word, told: Tuned, kind: str, cascade: Cascade, example: Example, *, store: Store,
    seed: int, at: int | None, report: StepDone | None,
) -> Tuned:  # fmt: skip
    """Learn the vectors of a word by the first stage's loss, or read them.

    An encoder that is not kept in memory is read for that and freed again.
    """
    name, stage, tuning = told.prompt, cascade.stages[0], word.tuning
    initializer = initializer_of(word, name, cascade, example)
    lines = [filled(template, example, rare=name) for template in word.templates]

    def start() -> Tensor:
        return cascade.words.vector(initializer).repeat(word.vectors, 1)

    def text(vectors: Tensor, k: int) -> Tensor:
        about = {"seed": seed, "example": example.digest, "stage": stage.name, "step": k}
        (line,) = rng.uniform_levels(1, len(lines), role="tune-template", **about).tolist()
        return cascade.words.encode_with([lines[line]], {name: vectors})

    step = tuning.steps if at is None else at
    if step == 0:
        vectors = start()
        cascade.release()
        return replace(told, tokens={name: vectors}, start=vectors)
    key = {
        "recipe": kind,
        "texts": [line.replace(name, "<>") for line in lines],  # its name changes nothing
        "initializer": initializer,
        "vectors": word.vectors,
        "weights": cascade.digest,
        "arithmetic": [stage.arithmetic, cascade.words.arithmetic],
    }
    lesson = embedding.Lesson(stage, tuning, start, text, key, cascade.release)
    found = embedding.learn(lesson, example, seed=seed, step=step, store=store, report=report)
    tokens = {name: found.tensor}
    return replace(told, tokens=tokens, start=found.start, steps=step, cost=found.cost)


def initializer_of(word: Word, name: str, cascade: Cascade, example: Example) -> str:
    """Return the known word that a new one starts at; Refused where it has no vector."""
    initializer = (word.initializer or example.noun).strip().lower()
    if not initializer:
        raise Refused(
            f"the word {name} for {example.id} starts at a known word, and none is given; name the picture's main object: noun=cat"
        )
    if cascade.known is not None and initializer not in cascade.known:
        raise Refused(
            f"the word {name} starts at {initializer!r}, which is unknown to the {cascade.name} model; give another: method.initializer=cat"
        )
    cascade.words.piece(initializer)
    return initializer
