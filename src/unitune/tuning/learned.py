"""Texts that are learned, every weight frozen: the embedding of one edit prompt, a new word."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from unitune import rng
from unitune.models import parameters
from unitune.models.cascade import Cascade
from unitune.tuning import naming
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import snapshot_file
from unitune.tuning.recipe import Tuning, Word
from unitune.tuning.work import Work, costs
from unitune.types import Cost, Example, Refused, Tuned

NAME = "embedding"
START = "start.safetensors"


@dataclass(frozen=True)
class Learned:
    """A tensor that was learned, where it began, and what that took."""

    tensor: Tensor
    start: Tensor
    cost: Cost


def learn(
    work: Work, tuning: Tuning, step: int, about: Mapping[str, object], *,
    start: Callable[[], Tensor], text: Callable[[Tensor, int], Tensor],
) -> Learned:  # fmt: skip
    """Optimise one tensor by the first stage's loss, or read it, as it was after `step` steps.

    It begins at `start()`, and text(tensor, k) is the text (1, L, D) of step k. `about` holds what
    decides the result beside `tuning`, the model and the image. Resumes as `fit` does; a text
    encoder that is not kept in memory is freed.
    """
    tuning.check_kept("the embedding", step)
    stage, plain = work.cascade.stages[0], asdict(tuning)
    plain["optimizer"] = [type(tuning.optimizer).__name__, plain["optimizer"]]
    key = work.key(stage, {**about, "embedding": plain})

    def build(folder: Path) -> None:
        try:
            first = start()
            save_file({NAME: first}, folder / START)
            tensor = nn.Parameter(first.clone(), requires_grad=False)
            data = OneImage(stage, work.example, partial(text, tensor), work.seed, tuning)
            work.fit_into(folder, "embedding", key, data, tuned={NAME: tensor})
        finally:
            work.cascade.release()

    with work.store.get_or_make("embedding", key, build) as entry:
        files = snapshot_file(entry, stage.name, step), entry / START
        tensor, first = (parameters.load(file)[NAME].clone() for file in files)
        return Learned(tensor, first, costs(entry)["cost"])


def learned_embedding(work: Work) -> Learned | None:
    """Optimise the embedding of the one edit prompt (Imagic); None where no step is its own."""
    tuning = work.recipe.embedding
    if tuning is None or tuning.steps == 0:
        return None
    e_tgt, about = work.cascade.encode([work.text]), {"text": work.text}
    return learn(work, tuning, tuning.steps, about, start=lambda: e_tgt, text=lambda e, k: e)


def learned_word(work: Work, word: Word, at: int | None) -> Tuned:
    """Learn the vectors of a word by the first stage's loss (Textual Inversion), or read them."""
    cascade, example, name = work.cascade, work.example, work.named.prompt
    initializer = initializer_of(word, name, cascade, example)
    lines = [naming.filled(line, example, rare=name) for line in word.templates]

    def start() -> Tensor:
        return cascade.text_encoder.vector(initializer).repeat(word.vectors, 1)

    def text(vectors: Tensor, k: int) -> Tensor:
        draw = {"seed": work.seed, "example": example.digest, "stage": cascade.stages[0].name}
        line = int(rng.uniform_levels(1, len(lines), role="tune-template", step=k, **draw))
        return cascade.text_encoder.encode_with([lines[line]], {name: vectors})

    step = word.tuning.steps if at is None else at
    if step == 0:
        vectors = start()
        cascade.release()
        return replace(work.named, tokens={name: vectors}, start=vectors)
    texts = [line.replace(name, "<>") for line in lines]  # the word's name changes nothing
    about = {"texts": texts, "initializer": initializer, "vectors": word.vectors}
    found = learn(work, word.tuning, step, about, start=start, text=text)
    tokens = {name: found.tensor}
    return replace(work.named, tokens=tokens, start=found.start, steps=step, cost=found.cost)


def initializer_of(word: Word, name: str, cascade: Cascade, example: Example) -> str:
    """Return the known word that a new one starts at; Refused where it has no vector."""
    initializer = (word.initializer or example.noun).strip().lower()
    if not initializer:
        raise Refused(
            f"the word {name} for {example.id} starts at a known word, and none is given; "
            "name the picture's main object: noun=cat"
        )
    if cascade.known is not None and initializer not in cascade.known:
        raise Refused(
            f"the word {name} starts at {initializer!r}, which is unknown to the {cascade.name} "
            "model; give another: method.initializer=cat"
        )
    cascade.text_encoder.piece(initializer)
    return initializer
