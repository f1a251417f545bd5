"""THE loop: the reverse process of one stage for a batch of items, each with its own start and guidance weight."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune.diffusion import blend, steps
from unitune.diffusion.control import Chains
from unitune.diffusion.guidance import OFF, guide, rescale
from unitune.diffusion.schedule import Image, Levels, Schedule

Texts = Float[Tensor, "B L D"]
NoiseSource = Callable[[str, int], Image]  # (role, step) -> standard normal noise, named, so that an item is the same alone or in a batch
Progress = Callable[[str, int, int], None]  # (stage, step done, steps)


@dataclass(frozen=True)
class Condition:
    """What a stage's network sees beside x_t: text, and for super-resolution the noised low-resolution picture (upsampled) and its noise level.

    `control` edits the attention probabilities of the first rows.
    """

    text: Texts
    low: Image | None = None
    level: Levels | None = None
    control: Chains | None = None

    def __add__(self, other: "Condition") -> "Condition":
        """Stack the items of two conditions of the same kind; the first's control stays, as its rows do."""
        text = torch.cat([self.text, other.text])
        if self.low is None or self.level is None or other.low is None or other.level is None:
            return Condition(text, control=self.control)
        return Condition(text, torch.cat([self.low, other.low]), torch.cat([self.level, other.level]), self.control)


@runtime_checkable
class Stage(Protocol):
    """One diffusion model of a cascade."""

    @property
    def name(self) -> str:
        """What configs call it."""
        ...

    @property
    def resolution(self) -> int:
        """Side of its pictures, px."""
        ...

    @property
    def schedule(self) -> Schedule:
        """Its noise levels."""
        ...

    @property
    def threshold(self) -> Callable[[Image], Image]:
        """How predicted x_0 are clipped."""
        ...

    def encode(self, image: Image) -> Image:
        """Turn pictures of the stage's resolution into the x_0 it predicts: themselves, or latents."""
        ...

    def decode(self, x_0: Image) -> Image:
        """Turn x_0 into pictures."""
        ...

    def predict(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Predict x_0, float32."""
        ...

    def upsampled(self, low: Float[Tensor, "B C h w"]) -> Image:
        """Bring the previous stage's picture to this stage's resolution, as its network expects it."""
        ...

    def base_weights(self) -> AbstractContextManager[None]:
        """Predict with the untouched weights inside this context."""
        ...


@runtime_checkable
class Cascade(Protocol):
    """Stages in the order of sampling, and the text encoder."""

    @property
    def stages(self) -> Sequence[Stage]:
        """First the one that starts from noise alone."""
        ...

    @property
    def max_tokens(self) -> int:
        """Places for a prompt's tokens with one end mark."""
        ...

    def encode(self, texts: Sequence[str]) -> Texts:
        """Embed prompts."""
        ...

    @property
    def tokenize(self) -> Callable[[str], list[str]]:
        """Cuts a text into pieces, without end marks."""
        ...


@dataclass(frozen=True)
class Hold:
    """What masked sampling keeps: x_0 of the base image where the mask is 0."""

    base: Float[Tensor, "1 C H W"]
    mask: blend.Masks


def guided(
    stage: Stage,
    x: Image,
    t: Levels,
    *,
    condition: Condition,
    reference: Condition,
    weight: Float[Tensor, " B"],
    reference_from_base: bool,
    rescaling: float = 0.0,
) -> Image:
    """Predict x_0 with guidance; one network call where the weight is 1 everywhere, or where the reference comes from the same weights (a doubled batch)."""
    if bool((weight == OFF).all()):
        return stage.predict(x, t, condition)
    if reference_from_base:
        x_0 = stage.predict(x, t, condition)
        with stage.base_weights():
            return rescale(guide(x_0, stage.predict(x, t, reference), weight), x_0, rescaling)
    x_0, x_ref = stage.predict(torch.cat([x, x]), torch.cat([t, t]), condition + reference).chunk(2)
    return rescale(guide(x_0, x_ref, weight), x_0, rescaling)


def denoise(
    stage: Stage,
    x: Image,
    *,
    levels: Int[Tensor, "N B"],
    condition: Condition,
    reference: Condition,
    weight: Float[Tensor, " B"],
    step: steps.Step,
    noise: NoiseSource,
    reference_from_base: bool = False,
    rescaling: float = 0.0,
    hold: Hold | None = None,
    progress: Progress | None = None,
) -> Image:
    """Bring x from levels[0] down to x_0 at levels[-1] = -1."""
    control = condition.control
    for k, (t, s) in enumerate(itertools.pairwise(levels)):
        if control is not None:
            control.begin(k, len(levels) - 1, side=x.shape[-1])
        x_0 = guided(stage, x, t, condition=condition, reference=reference, weight=weight, reference_from_base=reference_from_base, rescaling=rescaling)
        x = step(stage.schedule, x, stage.threshold(x_0), t=t, s=s, noise=noise("step", k))
        if hold is not None:
            x = blend.keep(stage.schedule, x, hold.base.expand_as(x), hold.mask, s=s, noise=noise("keep", k))
        if control is not None:
            x = control.after(x, k, len(levels) - 1)
        if progress is not None:
            progress(stage.name, k + 1, len(levels) - 1)
    return x
