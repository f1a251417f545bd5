"""EncoderStorage the base image where it should stay: interpolation after sampling, and masks during it.

The paper interpolates local edits, which it calls aligned, with the base image by an estimated mask but gives no estimator in any text we could reach; ours is
d = blur(|x_edit - x_base|_1), m = clip((d - low) / (high - low), 0, 1), grown by a maximum filter.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.schedule import Image, Levels, Schedule
from unitune.types import Refused

Masks = Float[Tensor, "B 1 H W"]
Other = Float[Tensor, "B C h w"]  # a picture of another side than `Image` in the same signature
MODES = ("off", "auto", "on")


def mix(edit: Image, base: Image, mask: Masks) -> Image:
    """Mask * edit + (1 - mask) * base, exact at mask 0 and 1."""
    return torch.where(
        mask <= 0, base, torch.where(mask >= 1, edit, mask * edit + (1 - mask) * base)
    )


def keep(
    schedule: Schedule, x_s: Image, base: Image, mask: Masks, *, s: Levels, noise: Image
) -> Image:
    """Put the base image, noised to level s, back where the mask is 0 (SDEdit's masked rule, applied after every step)."""
    return mix(x_s, schedule.add_noise(base, noise, s), mask)


def reduced(image: Image, side: int) -> Other:
    """Reduce a picture to a stage's resolution by averaging areas."""
    return image if image.shape[-1] == side else F.interpolate(image, (side, side), mode="area")


def blur(x: Image, sigma: float) -> Image:
    """Gaussian blur, separable, edges repeated; sigma in px."""
    if sigma <= 0:
        return x
    reach = max(1, round(3 * sigma))
    u = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (u / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.conv2d(
        F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel[..., None, :], groups=x.shape[1]
    )
    return F.conv2d(
        F.pad(x, (0, 0, reach, reach), mode="replicate"), kernel[..., None], groups=x.shape[1]
    )


@dataclass(frozen=True)
class Interpolation:
    """Blend the base image back where the edit hardly changed it.

    `mode`: off, on, or auto (only edits that are known to be composed as the base image is). Lengths are shares of the picture's side.
    """

    mode: str = "off"
    low: float = 0.10  # of the range [-1, 1], mean over channels: changes below are undone
    high: float = 0.30  # changes above are kept whole
    sigma: float = 0.012
    grow: float = 0.016

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise Refused(
                f"interpolation.mode must be one of {', '.join(MODES)}, got {self.mode!r}"
            )
        if not 0 <= self.low < self.high:
            raise Refused(
                f"interpolation needs 0 <= low < high, got low={self.low}, high={self.high}"
            )

    def applies(self, composed_alike: bool | None) -> bool:
        """Say whether an edit is blended."""
        return self.mode == "on" or (self.mode == "auto" and composed_alike is True)

    def mask(self, edit: Image, base: Image) -> Masks:
        """Estimate where the edit means to change the base image."""
        side = edit.shape[-1]
        d = blur((edit - base).abs().mean(dim=1, keepdim=True), self.sigma * side)
        m = ((d - self.low) / (self.high - self.low)).clamp(0, 1)
        reach = round(self.grow * side)
        return F.max_pool2d(m, 2 * reach + 1, stride=1, padding=reach) if reach else m
