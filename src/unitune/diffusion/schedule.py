"""The noise schedule: alpha_bar by level t, and what follows from x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune.types import Refused

Image = Float[Tensor, "B C H W"]
Levels = Int[Tensor, " B"]
MAX_BETA = 0.999  # Nichol & Dhariwal (2021) cap the last steps of the cosine schedule


def cosine_alpha_bar(u: float) -> float:
    """alpha_bar at the cosine time u in [0, 1], Nichol & Dhariwal (2021), eq. 17: the paper's unit of a late start."""
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2


@dataclass(frozen=True)
class Schedule:
    """alpha_bar (T,) float64, strictly falling: t indexes it, 0 is least noisy."""

    alpha_bar: Float[Tensor, " T"]

    def __post_init__(self) -> None:
        a = self.alpha_bar
        if a.ndim != 1 or a.dtype != torch.float64:
            raise ValueError(f"alpha_bar must be a float64 vector, got {a.dtype} of shape {tuple(a.shape)}")
        if not bool(((a > 0) & (a < 1)).all()) or not bool((a.diff() < 0).all()):
            raise ValueError("alpha_bar must fall strictly within (0, 1)")

    @classmethod
    def cosine(cls, T: int = 1000) -> "Schedule":
        """Build Imagen's and DeepFloyd IF's schedule ("squaredcos_cap_v2" in diffusers)."""
        betas = [min(1 - cosine_alpha_bar((i + 1) / T) / cosine_alpha_bar(i / T), MAX_BETA) for i in range(T)]
        return cls(torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0))

    @property
    def T(self) -> int:
        """Number of noise levels."""
        return len(self.alpha_bar)

    def at(self, t: Levels) -> Float[Tensor, "B 1 1 1"]:
        """alpha_bar of each item's level as float64, ready to broadcast; t = -1 is the clean image (alpha_bar 1)."""
        padded = torch.cat([self.alpha_bar, self.alpha_bar.new_ones(1)]).to(t.device)
        return padded[t][:, None, None, None]

    def snr(self, t: Levels) -> Float[Tensor, " B"]:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar)."""
        a = self.at(t).flatten()
        return a / (1 - a)

    def add_noise(self, x_0: Image, eps: Image, t: Levels) -> Image:
        """q(x_t | x_0): sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps."""
        a = self.at(t)
        return a.sqrt().to(x_0) * x_0 + (1 - a).sqrt().to(x_0) * eps

    def v(self, x_0: Image, eps: Image, t: Levels) -> Image:
        """The v target of Salimans & Ho (2022): sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0."""
        a = self.at(t)
        return a.sqrt().to(x_0) * eps - (1 - a).sqrt().to(x_0) * x_0

    def x_0_from_eps(self, x_t: Image, eps: Image, t: Levels) -> Image:
        """Invert `add_noise` for x_0."""
        a = self.at(t)
        return (x_t - (1 - a).sqrt().to(x_t) * eps) / a.sqrt().to(x_t)

    def x_0_from_v(self, x_t: Image, v: Image, t: Levels) -> Image:
        """x_0 from a v prediction."""
        a = self.at(t)
        return a.sqrt().to(x_t) * x_t - (1 - a).sqrt().to(x_t) * v

    def eps_from_x_0(self, x_t: Image, x_0: Image, t: Levels) -> Image:
        """Invert `add_noise` for eps."""
        a = self.at(t)
        return (x_t - a.sqrt().to(x_t) * x_0) / (1 - a).sqrt().to(x_t)

    def level(self, start: float) -> int:
        """The level with the log-SNR that `start` has on Imagen's cosine schedule; start in (0, 1], 1 is the noisiest level.

        A start beyond the schedule's terminal noise gives its last level.
        """
        if not 0 < start <= 1:
            raise Refused(f"start must be in (0, 1] (1 = pure noise), got {start}")
        a = min(max(cosine_alpha_bar(start), 1e-12), 1 - 1e-12)
        wanted = math.log(a / (1 - a))
        log_snr = torch.log(self.alpha_bar / (1 - self.alpha_bar))
        return int((log_snr - wanted).abs().argmin())
