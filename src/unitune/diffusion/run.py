"""One stage's sampling of a batch of items, and what may take part in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune import rng
from unitune.diffusion import blend, start
from unitune.diffusion.blend import Masks
from unitune.diffusion.guidance import guided, thresholded
from unitune.diffusion.hold import at
from unitune.diffusion.loop import After, NoiseSource, denoise
from unitune.diffusion.sampling import StageSampling
from unitune.diffusion.schedule import Image
from unitune.diffusion.stage import CascadeProtocol, Condition, Predict, Stage, with_base_weights
from unitune.diffusion.steps import levels
from unitune.types import Draw, Example, Tuned

Memory = dict[Any, Any]
Progress = Callable[[str, int, int], None]  # (stage, step done, steps)


@dataclass(frozen=True)
class Item:
    """One row of a batch: what is drawn, its whole text, its dials, where it may change."""

    draw: Draw
    text: str
    weight: float
    start: float
    allowed: Masks | None = None


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
    starts: Sequence[float]
    weights: Sequence[float]
    reference_from_base: bool = False

    @cached_property
    def levels(self) -> Int[Tensor, "N B"]:
        """The levels of every item, falling to -1."""
        schedule = self.stage.schedule
        first = start.first_levels(schedule, list(self.starts))
        return torch.stack([levels(schedule, int(t), self.how.steps) for t in first], dim=1)

    @property
    def noise(self) -> NoiseSource:
        """Noise that is named by (seed, example, stage, role, step)."""
        return noise_of(self.items, self.example, self.stage, (1, *self.base.shape[1:]))


@runtime_checkable
class Companion(Protocol):
    """Takes part in the first stage's sampling, as Prompt-to-Prompt does.

    `items` are the rows of its batch, the edits last.
    """

    items: Sequence[Item]

    def first(self, run: StageRun) -> Image | None:
        """Return where sampling begins; None: as without it."""
        ...

    def predict(self, run: StageRun) -> Predict:
        """Return the prediction of x_0."""
        ...

    def after(self, x: Image, k: int) -> Image:
        """Act on x once step `k` is done."""
        ...


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
        ...

    def companion(
        self, cascade: CascadeProtocol, items: Sequence[Item], example: Example, tuned: Tuned,
        memory: Memory,
    ) -> Companion:  # fmt: skip
        """Return what takes part; `memory` is kept from one batch of a call to the next."""
        ...


def sampled(
    run: StageRun, *, companion: Companion | None = None, progress: Progress | None = None
) -> Image:
    """Run the loop; return x_0 of all rows."""
    stage, ts, noise = run.stage, run.levels, run.noise
    x = companion.first(run) if companion is not None else None
    if x is None:
        x = start.first_image(stage.schedule, run.origin, ts[0], noise("start", 0))
    denoiser = guided(
        stage.predict if companion is None else companion.predict(run),
        run.condition,
        run.reference,
        weight=torch.tensor(run.weights, dtype=torch.float32),
        rescaling=run.how.guidance.rescale,
        predict_reference=with_base_weights(stage) if run.reference_from_base else None,
    )
    after = [*_hold(run, ts, noise), *([companion.after] if companion is not None else [])]
    if progress is not None:
        after.append(_told(progress, stage.name, len(ts) - 1))
    return denoise(
        thresholded(denoiser, stage.threshold), x, ts,
        schedule=stage.schedule, step=run.how.step, noise=noise, after=after,
    )  # fmt: skip


def noise_of(
    items: Sequence[Item], example: Example, stage: Stage, shape: tuple[int, ...]
) -> NoiseSource:
    """Return noise of this shape for each item."""

    def noise(role: str, step: int) -> Image:
        name = {"example": example.id, "stage": stage.name, "role": role, "step": step}
        return torch.cat([rng.noise(shape, seed=item.draw.seed, **name) for item in items])

    return noise


def _hold(run: StageRun, ts: Int[Tensor, "N B"], noise: NoiseSource) -> list[After]:
    """Keep the base image outside the items' masks, at the resolution of a stage's x_0."""
    side = run.base.shape[-1]
    allowed = [at(item.allowed, side) for item in run.items if item.allowed is not None]
    if not allowed:
        return []
    mask = torch.cat(allowed)

    def hold(x: Image, k: int) -> Image:
        base, schedule = run.base.expand_as(x), run.stage.schedule
        return blend.keep(schedule, x, base, mask, s=ts[k + 1], noise=noise("keep", k))

    return [hold]


def _told(progress: Progress, stage: str, steps: int) -> After:
    def tell(x: Image, k: int) -> Image:
        progress(stage, k + 1, steps)
        return x

    return tell
