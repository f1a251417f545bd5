"""What sampling needs of a model: its stages, each of which predicts x_0, and its text encoder."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.schedule import Image, Levels, Schedule

Texts = Float[Tensor, "B L D"]
Other = Float[Tensor, "B C h w"]  # a picture of another side than `Image` in the same signature
Probabilities = Float[Tensor, "R heads N K"]  # of attention; first the text's columns, then pixels'


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
class AttentionEditor(Protocol):
    """Reads or edits attention probabilities in the first `rows` rows of a batch."""

    @property
    def rows(self) -> int:
        """How many rows it takes."""
        ...

    @property
    def active(self) -> bool:
        """Whether it takes any layer's probabilities in the present step."""
        ...

    def wants(self, *, text: int, pixels: int) -> bool:
        """Say whether it takes those of a layer with so many columns of text, rows of pixels."""
        ...

    def edit(self, M: Probabilities, *, text: int) -> Probabilities:
        """Return one layer's probabilities; its first `text` columns are those of the text."""
        ...


@runtime_checkable
class Stage(Protocol):
    """One diffusion model of a cascade."""

    name: str  # what configs call it
    resolution: int  # side of its pictures, px
    schedule: Schedule
    threshold: Callable[[Image], Image]  # how predicted x_0 are clipped

    def encode(self, image: Image) -> Image:
        """Turn pictures of the stage's resolution into the x_0 it predicts, or latents."""
        ...

    def decode(self, x_0: Image) -> Image:
        """Turn x_0 into pictures."""
        ...

    def predict(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Predict x_0, float32."""
        ...

    def upsampled(self, low: Other) -> Image:
        """Bring the previous stage's picture to this stage's resolution."""
        ...

    def base_weights(self) -> AbstractContextManager[None]:
        """Predict with the untouched weights inside this context."""
        ...

    def attention(self, editor: AttentionEditor) -> AbstractContextManager[None]:
        """Give every attention layer's probabilities to `editor` inside this context."""
        ...


@runtime_checkable
class CascadeProtocol(Protocol):
    """Stages in the order of sampling, and the text encoder."""

    max_tokens: int  # places for a prompt's tokens with one end mark

    @property
    def stages(self) -> Sequence[Stage]:
        """First the one that starts from noise alone."""
        ...

    def encode(self, texts: Sequence[str]) -> Texts:
        """Embed prompts."""
        ...

    def tokenize(self, text: str, /) -> list[str]:
        """Cut a text into pieces, without end marks."""
        ...


def reduced(image: Image, side: int) -> Other:
    """Reduce a picture to a stage's resolution by averaging areas."""
    return image if image.shape[-1] == side else F.interpolate(image, (side, side), mode="area")
