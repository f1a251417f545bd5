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
OtherSize = Float[Tensor, "B C h w"]  # beside an `Image` whose side is another
# Of attention: a row is a pixel's; the columns of the text come first, then those of pixels.
Probabilities = Float[Tensor, "R heads N K"]


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
        if self.low is None or self.level is None or other.low is None or other.level is None:
            return Condition(text)
        low, level = torch.cat([self.low, other.low]), torch.cat([self.level, other.level])
        return Condition(text, low, level)


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
    encode: Callable[[Image], Image]  # pictures of its resolution -> x_0, or latents
    decode: Callable[[Image], Image]  # x_0 -> pictures
    predict: Predict  # x_0 in float32
    upsampled: Callable[[OtherSize], Image]  # the previous stage's picture -> its resolution
    # Inside, the untouched weights predict.
    base_weights: Callable[[], AbstractContextManager[None]]
    # Inside, every attention layer's probabilities are given to an editor.
    attention: Callable[[AttentionEditor], AbstractContextManager[None]]


@runtime_checkable
class CascadeProtocol(Protocol):
    """Stages in the order of sampling, and the text encoder."""

    encode: Callable[[Sequence[str]], Texts]  # prompts -> their embeddings

    @property
    def stages(self) -> Sequence[Stage]:
        """The first one starts from noise alone."""
        ...

    @property
    def max_tokens(self) -> int:
        """Places for a prompt's tokens with one end mark."""
        ...

    @property
    def tokenize(self) -> Callable[[str], list[str]]:
        """Cuts a text into pieces, without end marks."""
        ...


def reduced(image: Image, side: int) -> OtherSize:
    """Reduce a picture to a stage's resolution by averaging areas."""
    return image if image.shape[-1] == side else F.interpolate(image, (side, side), mode="area")
