"""Whether a model tells the tuning prompt from other texts.

Before tuning: how visible the rare token is; after tuning: how much of the image leaks. A word that
hardly moves the text embedding ties nothing to itself: tuning then ties the image to every prompt,
the empty one too. Guidance pushes away from the empty prompt, and so away from the image itself,
and a baseline that compares "a [V] dog" with "a dog" compares a text with itself.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unitune import rng
from unitune.diffusion.loop import denoise
from unitune.diffusion.stage import Condition, reduced
from unitune.diffusion.steps import DDPM, levels
from unitune.types import Example, Tuned

if TYPE_CHECKING:  # a run that is refused loads no model
    from unitune.models.cascade import Cascade
    from unitune.models.stage import UNetStage

NOUNS = ("cat", "dog")  # of the scale: what a changed noun does to a text
OTHER_WORDS = ("qwpz", "xvnt")  # rare words; the second where an image is tuned on the first
START = 0.95  # cosine time at which predictions are compared, the paper's late start
STEPS = 16  # of a sample that shows a leak
LARGE = 100_000_000  # parameters; of larger first stages one prediction stands for a sample
SEEN = 0.5  # of what a changed noun does
SEPARATE = 6.0  # dB between the tuning prompt and what should not give the image back
ADVICE = "tune on a description (token=description, caption='...')"


@dataclass(frozen=True)
class Texts:
    """The texts that are compared.

    What is tuned on, what must stay apart from it, a rare word that no image is tuned on, a phrase
    and the same with another noun.
    """

    tuned: str
    apart: str
    other: str
    phrase: str
    changed: str

    def all(self) -> list[str]:
        """List them, with the empty prompt."""
        return [*dataclasses.astuple(self), ""]


@dataclass(frozen=True)
class Visibility:
    """How one tuning separates its prompt from others; None where it was not measured.

    `text` and `x_0` (at START, in the untouched model): the change by the tuning prompt against
    what must stay apart, over the change by another noun. `tuned_db`, `empty_db`, `other_db`: PSNR
    to the base image, at the first stage's resolution, of what the tuned model makes of the tuning
    prompt, of the empty one and of another rare word, unguided from pure noise; one seed.
    `response`: how much the sampled prompts change x_0 against the tuning prompt at START, tuned
    over untouched. `stage` was measured, `key` is the store's entry of its tuning, "" without one.
    """

    example: str
    method: str
    texts: Texts
    steps: int
    text: float
    x_0: float
    tuned_db: float | None = None
    empty_db: float | None = None
    other_db: float | None = None
    response: float | None = None
    stage: str = ""
    key: str = ""

    @property
    def leak_db(self) -> float | None:
        """How far the empty prompt is behind the tuning prompt, dB: small is a leak."""
        if self.tuned_db is None or self.empty_db is None:
            return None
        return self.tuned_db - self.empty_db

    def warnings(self, model: str) -> list[str]:
        """Say in one line each what is wrong and what to do."""
        lines, apart, tuned = [], self.texts.apart, self.texts.tuned
        if min(self.text, self.x_0) < SEEN:
            against, so = "the empty prompt", "the image will be tied to every prompt"
            if apart:
                against, so = repr(apart), f"{self.method} cannot separate these prompts on {model}"
            lines.append(
                f"{model} hardly tells {tuned!r} from {against}: of what another noun changes it "
                f"changes {self.text:.2f} of the text and {self.x_0:.2f} of the prediction, so "
                f"{so}; {ADVICE}, or take another token.text"
            )
        leak = self.leak_db
        if leak is not None and leak < SEPARATE and self.steps:
            lines.append(
                f"the tuning on {tuned!r} leaks: the empty prompt gives the image back at "
                f"{self.empty_db:.1f} dB, the tuning prompt at {self.tuned_db:.1f} dB, so guidance "
                f"pushes away from the image; {ADVICE} or for fewer steps"
            )
        return lines

    def plain(self) -> dict[str, object]:
        """Return plain data for a record."""
        return dataclasses.asdict(self)


def compared(example: Example, apart: tuple[str, str]) -> Texts:
    """Return the texts that show whether the first of `apart` is seen beside the second.

    The scale is the caption with another noun, where it holds one.
    """
    tuned, against = apart
    noun = example.noun.strip() or NOUNS[0]
    phrase, changed = (f"a {word}" for word in NOUNS)
    if noun in example.caption.split():
        other = next(word for word in NOUNS if word != noun)
        phrase, changed = example.caption, example.caption.replace(noun, other)
    rare = next(word for word in OTHER_WORDS if word not in tuned)
    return Texts(tuned, against, rare, phrase, changed)


def measure_before(
    cascade: "Cascade", example: Example, texts: Texts, *, method: str, seed: int
) -> Visibility:
    """Measure with the untouched model how visible the tuning prompt is; four predictions."""
    pairs = [texts.tuned, texts.apart, texts.phrase, texts.changed]
    embedded, predicted = cascade.encode(pairs), _predictions(cascade, example, pairs, seed=seed)
    text, x_0 = (_ratio(e[0] - e[1], e[2] - e[3]) for e in (embedded, predicted))
    return Visibility(example.id, method, texts, 0, text, x_0, stage=cascade.stages[0].name)


def measure_after(
    cascade: "Cascade", example: Example, before: Visibility, prompts: Sequence[str], *,
    tuned: Tuned, seed: int,
) -> Visibility:  # fmt: skip
    """Measure, beside what was measured before, what a tuning of the first stage left apart.

    `prompts` are those that will be sampled.
    """
    stage, texts = cascade.stages[0], before.texts
    if stage.name not in tuned.weights:
        return before
    asked = list(dict.fromkeys([texts.tuned, *prompts]))
    given, response = [texts.tuned, "", texts.other], None
    untouched = _predictions(cascade, example, asked, seed=seed)
    with cascade.using(tuned):
        changed = _predictions(cascade, example, asked, seed=seed)
        tuned_db, empty_db, other_db = given_back(cascade, example, given, seed=seed)
    if len(asked) > 1:
        response = _ratio(changed[1:] - changed[:1], untouched[1:] - untouched[:1])
    return dataclasses.replace(
        before, steps=tuned.steps, key=tuned.stored.get(stage.name, ""), response=response,
        tuned_db=tuned_db, empty_db=empty_db, other_db=other_db,
    )  # fmt: skip


def given_back(
    cascade: "Cascade", example: Example, texts: Sequence[str], *, seed: int
) -> list[float]:
    """Sample each text from pure noise, unguided, with the first stage as it is now.

    Returns the PSNR to the base image at the stage's resolution, dB.
    """
    base = reduced(example.image, cascade.stages[0].resolution)
    pictures = _pictures(cascade, example, texts, seed=seed)
    return [_psnr(picture, base) for picture in pictures.split(1)]


def _predictions(
    cascade: "Cascade", example: Example, texts: Sequence[str], *, seed: int
) -> Tensor:
    """Predict x_0 of the base image noised to START, with each text; (texts, C, H, W)."""
    stage = cascade.stages[0]
    base = stage.encode(reduced(example.image, stage.resolution))
    t = torch.full((1,), stage.schedule.level(START))
    noise = _noise(stage, example, base.shape, seed, "visibility", 0)
    x_t = stage.schedule.add_noise(base, noise, t)
    rows = [stage.predict(x_t, t, Condition(cascade.encode([text]))) for text in texts]
    return torch.cat([stage.threshold(row) for row in rows])


def _pictures(cascade: "Cascade", example: Example, texts: Sequence[str], *, seed: int) -> Tensor:
    """Sample each text from the same pure noise without guidance.

    Of a large model one prediction at the noisiest level.
    """
    stage = cascade.stages[0]
    shape = stage.encode(reduced(example.image, stage.resolution)).shape
    steps = 1 if sum(p.numel() for p in stage.network.parameters()) > LARGE else STEPS
    ways = levels(stage.schedule.T - 1, steps)[:, None].expand(-1, len(texts))
    x = _noise(stage, example, shape, seed, "leak", 0).expand(len(texts), -1, -1, -1)
    condition = Condition(cascade.encode(texts))

    def noise(role: str, step: int) -> Tensor:
        return _noise(stage, example, shape, seed, f"leak-{role}", step).expand_as(x)

    def denoiser(x_t: Tensor, t: Tensor) -> Tensor:
        return stage.threshold(stage.predict(x_t, t, condition))

    x_0 = denoise(denoiser, x, ways, schedule=stage.schedule, step=DDPM(), noise=noise)
    return stage.decode(x_0)


def _noise(
    stage: "UNetStage", example: Example, shape: Sequence[int], seed: int, role: str, step: int
) -> Tensor:
    name = {"seed": seed, "example": example.digest, "stage": stage.name}
    return rng.noise(tuple(shape), role=role, step=step, **name)


def _ratio(change: Tensor, scale: Tensor) -> float:
    """Root mean square of one change over that of another."""
    rms, of_scale = (float(x.double().square().mean().sqrt()) for x in (change, scale))
    return rms / max(of_scale, 1e-12)


def _psnr(picture: Tensor, base: Tensor) -> float:
    """PSNR of pictures in [-1, 1], dB, at most 100."""
    error = float(((picture.clamp(-1, 1) - base) / 2).square().mean())
    return min(100.0, -10 * math.log10(max(error, 1e-10)))
