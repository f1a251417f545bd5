"""The one image as a stream of batches: repeated, with fresh noise and a fresh noise level per row, all named by the step.

A data set of one image has length 1, so loaders and accumulation silently turn "batch 4" into batch 1; here the batch is made by repeating.
"""

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor, nn

from unitune import rng
from unitune.diffusion.blend import reduced
from unitune.diffusion.loss import OF_THE_MODEL, StageLoss, drawn
from unitune.diffusion.schedule import Image, Levels
from unitune.diffusion.stage import Condition, Stage
from unitune.types import Example, Refused, number

UNIFORM = "uniform"


class TunableStage(Stage, Protocol):
    """A stage that can be trained: it also gives its network's raw output, the target of that, and how errors are weighed."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def loss(self) -> StageLoss:
        """What the network predicts and how errors at different noise levels are weighed."""
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
    """Rows of one optimiser step: noisy pictures, their levels, what the network should give, what it is told.

    `weights` are those of the rows' mean squared errors in the loss: the stage's weight of the row's level, over the number of rows.
    """

    x_t: Image
    t: Levels
    target: Image
    condition: Condition
    weights: Tensor  # (B,)

    def __len__(self) -> int:
        return len(self.x_t)

    def loss(self, output: Image) -> Tensor:
        """Weighted sum of the rows' mean squared errors of the network's output."""
        return (
            self.weights.to(output) * (output - self.target).square().flatten(1).mean(dim=1)
        ).sum()


class Batches(Protocol):
    """What a stage is tuned on. Whatever is random in batch k is named by k, which makes a resumed run exact."""

    @property
    def stage(self) -> TunableStage:
        """Whose loss it is."""
        ...

    @property
    def batch_size(self) -> int:
        """Noise draws of the image per step."""
        ...

    def batch(self, k: int) -> TuningBatch:
        """Make the batch of step k."""
        ...


@dataclass(frozen=True)
class NoiseDials:
    """What a user may turn of a stage's batches.

    `crop` (px, 0 = whole picture) applies to super-resolution stages, which are trained on crops as Imagen's are; so does `low_level` in [0, 1], or "uniform".
    `weighting` replaces that of the stage's own loss; noise levels are drawn between `levels` (cosine time), in `strata` parts that the rows take in turn.
    """

    crop: int = 0
    low_level: float | str = UNIFORM
    weighting: str = OF_THE_MODEL
    levels: tuple[float, float] = (0.0, 1.0)
    strata: int = 1


@dataclass(frozen=True)
class OneImage:
    """Batches of one image for one stage; batch k depends on (seed, image, stage, k) only, so a resumed run sees what an undisturbed one sees."""

    stage: TunableStage
    example: Example
    text: Tensor  # (1, L, D) of the tuning prompt
    seed: int
    batch_size: int
    dials: NoiseDials = field(default_factory=NoiseDials)

    @cached_property
    def x_0(self) -> Image:
        """The picture as the stage's network predicts it."""
        return self.stage.encode(reduced(self.example.image, self.stage.resolution))

    def batch(self, k: int) -> TuningBatch:
        """Make the batch of step k."""
        stage, rows = self.stage, (self.batch_size, -1, -1, -1)
        low = (
            stage.upsampled(reduced(self.example.image, stage.low_resolution)).expand(rows)
            if stage.low_resolution
            else None
        )
        noising = NoisyRows(stage, self.text, self.dials, role="tune")
        return noising(
            self.x_0.expand(rows), low, seed=self.seed, example=self.example.digest, step=k
        )


@dataclass(frozen=True)
class NoisyRows:
    """Turns pictures into rows of a batch; all that is drawn is named by seed, example, stage, step, and by `role`."""

    stage: TunableStage
    text: Tensor  # (1, L, D)
    dials: NoiseDials
    role: str

    def __call__(
        self, x_0: Image, low: Image | None, *, seed: int, example: str, step: int
    ) -> TuningBatch:
        """Give each picture, and each low-resolution one (upsampled), noise and a noise level of its own."""
        stage, schedule, n = self.stage, self.stage.schedule, len(x_0)
        dials, crop, low_level = self.dials, self.dials.crop, self.dials.low_level
        name = {"seed": seed, "example": example, "stage": stage.name, "step": step}
        uniform = partial(rng.uniform_levels, role=f"{self.role}-t", **name)
        t = drawn(schedule, n, uniform, levels=dials.levels, strata=dials.strata)
        if low is not None and crop and crop < stage.resolution:
            # Upsample the whole picture, then crop: a crop's borders must see what sampling sees there.
            corners = (
                rng.uniform_levels(
                    2 * n, stage.resolution - crop + 1, role=f"{self.role}-crop", **name
                )
                .view(n, 2)
                .tolist()
            )
            x_0, low = (_crops(pictures, corners, crop) for pictures in (x_0, low))
        eps = rng.noise(x_0.shape, role=f"{self.role}-eps", **name)
        condition = Condition(self.text.expand(n, -1, -1))
        if low is not None:
            if isinstance(low_level, str):
                # Imagen's noise-conditioning augmentation, level a ~ U[0, 1], which the paper keeps while it tunes 64->256.
                level = rng.uniform_levels(n, schedule.T, role=f"{self.role}-level", **name)
            else:
                level = torch.full((n,), min(round(low_level * schedule.T), schedule.T - 1))
            condition = Condition(
                condition.text,
                schedule.add_noise(
                    low, rng.noise(x_0.shape, role=f"{self.role}-low", **name), level
                ),
                level,
            )
        weights = stage.loss.weighed(dials.weighting).weights(schedule, t) / n
        return TuningBatch(
            schedule.add_noise(x_0, eps, t), t, stage.target(x_0, eps, t), condition, weights
        )


def check_level(level: float | str) -> None:
    """Refuse what is no noise level of the low-resolution picture."""
    if level != UNIFORM and not (number(level) and 0 <= float(level) <= 1):
        raise Refused(
            f"low_level must be {UNIFORM} (drawn for each row) or a number in [0, 1], got {level!r}"
        )


def _crops(pictures: Image, corners: list[list[int]], side: int) -> Image:
    return torch.cat(
        [
            x[..., i : i + side, j : j + side]
            for x, (i, j) in zip(pictures.split(1), corners, strict=True)
        ]
    )
