"""The one image as a stream of batches: repeated, with fresh noise and a fresh noise level per row, all named by the step.

A data set of one image has length 1, so loaders and accumulation silently turn "batch 4" into batch 1; here the batch is made by repeating.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from unitune import rng
from unitune.diffusion.loop import Condition, Stage
from unitune.diffusion.sampler import reduced
from unitune.diffusion.schedule import Image, Levels
from unitune.types import Example


class TunableStage(Stage, Protocol):
    """A stage that can be trained: it also gives its network's raw output and the target of that."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def low_resolution(self) -> int:
        """Side of the previous stage's picture, 0 in a first stage."""
        ...

    def output(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Run the network with gradients."""
        ...

    def target(self, x_0: Image, eps: Image, t: Levels) -> Image:
        """What the network should give."""
        ...


@dataclass(frozen=True)
class TuningBatch:
    """Rows of one optimiser step: noisy pictures, their levels, what the network should give, what it is told."""

    x_t: Image
    t: Levels
    target: Image
    condition: Condition


@dataclass(frozen=True)
class OneImage:
    """Batches of one image for one stage; batch k depends on (seed, image, stage, k) only, so a resumed run sees what an undisturbed one sees.

    `crop` (px, 0 = whole picture) applies to super-resolution stages, which are trained on crops as Imagen's are.
    """

    stage: TunableStage
    example: Example
    text: Tensor  # (1, L, D) of the tuning prompt
    seed: int
    batch_size: int
    crop: int = 0

    @cached_property
    def x_0(self) -> Image:
        """The picture as the stage's network predicts it."""
        return self.stage.encode(reduced(self.example.image, self.stage.resolution))

    def batch(self, k: int) -> TuningBatch:
        """Make the batch of step k."""
        stage, n = self.stage, self.batch_size
        name = {"seed": self.seed, "example": self.example.digest, "stage": stage.name, "step": k}
        t = rng.uniform_levels(n, stage.schedule.T, role="tune-t", **name)
        x_0 = self.x_0
        low = stage.upsampled(reduced(self.example.image, stage.low_resolution)) if stage.low_resolution else None
        if low is not None and self.crop and self.crop < stage.resolution:
            # Upsample the whole picture, then crop: a crop's borders must see what sampling sees there.
            corners = rng.uniform_levels(2 * n, stage.resolution - self.crop + 1, role="tune-crop", **name).view(n, 2).tolist()
            x_0, low = (torch.cat([x[..., i : i + self.crop, j : j + self.crop] for i, j in corners]) for x in (x_0, low))
        x_0 = x_0.expand(n, -1, -1, -1)
        eps = rng.noise(x_0.shape, role="tune-eps", **name)
        condition = Condition(self.text.expand(n, -1, -1))
        if low is not None:
            # Imagen's noise-conditioning augmentation, level a ~ U[0, 1], which the paper keeps while it tunes 64->256.
            level = rng.uniform_levels(n, stage.schedule.T, role="tune-level", **name)
            noised = stage.schedule.add_noise(low.expand(n, -1, -1, -1), rng.noise(x_0.shape, role="tune-low", **name), level)
            condition = Condition(condition.text, noised, level)
        return TuningBatch(stage.schedule.add_noise(x_0, eps, t), t, stage.target(x_0, eps, t), condition)
