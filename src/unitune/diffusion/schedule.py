"""The noise schedule: x_t = alpha x_0 + sigma eps, by level t, and what follows from it.

One formula serves variance-preserving schedules (alpha^2 + sigma^2 = 1; DDPM, IF, Stable Diffusion)
and flow matching (alpha + sigma = 1).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune.types import Refused

Image = Float[Tensor, "B C H W"]
Levels = Int[Tensor, " B"]
MAX_BETA = 0.999  # Nichol & Dhariwal (2021) cap the last steps of the cosine schedule
SMALLEST = 1e-12  # of alpha_bar, where a start is converted


def cosine_alpha_bar(u: float) -> float:
    """alpha_bar at the cosine time u in [0, 1], the paper's unit of a late start.

    Nichol & Dhariwal (2021), eq. 17.
    """
    first, here = (math.cos((x + 0.008) / 1.008 * math.pi / 2) ** 2 for x in (0, u))
    return here / first


@dataclass(frozen=True)
class Schedule:
    """alpha and sigma (T,) float64, whose ratio falls: t indexes them, 0 is least noisy."""

    alpha: Float[Tensor, " T"]
    sigma: Float[Tensor, " T"]

    def __post_init__(self) -> None:
        for name, x in (("alpha", self.alpha), ("sigma", self.sigma)):
            if x.ndim != 1 or x.dtype != torch.float64:
                shape = tuple(x.shape)
                raise ValueError(f"{name} must be a float64 vector, got {x.dtype} of shape {shape}")
        if not bool(((self.alpha > 0) & (self.sigma > 0)).all()):
            raise ValueError("alpha and sigma must be above 0")
        if not bool(((self.alpha / self.sigma).diff() < 0).all()):
            raise ValueError("the signal-to-noise ratio must fall strictly")

    @classmethod
    def variance_preserving(cls, alpha_bar: Float[Tensor, " T"]) -> "Schedule":
        """Build alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar)."""
        if not bool(((alpha_bar > 0) & (alpha_bar < 1)).all()):
            raise ValueError("alpha_bar must fall strictly within (0, 1)")
        return cls(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    @classmethod
    def cosine(cls, T: int = 1000) -> "Schedule":
        """Build Imagen's and DeepFloyd IF's schedule ("squaredcos_cap_v2" in diffusers)."""
        ratios = (cosine_alpha_bar((i + 1) / T) / cosine_alpha_bar(i / T) for i in range(T))
        betas = torch.tensor([min(1 - r, MAX_BETA) for r in ratios], dtype=torch.float64)
        return cls.variance_preserving(torch.cumprod(1 - betas, 0))

    @classmethod
    def flow_matching(cls, T: int = 1000, *, shift: float = 1.0) -> "Schedule":
        """Build sigma = s u / (1 + (s - 1) u) at u = (t + 1) / T, alpha = 1 - sigma.

        Esser et al. (2024), section 5.3.2, for the shift s. At u = 1 alpha would be 0: the last
        level keeps half of what the one before has.
        """
        u = torch.arange(1, T + 1, dtype=torch.float64) / T
        sigma = shift * u / (1 + (shift - 1) * u)
        alpha = 1 - sigma
        alpha[-1] = alpha[-2] / 2
        return cls(alpha, 1 - alpha)

    @property
    def T(self) -> int:
        """Number of noise levels."""
        return len(self.alpha)

    @property
    def alpha_bar(self) -> Float[Tensor, " T"]:
        """alpha^2 / (alpha^2 + sigma^2): the schedule's level of a variance-preserving one."""
        a, s = self.alpha.square(), self.sigma.square()
        return a / (a + s)

    def at(self, t: Levels) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """Alpha and sigma of each item's level, float64; t = -1 is the clean image: 1 and 0."""
        alpha = torch.cat([self.alpha, self.alpha.new_ones(1)]).to(t.device)
        sigma = torch.cat([self.sigma, self.sigma.new_zeros(1)]).to(t.device)
        return alpha[t][:, None, None, None], sigma[t][:, None, None, None]

    def snr(self, t: Levels) -> Float[Tensor, " B"]:
        """Signal-to-noise ratio alpha^2 / sigma^2."""
        alpha, sigma = self.at(t)
        return (alpha / sigma).square().flatten()

    def add_noise(self, x_0: Image, eps: Image, t: Levels) -> Image:
        """q(x_t | x_0): alpha x_0 + sigma eps."""
        alpha, sigma = self.at(t)
        return alpha.to(x_0) * x_0 + sigma.to(x_0) * eps

    def eps_from_x_0(self, x_t: Image, x_0: Image, t: Levels) -> Image:
        """Invert `add_noise` for eps."""
        alpha, sigma = self.at(t)
        return (x_t - alpha.to(x_t) * x_0) / sigma.to(x_t)

    def level(self, start: float) -> int:
        """The level with the log-SNR that `start` has on Imagen's cosine schedule.

        `start` lies in (0, 1], 1 is the noisiest level. A start beyond the schedule's terminal
        noise gives its last level.
        """
        if not 0 < start <= 1:
            raise Refused(f"start must be in (0, 1] (1 = pure noise), got {start}")
        a = min(max(cosine_alpha_bar(start), SMALLEST), 1 - SMALLEST)
        wanted = math.log(a / (1 - a))
        log_snr = 2 * torch.log(self.alpha / self.sigma)
        return int((log_snr - wanted).abs().argmin())

    def first_image(self, origin: Float[Tensor, "#B C H W"], noise: Image, t: Levels) -> Image:
        """x_t where sampling begins: the origin noised to t (SDEdit), at the last level pure noise.

        The origin is the base image, or for super-resolution the picture to refine.
        """
        noised = self.add_noise(origin.expand_as(noise), noise, t)
        return torch.where((t == self.T - 1)[:, None, None, None], noise, noised)
