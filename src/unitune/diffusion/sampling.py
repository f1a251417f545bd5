"""How one stage samples a batch of items: its settings, what may take part, and the run itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune import rng
from unitune.diffusion import hold
from unitune.diffusion.guidance import (
    OFF,
    Guidance,
    conditioned,
    guided,
    guided_at_once,
    thresholded,
    with_base_weights,
)
from unitune.diffusion.hold import Item
from unitune.diffusion.loop import After, Denoiser, denoise
from unitune.diffusion.schedule import Image
from unitune.diffusion.stage import CascadeProtocol, Condition, Predict, Stage
from unitune.diffusion.steps import DDIM, DDPM, Step, levels
from unitune.types import Example, Refused, Tuned, number, whole

PURE_NOISE = 1.0
Memory = dict[Any, Any]
Progress = Callable[[str, int, int], None]  # (stage, step done, steps)


@dataclass(frozen=True, kw_only=True)
class StageSampling:
    """Where sampling of a stage starts (cosine time; 1 = pure noise), its steps, its guidance."""

    group: ClassVar[str] = "sampler"  # of the config, as refusals name it
    start: float = PURE_NOISE
    steps: int = 32
    step: Step = field(default_factory=DDPM)
    guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self) -> None:
        if not (number(self.start) and 0 < self.start <= 1):
            bounds = "in (0, 1] (cosine time; 1 = pure noise)"
            raise Refused(f"{self.group}.start must be {bounds}, got {self.start}")
        if not (whole(self.steps) and self.steps >= 1):
            least = "a whole number of at least 1"
            raise Refused(f"{self.group}.steps must be {least}, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class SuperResolution(StageSampling):
    """How the later stages are sampled; no text of the paper gives numbers for them.

    A start below 1 begins at the upsampled low-resolution picture noised to it: a weak stage strays
    less. `noise_level` in [0, 1] is Imagen's augmentation level of that picture.
    """

    group: ClassVar[str] = "sr"
    steps: int = 12
    step: Step = field(default_factory=DDIM)
    guidance: Guidance = field(default_factory=lambda: Guidance(weight=OFF))
    noise_level: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (number(self.noise_level) and 0 <= self.noise_level <= 1):
            raise Refused(f"sr.noise_level must be in [0, 1], got {self.noise_level}")


@dataclass(frozen=True)
class StageRun:
    """A stage, how it is sampled, and what its network sees.

    `origin` is noised to where sampling starts; `base` is x_0 of the base image.
    """

    stage: Stage
    how: StageSampling
    items: Sequence[Item]
    example: Example
    condition: Condition
    reference: Condition
    origin: Image
    base: Float[Tensor, "1 C H W"]
    reference_from_base: bool = False

    @cached_property
    def levels(self) -> Int[Tensor, "N B"]:
        """The levels of every item, falling to -1."""
        schedule, steps = self.stage.schedule, self.how.steps
        ways = [levels(schedule.level(item.start), steps) for item in self.items]
        return torch.stack(ways, dim=1)

    def noise(self, role: str, step: int) -> Image:
        """Noise of each item that is named by (seed, example, stage, role, step)."""
        name = {"example": self.example.id, "stage": self.stage.name, "role": role, "step": step}
        shape = (1, *self.base.shape[1:])
        return torch.cat([rng.noise(shape, seed=item.seed, **name) for item in self.items])

    def denoiser(self, predict: Predict) -> Denoiser:
        """Return the guided prediction of x_0; one network call serves where weights are 1."""
        weight = torch.tensor([item.weight for item in self.items], dtype=torch.float32)
        push = partial(self.how.guidance.push, weight=weight)
        if bool((weight == OFF).all()):
            return conditioned(predict, self.condition)
        if self.reference_from_base:
            reference = conditioned(self.stage.predict, self.reference)
            reference = with_base_weights(self.stage, reference)
            return guided(conditioned(predict, self.condition), reference, push)
        return guided_at_once(conditioned(predict, self.condition + self.reference), push)

    def holds(self) -> list[After]:
        """Keep the base image outside the items' masks, at the resolution of a stage's x_0."""
        side = self.base.shape[-1]
        masks = [
            hold.mask_at(item.allowed, side) for item in self.items if item.allowed is not None
        ]
        if not masks:
            return []
        mask, schedule = torch.cat(masks), self.stage.schedule

        def keep(x: Image, k: int) -> Image:
            s, noise = self.levels[k + 1], self.noise("keep", k)
            return hold.keep(schedule, x, self.base.expand_as(x), mask, s=s, noise=noise)

        return [keep]


@runtime_checkable
class Companion(Protocol):
    """Takes part in the first stage's sampling, as Prompt-to-Prompt does.

    `items` are the rows of its batch, the edits last.
    """

    items: Sequence[Item]
    first: Callable[[StageRun], Image | None]  # where sampling begins; None: as without it
    predict: Callable[[StageRun], Predict]  # how x_0 is predicted
    after: After  # what is done once a step is done


@runtime_checkable
class Control(Protocol):
    """A part that takes part in the first stage's loop (`Companion`), as Prompt-to-Prompt."""

    def texts(self, example: Example, tuned: Tuned) -> list[str]:
        """List the texts that it embeds besides the edits' own."""
        ...

    def check(
        self, cascade: CascadeProtocol, example: Example, tuned: Tuned, edits: Sequence[str]
    ) -> None:
        """Refuse, before anything is tuned, edits that it cannot be used for."""

    def companion(
        self,
        cascade: CascadeProtocol,
        items: Sequence[Item],
        example: Example,
        tuned: Tuned,
        memory: Memory,
    ) -> Companion:
        """Return what takes part; `memory` is kept from one batch of a call to the next."""
        ...


def sampled(
    run: StageRun, *, companion: Companion | None = None, progress: Progress | None = None
) -> Image:
    """Run the loop; return x_0 of all rows."""
    stage, after = run.stage, run.holds()
    x, predict = None, stage.predict
    if companion is not None:
        x, predict = companion.first(run), companion.predict(run)
        after.append(companion.after)
    if x is None:
        x = stage.schedule.first_image(run.origin, run.noise("start", 0), run.levels[0])
    if progress is not None:
        after.append(_report(progress, stage.name, run.how.steps))
    return denoise(
        thresholded(run.denoiser(predict), stage.threshold),
        x,
        run.levels,
        schedule=stage.schedule,
        step=run.how.step,
        noise=run.noise,
        after=after,
    )


def _report(progress: Progress, stage: str, steps: int) -> After:
    def report(x: Image, k: int) -> Image:
        progress(stage, k + 1, steps)
        return x

    return report
