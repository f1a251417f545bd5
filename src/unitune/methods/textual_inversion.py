"""Textual Inversion (arXiv 2208.01618): learn the vectors of one new word, every weight frozen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unitune.tuning.recipe import Recipe, Tuning, Word
from unitune.types import Example, Refused, whole

MOST = 64  # vectors: a prompt has 77 places


@dataclass(frozen=True)
class TextualInversion:
    """`word` gets `vectors` vectors that all start at the `initializer`'s.

    That is one piece of the tokenizer, "" for the image's class noun. Each step is told one of the
    `templates`, whose {rare} is the word. In an edit prompt the word takes the noun's place, or
    stands before the edit.
    """

    embedding: Tuning
    templates: Sequence[str] = ("a {rare}", "a picture of a {rare}")
    word: str = "<image>"
    initializer: str = ""
    vectors: int = 1
    name: str = "textual_inversion"
    template: str = "{replaced}"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"<[^\s<>{}]+>", self.word):
            raise Refused(
                "method.word must be written in angle brackets, so that no prompt holds it by "
                f"chance, e.g. <image>; got {self.word!r}"
            )
        if not (whole(self.vectors) and 1 <= self.vectors <= MOST):
            raise Refused(
                f"method.vectors must be a whole number from 1 to {MOST} (a prompt has 77 places), "
                f"got {self.vectors}"
            )
        if not self.templates:
            raise Refused(
                "method.templates is empty; give what the picture is called while its word is "
                "learned, e.g. ['a {rare}']"
            )
        if bare := [template for template in self.templates if "{rare}" not in template]:
            raise Refused(
                "every one of method.templates needs {rare}, the place of the word; "
                f"{bare[0]!r} has none"
            )

    def recipe(self, example: Example) -> Recipe:
        """Learn a word; no weights are tuned."""
        word = Word(self.embedding, tuple(self.templates), self.initializer, self.vectors)
        kind = "textual inversion"
        return Recipe(kind, self.word, self.templates[0], self.template, word=word)
