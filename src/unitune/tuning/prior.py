"""DreamBooth's prior preservation (arXiv 2208.12242, section 3.3): every batch also holds pictures of the class, made by the untouched model."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from unitune import rng
from unitune.diffusion.schedule import Image
from unitune.tuning.data import NoiseDials, NoisyRows, OneImage, TunableStage, TuningBatch
from unitune.types import Inactive, Refused, number


@dataclass(frozen=True)
class Pictures:
    """Batches that are drawn, with noise and levels, from several pictures of one text; named by (seed, `example`, stage, step) alone.

    `pictures` (N, 3, H, W) are of the stage's resolution, `lows` of the one below it (None in a first stage).
    """

    stage: TunableStage
    pictures: Tensor
    lows: Tensor | None
    text: Tensor  # (1, L, D)
    example: str
    seed: int
    batch_size: int
    dials: NoiseDials = field(default_factory=NoiseDials)

    def __post_init__(self) -> None:
        if not len(self.pictures):
            raise Inactive(
                f"there is no picture of {self.example!r}; prior preservation needs at least one"
            )

    @cached_property
    def x_0(self) -> Image:
        """The pictures as the stage's network predicts them."""
        return self.stage.encode(self.pictures)

    def batch(self, k: int) -> TuningBatch:
        """Make the batch of step k."""
        name = {"seed": self.seed, "example": self.example, "step": k}
        chosen = rng.uniform_levels(
            self.batch_size, len(self.pictures), stage=self.stage.name, role="prior-pick", **name
        )
        low = None if self.lows is None else self.stage.upsampled(self.lows[chosen])
        return NoisyRows(self.stage, self.text, self.dials, role="prior")(
            self.x_0[chosen], low, **name
        )


@dataclass(frozen=True)
class WithPrior:
    """The image's own batches with rows of its class appended: the loss is the image's mean plus `weight` (lambda) times the class's mean."""

    image: OneImage
    prior: Pictures
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (number(self.weight) and self.weight > 0):
            raise Refused(
                f"the weight of prior preservation must be above 0 and finite, got {self.weight!r}"
            )

    @property
    def stage(self) -> TunableStage:
        """Whose loss it is."""
        return self.image.stage

    @property
    def batch_size(self) -> int:
        """Noise draws of the image per step."""
        return self.image.batch_size

    def batch(self, k: int) -> TuningBatch:
        """Make the batch of step k."""
        one, other = self.image.batch(k), self.prior.batch(k)
        x_t, t, target = (
            torch.cat(pair)
            for pair in ((one.x_t, other.x_t), (one.t, other.t), (one.target, other.target))
        )
        return TuningBatch(
            x_t,
            t,
            target,
            one.condition + other.condition,
            torch.cat([one.weights, self.weight * other.weights]),
        )
