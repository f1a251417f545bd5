"""What sampling needs of a model: its stages, each of which predicts x_0, and its text encoder."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.schedule import Image, Levels, Schedule

Texts = Float[Tensor, "B L D"]


@dataclass(frozen=True)
class Condition:
    """What a stage's network sees beside x_t.

    That is text, and for super-resolution the noised low-resolution picture (upsampled) and its
    noise level.
    """

    text: Texts
    low: Image | None = None
    level: Levels | None = None

    def __add__(self, other: "Condition") -> "Condition":
        """Stack the items of two conditions of the same kind."""
        text = torch.cat([self.text, other.text])
        mine, theirs = (self.low, self.level), (other.low, other.level)
        if mine[0] is None or mine[1] is None or theirs[0] is None or theirs[1] is None:
            return Condition(text)
        return Condition(text, torch.cat([mine[0], theirs[0]]), torch.cat([mine[1], theirs[1]]))


Predict = Callable[[Image, Levels, Condition], Image]  # (x_t, t, condition) -> x_0


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
        """Turn pictures of the stage's resolution into the x_0 it predicts, or latents."""
        ...

    def decode(self, x_0: Image) -> Image:
        """Turn x_0 into pictures."""
        ...

    def predict(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Predict x_0, float32."""
        ...

    def upsampled(self, low: Float[Tensor, "B C h w"]) -> Image:
        """Bring the previous stage's picture to this stage's resolution."""
        ...

    def base_weights(self) -> AbstractContextManager[None]:
        """Predict with the untouched weights inside this context."""
        ...

    def attention(self, editor: Any) -> AbstractContextManager[None]:
        """Give every attention layer's probabilities to `editor` inside this context."""
        ...


@runtime_checkable
class CascadeProtocol(Protocol):
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


def with_base_weights(stage: Stage) -> Predict:
    """Return the prediction of a stage's untouched weights."""

    def predict(x_t: Image, t: Levels, condition: Condition) -> Image:
        with stage.base_weights():
            return stage.predict(x_t, t, condition)

    return predict
