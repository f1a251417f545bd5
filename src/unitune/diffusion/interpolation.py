"""Interpolation of a finished edit with the base image.

The paper interpolates local edits, which it calls aligned, with the base image by an estimated mask
but gives no estimator in any text we could reach; ours is d = blur(|x_edit - x_base|_1),
m = clip((d - low) / (high - low), 0, 1), grown by a maximum filter.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.schedule import Image
from unitune.types import Refused, number

Masks = Float[Tensor, "B 1 H W"]
MODES = ("off", "auto", "on")


def mix(edit: Image, base: Image, mask: Masks) -> Image:
    """Mask * edit + (1 - mask) * base, exact at mask 0 and 1."""
    between = mask * edit + (1 - mask) * base
    return torch.where(mask <= 0, base, torch.where(mask >= 1, edit, between))


def blur(x: Image, sigma: float) -> Image:
    """Gaussian blur, separable, edges repeated; sigma in px."""
    if sigma <= 0:
        return x
    reach = max(1, round(3 * sigma))
    u = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (u / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    for pad, line in (
        ((reach, reach, 0, 0), kernel[..., None, :]),
        ((0, 0, reach, reach), kernel[..., None]),
    ):
        x = F.conv2d(F.pad(x, pad, mode="replicate"), line, groups=x.shape[1])
    return x


def grown(mask: Masks, share: float) -> Masks:
    """Grow masks by a share of the side."""
    reach = round(share * mask.shape[-1])
    return F.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach) if reach else mask


@dataclass(frozen=True)
class Interpolation:
    """Blend the base image back where the edit hardly changed it.

    `mode`: off, on, or auto (only edits that are known to be composed as the base image is).
    Lengths are shares of the picture's side.
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
        if not (number(self.low) and number(self.high) and 0 <= self.low < self.high):
            raise Refused(
                f"interpolation needs 0 <= low < high, got low={self.low}, high={self.high}"
            )
        for name in ("sigma", "grow"):
            share = getattr(self, name)
            if not (number(share) and 0 <= share < 1):
                bounds = "in [0, 1) (share of the picture's side)"
                raise Refused(f"interpolation.{name} must be {bounds}, got {share}")

    def applies(self, composed_alike: bool | None) -> bool:
        """Say whether an edit is blended."""
        return self.mode == "on" or (self.mode == "auto" and composed_alike is True)

    def mask(self, edit: Image, base: Image) -> Masks:
        """Estimate where the edit means to change the base image."""
        d = blur((edit - base).abs().mean(dim=1, keepdim=True), self.sigma * edit.shape[-1])
        m = ((d - self.low) / (self.high - self.low)).clamp(0, 1)
        return grown(m, self.grow)
