"""Where sampling begins: at pure noise, or late, at a picture noised to `start` (SDEdit: the base image)."""

import torch
from jaxtyping import Float

from unitune.diffusion.schedule import Image, Levels, Schedule


def first_levels(schedule: Schedule, starts: list[float]) -> Levels:
    """Convert each item's start, in the paper's cosine time, to the level of equal log-SNR."""
    return torch.tensor([schedule.level(start) for start in starts])


def first_image(
    schedule: Schedule, origin: Float[torch.Tensor, "#B C H W"], t: Levels, noise: Image
) -> Image:
    """x_t of the origin (the base image, or above the first stage the picture to refine) at t; at the schedule's last level pure noise, as samplers begin."""
    noised = schedule.add_noise(origin.expand_as(noise), noise, t)
    return torch.where((t == schedule.T - 1)[:, None, None, None], noise, noised)
