"""The batches of a tuning: one image, repeated, each row with noise and a noise level of its own.

Whatever is random in a batch is named by the step, so that a resumed tuning sees what an
undisturbed one sees. Rows are made by repeating the image: loaders would turn "batch 4" of a data
set of length 1 into batch 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from unitune import rng
from unitune.diffusion.loss import drawn
from unitune.diffusion.schedule import Image, Levels
from unitune.diffusion.stage import Condition, reduced
from unitune.models.stage import UNetStage
from unitune.tuning.recipe import Tuning
from unitune.types import Example, Inactive


@dataclass(frozen=True)
class TuningBatch:
    """Rows of one optimiser step: noisy pictures, their levels, the network's target and condition.

    `weights` (B,) are those of the rows' mean squared errors in the loss: the stage's weight of the
    row's level, over the number of rows.
    """

    x_t: Image
    t: Levels
    target: Image
    condition: Condition
    weights: Tensor

    def __len__(self) -> int:
        return len(self.x_t)

    def loss(self, output: Image) -> Tensor:
        """Weighted sum of the rows' mean squared errors of the network's output."""
        errors = (output - self.target).square().flatten(1).mean(dim=1)
        return (self.weights.to(output) * errors).sum()

    def beside(self, other: "TuningBatch", weight: float) -> "TuningBatch":
        """Append the rows of another batch, whose loss counts `weight` times."""
        return TuningBatch(
            torch.cat([self.x_t, other.x_t]),
            torch.cat([self.t, other.t]),
            torch.cat([self.target, other.target]),
            self.condition + other.condition,
            torch.cat([self.weights, weight * other.weights]),
        )


@dataclass(frozen=True)
class ClassPictures:
    """Pictures of the image's class for prior preservation (arXiv 2208.12242, section 3.3).

    `pictures` (N, 3, H, W) are of the stage's resolution, `lows` of the one below it (None in a
    first stage). Their rows are named by the class's prompt and not by the image. The loss is the
    image's mean plus `weight` (lambda) times the class's mean.
    """

    pictures: Tensor
    lows: Tensor | None
    prompt: str
    text: Tensor  # (1, L, D) of the prompt
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not len(self.pictures):
            raise Inactive(
                f"there is no picture of {self.prompt!r}; prior preservation needs at least one"
            )


@dataclass(frozen=True)
class OneImage:
    """The batches of one image for one stage, each of tuning.batch_size noise draws.

    `text` (1, L, D) is what the network is told, also as a function of the step, whose result may
    carry gradients. Batch 0 has the noise of step `first`. Where there are pictures of the image's
    class (`prior`), every batch holds as many rows of them as well.
    """

    stage: UNetStage
    example: Example
    text: Tensor | Callable[[int], Tensor]
    seed: int
    tuning: Tuning
    first: int = 0
    prior: ClassPictures | None = None

    @cached_property
    def x_0(self) -> Image:
        """The picture as the stage's network predicts it."""
        return self.stage.encode(reduced(self.example.image, self.stage.resolution))

    @cached_property
    def class_x_0(self) -> Image:
        """The pictures of the class as the stage's network predicts them."""
        assert self.prior is not None
        return self.stage.encode(self.prior.pictures)

    def batch(self, k: int) -> TuningBatch:
        """Make the batch of step k."""
        stage, rows = self.stage, (self.tuning.batch_size, -1, -1, -1)
        text = self.text if isinstance(self.text, Tensor) else self.text(k)
        low, name = None, {"seed": self.seed, "stage": stage.name, "step": self.first + k}
        if stage.low_resolution:
            low = stage.upsampled(reduced(self.example.image, stage.low_resolution)).expand(rows)
        of_image = name | {"example": self.example.digest}
        image = self._noised(self.x_0.expand(rows), low, text, role="tune", name=of_image)
        if self.prior is None:
            return image
        of_class = name | {"example": self.prior.prompt}
        return image.beside(self._class_batch(self.prior, of_class), self.prior.weight)

    def _class_batch(self, prior: ClassPictures, name: Mapping[str, Any]) -> TuningBatch:
        rows, count = self.tuning.batch_size, len(prior.pictures)
        chosen = rng.uniform_levels(rows, count, role="prior-pick", **name)
        low = None if prior.lows is None else self.stage.upsampled(prior.lows[chosen])
        return self._noised(self.class_x_0[chosen], low, prior.text, role="prior", name=name)

    def _noised(
        self, x_0: Image, low: Image | None, text: Tensor, *, role: str, name: Mapping[str, Any]
    ) -> TuningBatch:
        """Give each picture, and each low-resolution one (upsampled), noise and a level."""
        stage, tuning, n = self.stage, self.tuning, len(x_0)
        schedule, low_level, crop = stage.schedule, tuning.low_level, tuning.crop
        first, last = map(float, tuning.levels)  # whole numbers may stand in a config

        def uniform(part: str, count: int, size: int) -> Tensor:
            return rng.uniform_levels(count, size, role=f"{role}-{part}", **name)

        t = drawn(schedule, n, partial(uniform, "t"), levels=(first, last), strata=tuning.strata)
        if low is not None and 0 < crop < stage.resolution:
            # A crop of the upsampled whole: its borders must see what sampling sees there.
            corners = uniform("crop", 2 * n, stage.resolution - crop + 1).view(n, 2).tolist()
            x_0, low = (_cropped(pictures, corners, crop) for pictures in (x_0, low))
        eps = rng.noise(x_0.shape, role=f"{role}-eps", **name)
        condition = Condition(text.expand(n, -1, -1))
        if low is not None:
            if isinstance(low_level, str):
                # Imagen's noise-conditioning augmentation, which the paper keeps for 64->256.
                level = uniform("level", n, schedule.T)
            else:
                level = torch.full((n,), min(round(low_level * schedule.T), schedule.T - 1))
            noise = rng.noise(x_0.shape, role=f"{role}-low", **name)
            condition = Condition(condition.text, schedule.add_noise(low, noise, level), level)
        x_t, target = schedule.add_noise(x_0, eps, t), stage.target(x_0, eps, t)
        weights = stage.loss.weighed(tuning.weighting).weights(schedule, t) / n
        return TuningBatch(x_t, t, target, condition, weights)


def _cropped(pictures: Image, corners: list[list[int]], side: int) -> Image:
    rows = zip(pictures, corners, strict=True)
    return torch.stack([picture[:, i : i + side, j : j + side] for picture, (i, j) in rows])
