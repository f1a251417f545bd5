"""Exact denoisers, and stages and cascades made of them.

What the loop must give is then known in closed form.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unitune.diffusion.schedule import Schedule
from unitune.diffusion.stage import Condition

Denoiser = Callable[
    [Schedule, Tensor, Tensor, Condition], Tensor
]  # (schedule, x_t, t, condition) -> x_0


@dataclass(frozen=True)
class Gaussian:
    """Data N(mu, sigma^2 I); without `mu` the mean is an item's own: the number of its text."""

    sigma: float = 0.5
    mu: float | Tensor | None = None

    def mean(self, condition: Condition) -> Tensor:
        return (
            condition.text[:, 0, 0][:, None, None, None]
            if self.mu is None
            else torch.as_tensor(self.mu)
        )

    def gain(self, a: Tensor) -> Tensor:
        """How far E[x_0 | x_t] follows x_t."""
        return a.sqrt() * self.sigma**2 / (a * self.sigma**2 + 1 - a)

    def __call__(self, schedule: Schedule, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        a, mu = schedule.at(t)[0] ** 2, self.mean(condition)
        return (mu + self.gain(a) * (x_t - a.sqrt() * mu)).to(x_t)

    def flow(self, schedule: Schedule, x_t: Tensor, *, t: int, mu: float = 0.0) -> Tensor:
        """Solve the probability flow from level t to x_0.

        It keeps each pixel's quantile, so it is affine.
        """
        a = float(schedule.alpha_bar[t])
        return mu + (x_t - a**0.5 * mu) * self.sigma / (a * self.sigma**2 + 1 - a) ** 0.5


@dataclass(frozen=True)
class Points:
    """A finite data set (N, C, H, W), each as likely as the others."""

    data: Tensor

    def __call__(self, schedule: Schedule, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        a = schedule.at(t)[0][:, :, :, 0] ** 2  # (B, 1, 1)
        y = self.data.flatten(1).double()
        distance = ((x_t.flatten(1).double()[:, None] - a.sqrt() * y) ** 2).sum(-1)
        posterior = torch.softmax(-distance / (2 * (1 - a[:, 0])), dim=-1)
        return (posterior @ y).view_as(x_t).to(x_t)


def unchanged(x_0: Tensor) -> Tensor:
    return x_0


@dataclass
class FakeStage:
    """A stage without a network.

    `calls` lists the rows of every call, `base` is the denoiser of the untouched weights.
    """

    denoiser: Denoiser
    base: Denoiser | None = None
    name: str = "base"
    resolution: int = 4
    schedule: Schedule = field(default_factory=Schedule.cosine)
    threshold: Callable[[Tensor], Tensor] = unchanged
    calls: list[int] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    in_base: bool = False
    editor: Any = None  # of attention probabilities, inside `attention`
    base_calls: int = 0

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert len(x_t) == len(t) == len(condition.text) and x_t.dtype == torch.float32
        self.calls.append(len(x_t))
        self.conditions.append(condition)
        self.base_calls += self.in_base
        return (self.base if self.in_base and self.base else self.denoiser)(
            self.schedule, x_t, t, condition
        )

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, x_0: Tensor) -> Tensor:
        return x_0

    def upsampled(self, low: Tensor) -> Tensor:
        return F.interpolate(low, (self.resolution, self.resolution), mode="nearest")

    @contextmanager
    def attention(self, editor: Any) -> Iterator[None]:
        self.editor = editor
        try:
            yield
        finally:
            self.editor = None

    @contextmanager
    def base_weights(self) -> Iterator[None]:
        self.in_base = True
        try:
            yield
        finally:
            self.in_base = False


@dataclass
class FakeCascade:
    """Texts embed as the numbers that `meaning` gives them, 0 where it does not."""

    stages: Sequence[FakeStage]
    meaning: Mapping[str, float] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    max_tokens: int = 1

    def tokenize(self, text: str) -> list[str]:
        return [f"▁{word}" for word in text.split()]

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.seen.extend(texts)
        return torch.tensor([self.meaning.get(text, 0.0) for text in texts])[:, None, None]


@dataclass
class WordyCascade:
    """Texts have places for words, which embed as nothing."""

    stages: Sequence[FakeStage]
    max_tokens: int = 16

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), self.max_tokens, 1)

    def tokenize(self, text: str) -> list[str]:
        return [f"▁{word}" for word in text.split()]


def number(*values: float) -> Condition:
    """A condition whose text embeds as these numbers."""
    return Condition(torch.tensor(values)[:, None, None])
