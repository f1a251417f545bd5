"""One reverse step: from x_t and the predicted x_0 to x_s, s < t. Also thresholding of x_0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from unitune.diffusion.schedule import Image, Levels, Schedule
from unitune.types import Refused, number

Scale = Float[torch.Tensor, "B 1 1 1"]


@dataclass(frozen=True)
class Transition:
    """From levels t to levels s of a batch, and what a step rule may use on the way.

    `noise` is standard normal. `past` holds the levels and predictions of the steps before, the
    last one at the end, as far as the loop keeps them: what a multistep solver reads.
    """

    schedule: Schedule
    t: Levels
    s: Levels
    noise: Image
    past: Sequence[tuple[Levels, Image]] = ()

    def scales(self) -> tuple[tuple[Scale, Scale], tuple[Scale, Scale]]:
        """Alpha and sigma at t, and at s."""
        return self.schedule.at(self.t), self.schedule.at(self.s)


Step = Callable[[Image, Image, Transition], Image]  # (x_t, predicted x_0, transition) -> x_s


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling with the posterior's variance ("fixed_small" in diffusers).

    Ho et al. (2020), eq. 6 and 7. IF also predicts a variance; tuning on the eps loss leaves it
    stale, so tuned and untuned models are sampled alike with this one.
    """

    def __call__(self, x_t: Image, x_0: Image, transition: Transition) -> Image:
        """Draw x_s ~ q(x_s | x_t, x_0)."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = transition.scales()
        ratio = alpha_t / alpha_s
        added = (sigma_t**2 - (ratio * sigma_s) ** 2).clamp(min=0)  # the variance of x_t given x_s
        of_x_0, of_x_t = alpha_s * added / sigma_t**2, ratio * (sigma_s / sigma_t) ** 2
        mean = of_x_0.to(x_t) * x_0 + of_x_t.to(x_t) * x_t
        return mean + (added.sqrt() * sigma_s / sigma_t).to(x_t) * transition.noise


@dataclass(frozen=True)
class DDIM:
    """Song et al. (2021), eq. 12 and 16; eta 0 is deterministic, eta 1 has DDPM's variance."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not (number(self.eta) and 0 <= self.eta <= 1):
            raise Refused(f"eta must be in [0, 1] (0 = deterministic, 1 = DDPM), got {self.eta}")

    def __call__(self, x_t: Image, x_0: Image, transition: Transition) -> Image:
        """Step along the eps that x_t and x_0 imply."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = transition.scales()
        added = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2  # the variance of x_t given x_s
        variance = (self.eta * sigma_s / sigma_t) ** 2 * added
        eps = transition.schedule.eps_from_x_0(x_t, x_0, transition.t)
        kept = (sigma_s**2 - variance).clamp(min=0).sqrt()
        x_s = alpha_s.to(x_t) * x_0 + kept.to(x_t) * eps
        return x_s + variance.sqrt().to(x_t) * transition.noise


@dataclass(frozen=True)
class Threshold:
    """Imagen's dynamic thresholding, with DeepFloyd IF's cap.

    It makes large guidance weights usable in pixel space.
    """

    quantile: float = 0.95  # IF; Imagen used 0.995
    cap: float = 1.5  # IF stage I; 1.0 in stage II

    def __call__(self, x_0: Image) -> Image:
        """Clip to [-s, s] and divide by s: the quantile of |x_0| per image, within [1, cap]."""
        s = quantile(x_0.abs().flatten(1), self.quantile).clamp(1, self.cap)[:, None, None, None]
        return x_0.clamp(-s, s) / s


@dataclass(frozen=True)
class Unbounded:
    """No thresholding: latents have no range to clip to."""

    def __call__(self, x_0: Image) -> Image:
        """Return x_0."""
        return x_0


def quantile(x: Float[torch.Tensor, "B N"], q: float) -> Float[torch.Tensor, " B"]:
    """torch.quantile of each row to the bit, by selecting its two values instead of sorting all."""
    # torch computes the rank in the input's own precision.
    rank = torch.tensor(q, dtype=x.dtype) * (x.shape[1] - 1)
    below = int(rank.floor())
    low = x.kthvalue(below + 1, dim=1).values
    weight = (rank - below).to(low)
    return torch.lerp(low, low if weight == 0 else x.kthvalue(below + 2, dim=1).values, weight)


def levels(start: int, steps: int) -> torch.Tensor:
    """Spread `steps` steps evenly from level `start` to the clean image ("trailing" spacing).

    (steps + 1,) int64, the last is -1. With more steps than levels some levels repeat, which
    changes nothing; only the last is clean, since no step starts from there.
    """
    if steps < 1:
        raise Refused(f"sampling steps must be at least 1, got {steps}")
    k = torch.arange(steps, -1, -1, dtype=torch.float64)
    spread = ((start + 1) * k / steps).round().long() - 1
    spread[:-1].clamp_(min=0)
    return spread
