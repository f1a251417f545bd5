"""What a method asks for, as plain data: the engine in `tuning.make` does it.

From a recipe follow the texts that are embedded, the room that results take, what the store keeps,
and whether anything moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from unitune import prompts
from unitune.diffusion.loss import OF_THE_MODEL, check_dials
from unitune.tuning.adapters import Adapter, Full
from unitune.tuning.class_images import ClassImages
from unitune.tuning.optimizers import AdamW, OptimizerSettings
from unitune.tuning.select import ParameterSelection
from unitune.types import Refused, number, whole

UNIFORM = "uniform"


@dataclass(frozen=True)
class Tuning:
    """How a stage is tuned; all of it is part of the stored result's key.

    The paper: 128 steps x batch 4, Adafactor, lr 1e-4 (Imagen's scale). The last weights are kept,
    and beside them those after the steps of `snapshots`.

    `crop` (px, 0 = whole picture) and `low_level`, the noise on the low-resolution picture (in
    [0, 1], or "uniform": drawn for each row), apply to super-resolution stages, which are trained
    on crops as Imagen's are. `weighting` replaces that of the stage's own loss. Noise levels are
    drawn between `levels` (cosine time), in `strata` equal parts that the rows take in turn.
    """

    lr: float
    steps: int = 128
    batch_size: int = 4
    optimizer: OptimizerSettings = field(default_factory=AdamW)
    select: ParameterSelection = field(default_factory=ParameterSelection)
    adapter: Adapter = field(default_factory=Full)
    crop: int = 0
    low_level: float | str = UNIFORM
    weighting: str = OF_THE_MODEL
    levels: Sequence[float] = (0.0, 1.0)
    strata: int = 1  # divides batch_size
    snapshots: Sequence[int] = ()

    def __post_init__(self) -> None:
        level, size = self.low_level, self.batch_size
        if not (number(self.lr) and self.lr > 0):
            raise Refused(f"lr must be above 0 and finite, got {self.lr}")
        if not (whole(self.steps) and self.steps >= 0):
            raise Refused(f"steps must be 0 (no tuning) or more whole steps, got {self.steps}")
        if not (whole(size) and size >= 1):
            raise Refused(f"batch_size must be a whole number of at least 1, got {size}")
        if not (whole(self.crop) and self.crop >= 0):
            raise Refused(
                f"crop must be 0 (the whole picture) or a whole number of px, got {self.crop}"
            )
        if level != UNIFORM and not (number(level) and 0 <= float(level) <= 1):
            raise Refused(
                f"low_level must be {UNIFORM} (drawn for each row) or a number in [0, 1], "
                f"got {level!r}"
            )
        check_dials(self.weighting, self.levels, self.strata)
        if size % self.strata:
            raise Refused(
                "batch_size must be a multiple of strata, whose parts the rows take in turn, "
                f"got {size} and strata {self.strata}"
            )
        if bad := [step for step in self.snapshots if not whole(step)]:
            raise Refused(f"snapshots must be whole numbers of steps, got {bad[0]!r}")

    @property
    def kept(self) -> list[int]:
        """Steps whose weights are stored."""
        return sorted({s for s in self.snapshots if 0 < s < self.steps} | {self.steps})

    def check_kept(self, name: str, at: int | None) -> None:
        """Refuse a snapshot that will not be there; None is the last one, and 0 what was before."""
        if at is not None and at not in (there := sorted({0, *self.kept})):
            raise Refused(
                f"no snapshot of {name} at {at} steps; there are {', '.join(map(str, there))}: "
                f"change snapshot=, or tune anew and keep it by snapshots=[{at}]"
            )


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
class Prior:
    """Prior preservation: every batch also holds pictures of the class (template `prompt`).

    The untouched model makes them; `weight` is lambda.
    """

    weight: float
    prompt: str
    images: ClassImages = field(default_factory=ClassImages)

    def __post_init__(self) -> None:
        if not (number(self.weight) and self.weight > 0):
            raise Refused(
                f"the weight of prior preservation must be above 0 and finite, got {self.weight!r}"
            )


@dataclass(frozen=True)
class Recipe:
    """What is made of one image before sampling; the empty recipe makes nothing.

    `kind` is part of the store's keys. `rare` is the template of what names the image in prompts,
    `about` that of the whole text that it is tuned on, `template` that of the sampled prompts, and
    `apart` that of a text which must stay apart from `about` (None: no weights are tied to a text
    that names the image). `weights` says how each stage is tuned, `embedding` how the embedding of
    the one edit prompt is optimised before, by the first stage's loss and from its own.
    """

    kind: str = ""
    rare: str = ""
    about: str = ""
    template: str = "{edit}"
    apart: str | None = None
    weights: Mapping[str, Tuning] = field(default_factory=dict)
    prior: Prior | None = None
    word: Word | None = None
    embedding: Tuning | None = None

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
        tunings = {**self.weights}
        if self.embedding is not None and first in tunings:
            steps = max(0, tunings[first].steps - self.embedding.steps)
            tunings[first] = replace(tunings[first], steps=steps)
        return tunings


def chosen(tune: Mapping[str, Tuning], stages: Sequence[str]) -> dict[str, Tuning]:
    """Pick the settings of the stages that are tuned; Refused where one has none."""
    if missing := [stage for stage in stages if stage not in tune]:
        known = ", ".join(tune)
        raise Refused(f"no tuning settings for stage {missing[0]!r}; method.tune has {known}")
    return {stage: tune[stage] for stage in stages}
