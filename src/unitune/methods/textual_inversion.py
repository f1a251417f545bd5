"""Textual Inversion (arXiv 2208.01618): learn the vectors of one new word in the text encoder's token table, every weight frozen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unitune import prompts, rng
from unitune.backends.cascade import Cascade
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning import embedding
from unitune.tuning.finetune import StepDone, Tuning
from unitune.types import Example, Refused, Tuned, whole

WIDEST = 4096  # numbers of a vector of T5-XXL
MOST = 64  # vectors: a prompt has 77 places


@dataclass(frozen=True)
class TextualInversion:
    """`word` gets `vectors` vectors that all start at the `initializer`'s, "" for the image's class noun; that must be one piece of the tokenizer.

    Each step is told one of the `templates`, whose {rare} is the word. In an edit prompt the word takes the noun's place, or stands before the edit.
    """

    embedding: Tuning
    templates: Sequence[str] = ("a {rare}", "a picture of a {rare}")
    word: str = "<image>"
    initializer: str = ""
    vectors: int = 1
    name: str = "textual_inversion"
    template: str = "{replaced}"
    per_request: bool = False
    learns_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"<[^\s<>{}]+>", self.word):
            raise Refused(f"method.word must be written in angle brackets, so that no prompt holds it by chance, e.g. <image>; got {self.word!r}")
        if not (whole(self.vectors) and 1 <= self.vectors <= MOST):
            raise Refused(f"method.vectors must be a whole number from 1 to {MOST} (a prompt has 77 places), got {self.vectors}")
        if not self.templates:
            raise Refused("method.templates is empty; give what the picture is called while its word is learned, e.g. ['a {rare}']")
        if bare := [template for template in self.templates if "{rare}" not in template]:
            raise Refused(f"every one of method.templates needs {{rare}}, the place of the word; {bare[0]!r} has none")

    @property
    def needs_noun(self) -> bool:
        """Where the word starts at it, or a template has it."""
        return not self.initializer.strip() or prompts.needs_noun(*self.templates, self.template)

    @property
    def makes(self) -> set[str]:
        """What the store keeps of an image."""
        return {"embedding"}

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Refuse a snapshot that is not kept. Count float32 bytes of the widest vectors, and while they are learned those of a checkpoint with its moments."""
        self.embedding.check_kept("the embedding", at)
        kept = 4 * WIDEST * self.vectors * (len(self.embedding.kept) + 1) if self.embedding.steps and at != 0 else 0
        return kept, 4 * kept

    def names(self, cascade: Cascade, example: Example, *, seed: int) -> Tuned:
        """Return the word, and the first of the texts that it is learned in."""
        about = prompts.fill(self.templates[0], rare=self.word, edit="", caption=example.caption, noun=example.noun)
        return Tuned(self.word, template=self.template, about=about)

    def apart(self, cascade: Cascade, example: Example, *, seed: int) -> None:
        """Tie a learned word to the image, which no weights are tuned on."""

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> None:
        """Refuse a word to start from that has no vector; no text can be embedded yet."""
        self._initializer(cascade, example)

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Compare the vectors with those that they started from."""
        still = tuned.steps and tuned.start is not None and torch.equal(tuned.tokens[self.word], tuned.start)
        return f"the vectors of {self.word} did not move in {tuned.steps} steps; use a larger method.embedding.lr" if still else ""

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Learn the vectors by the first stage's loss, or read them; an encoder that is not kept in memory is read for that and freed again."""
        initializer, stage, tuning = self._initializer(cascade, example), cascade.stages[0], self.embedding
        names = self.names(cascade, example, seed=seed)
        texts = [prompts.fill(template, rare=self.word, edit="", caption=example.caption, noun=example.noun) for template in self.templates]

        def start() -> Tensor:
            return cascade.words.vector(initializer).repeat(self.vectors, 1)

        def text(vectors: Tensor, k: int) -> Tensor:
            (chosen,) = rng.uniform_levels(1, len(texts), seed=seed, example=example.digest, stage=stage.name, role="tune-template", step=k).tolist()
            return cascade.words.encode_with([texts[chosen]], {self.word: vectors})

        step = tuning.steps if at is None else at
        if step == 0:
            vectors = start()
            cascade.release()
            return replace(names, tokens={self.word: vectors}, start=vectors)
        key = {
            "recipe": "textual inversion",
            "texts": [text.replace(self.word, "<>") for text in texts],  # what the word is called changes nothing
            "initializer": initializer,
            "vectors": self.vectors,
            "weights": cascade.digest,
            "arithmetic": [stage.arithmetic, cascade.words.arithmetic],
        }
        lesson = embedding.Lesson(stage, tuning, start, text, key, cascade.release)
        found = embedding.learn(lesson, example, seed=seed, step=step, store=store, report=report)
        return replace(names, tokens={self.word: found.tensor}, start=found.start, steps=step, cost=found.cost)

    def _initializer(self, cascade: Cascade, example: Example) -> str:
        word = (self.initializer or example.noun).strip().lower()
        if not word:
            raise Refused(f"the word {self.word} for {example.id} starts at a known word, and none is given; name the picture's main object: noun=cat")
        if cascade.known is not None and word not in cascade.known:
            raise Refused(f"the word {self.word} starts at {word!r}, which is unknown to the {cascade.name} model; give another: method.initializer=cat")
        cascade.words.piece(word)
        return word
