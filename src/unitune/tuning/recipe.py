"""What a method asks for, as plain data: the engine in `tuning.make` does it.

From a recipe follow the texts that are embedded, the room that results take, what the store keeps,
and whether anything moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from unitune import prompts
from unitune.tuning.class_images import ClassImages
from unitune.tuning.finetune import Tuning
from unitune.types import Refused


@dataclass(frozen=True)
class Word:
    """A new word of the text encoder, whose `vectors` vectors the first stage's loss teaches.

    They start at the one of `initializer` ("": the image's noun); each step is told one of the
    `templates`, whose {rare} is the word.
    """

    tuning: Tuning
    templates: tuple[str, ...]
    initializer: str = ""
    vectors: int = 1


@dataclass(frozen=True)
class Embedding:
    """The embedding of the one edit prompt, optimised by the first stage's loss from its own."""

    tuning: Tuning


@dataclass(frozen=True)
class Prior:
    """Prior preservation: every batch also holds pictures of the class (template `prompt`).

    The untouched model makes them; `weight` is lambda.
    """

    weight: float
    prompt: str
    images: ClassImages = field(default_factory=ClassImages)


@dataclass(frozen=True)
class Recipe:
    """What is made of one image before sampling; the empty recipe makes nothing.

    `kind` is part of the store's keys. `rare` is the template of what names the image in prompts,
    `about` that of the whole text that it is tuned on, `template` that of the sampled prompts, and
    `apart` that of a text which must stay apart from `about` (None: no weights are tied to a text
    that names the image). `weights` says how each stage is tuned.
    """

    kind: str = ""
    rare: str = ""
    about: str = ""
    template: str = "{edit}"
    apart: str | None = None
    weights: Mapping[str, Tuning] = field(default_factory=dict)
    prior: Prior | None = None
    word: Word | None = None
    embedding: Embedding | None = None

    def __post_init__(self) -> None:
        if self.word is not None and (self.embedding is not None or self.weights):
            raise ValueError("a recipe learns a word alone")

    @property
    def per_request(self) -> bool:
        """Whether the result belongs to one edit prompt and not to the image."""
        return self.embedding is not None

    @property
    def learns_text(self) -> bool:
        """Whether a word or an embedding is learned: no tokenizer says where in a prompt it is."""
        return self.word is not None or self.embedding is not None

    @property
    def needs_noun(self) -> bool:
        """Whether the class noun of the image must be known."""
        templates = [self.rare, self.about, self.template, self.apart or ""]
        if self.word is not None:
            templates += [*self.word.templates, self.word.initializer.strip() or "{noun}"]
        return prompts.needs_noun(*templates)

    @property
    def makes(self) -> set[str]:
        """What the store keeps of an image: names of tuned stages, and "embedding"."""
        return {*self.weights, *(["embedding"] if self.learns_text else [])}

    def tunings(self, first: str) -> dict[str, Tuning]:
        """Say how the weights are tuned; `first` is the model's first stage.

        There the steps that optimise an embedding come out of those of the weights.
        """
        if self.embedding is None:
            return {**self.weights}
        spent = self.embedding.tuning.steps
        return {
            stage: replace(one, steps=max(0, one.steps - spent)) if stage == first else one
            for stage, one in self.weights.items()
        }


def chosen(tune: Mapping[str, Tuning], stages: Sequence[str]) -> dict[str, Tuning]:
    """Pick the settings of the stages that are tuned; Refused where one has none."""
    if missing := [stage for stage in stages if stage not in tune]:
        known = ", ".join(tune)
        raise Refused(f"no tuning settings for stage {missing[0]!r}; method.tune has {known}")
    return {stage: tune[stage] for stage in stages}
