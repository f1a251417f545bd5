"""Paste-back: the changed region of an edit, enlarged, in the photograph of full size.

The edit's square was taken from that photograph.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch.nn.functional as F

from unitune import images
from unitune.diffusion.interpolation import Interpolation, blur, mix
from unitune.types import Edit, Mask, Picture, Refused, number

CHANGED = Interpolation("on")  # finds the changed region where an edit carries no mask


@dataclass(frozen=True)
class Paste:
    """Puts edits back into one picture file.

    `fit` is how its square was made, `feather` the softness of the region's edge, a share of the
    square's side.
    """

    file: Path
    fit: str = "crop"
    feather: float = 0.004  # 1 px of a 256 px edit

    def __post_init__(self) -> None:
        if not (number(self.feather) and 0 <= self.feather < 0.5):
            raise Refused(
                f"feather must be in [0, 0.5) (share of the square's side), got {self.feather}"
            )

    def __call__(self, edit: Edit) -> Picture:
        """Return the whole photograph with the edit in it, in the colours of its `profile`.

        Wherever the edit's mask is 0 it keeps its own pixels.
        """
        photo, image = photograph(self.file), edit.image
        if photo.profile is not None:
            image = images.from_srgb(image, photo.profile)
        return paste(photo.pixels, image, region(edit), fit=self.fit, feather=self.feather)

    @property
    def profile(self) -> bytes | None:
        """The photograph's ICC profile; None is sRGB."""
        return photograph(self.file).profile


def region(edit: Edit) -> Mask:
    """Return where an edit changed the picture.

    That is what sampling was allowed to change, else what interpolation kept of the edit, else
    what differs from the base image.
    """
    if edit.allowed is not None:
        return edit.allowed
    if edit.mask is not None:
        return edit.mask
    return CHANGED.mask(edit.image, edit.example.image)


def paste(photo: Picture, edit: Picture, mask: Mask, *, fit: str, feather: float) -> Picture:
    """Blend an edit into the square of the photograph that `images.load` made it from.

    The edge softens inwards, so that outside nothing moves. Strokes of the mask that are thinner
    than about one and a half `feather` fade out.
    """
    height, width = photo.shape[-2:]
    top, left, *size = images.box(height, width, fit)
    # The part of the square that lies in the photograph: all of it, unless grey was padded.
    y, x = max(0, -top), max(0, -left)
    y_to, x_to = min(size[0], height - top), min(size[1], width - left)
    cut = (..., slice(y, y_to), slice(x, x_to))
    place = (..., slice(top + y, top + y_to), slice(left + x, left + x_to))
    enlarged = F.interpolate(edit, tuple(size), mode="bicubic", antialias=True).clamp(-1, 1)
    m = F.interpolate(mask, tuple(size), mode="nearest")
    if feather:
        m = m * (2 * blur(m, feather * max(size)) - 1).clamp(0, 1)
    whole = photo.clone()
    whole[place] = mix(enlarged[cut], photo[place], m[cut])
    return whole


@lru_cache(maxsize=1)
def photograph(file: Path) -> images.Photograph:
    """Read a photograph once for all its edits."""
    return images.photograph(file)
