"""Scores that compare pixels: with the base image, the same outside the mask, with the target.

Pictures are read as [0, 1] with data range 1. PSNR is the same on [-1, 1] with range 2; SSIM is
not, because its luminance term needs black at 0.
"""

from collections.abc import Mapping
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.metrics.batches import NAN, Measure, check_size, compared, unedited, unit, with_base
from unitune.metrics.card import card
from unitune.types import Edit

Pictures = Float[Tensor, "B C H W"]  # in [0, 1]
EQUAL = 100.0  # dB, of equal pictures: infinity would spoil every mean
NO_MASK = "no mask, or one that is 1 everywhere"
INSIDE = "over the pixels where the mask is at least 0.5"
_card = partial(
    card, preprocessing="[0, 1], data range 1", version="own code, the numbers of torchmetrics"
)


def mse(image: Pictures, reference: Pictures) -> Float[Tensor, " B"]:
    """Return the mean squared difference of each pair."""
    return (image - reference).square().flatten(1).mean(dim=1)


def psnr(image: Pictures, reference: Pictures) -> Float[Tensor, " B"]:
    """Return the peak signal-to-noise ratio of each pair in [0, 1], dB, at most `EQUAL`."""
    return (-10 * mse(image, reference).log10()).clamp(max=EQUAL)


def ssim(image: Pictures, reference: Pictures) -> Float[Tensor, " B"]:
    """Return the structural similarity of each pair in [0, 1] (Wang et al. 2004, equation 13).

    Gaussian window of 11 px, sigma 1.5, borders reflected. The numbers of torchmetrics in half its
    time: the window is applied along rows, then columns, as products with band matrices.
    """
    image, reference = (F.pad(x, (5, 5, 5, 5), mode="reflect") for x in (image, reference))
    stacked = torch.cat([image, reference, image**2, reference**2, image * reference])
    down, along = (_window(side - 10).to(image) for side in image.shape[-2:])
    mu_x, mu_y, xx, yy, xy = (down @ (stacked @ along.T)).chunk(5)
    c_1, c_2 = 0.01**2, 0.03**2  # of data range 1
    luminance = (2 * mu_x * mu_y + c_1) / (mu_x**2 + mu_y**2 + c_1)
    variances = (xx - mu_x**2).clamp(min=0) + (yy - mu_y**2).clamp(min=0)
    structure = (2 * (xy - mu_x * mu_y) + c_2) / (variances + c_2)
    return (luminance * structure).flatten(1).mean(dim=1)


@lru_cache(maxsize=8)
def _window(size: int) -> Float[Tensor, "size size+10"]:
    """Return the window's weights around each of `size` pixels; every row sums to 1."""
    weights = (-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2)).exp()
    offsets = torch.arange(size + 10)[None] - torch.arange(size)[:, None]
    return torch.where(
        (offsets >= 0) & (offsets < 11), (weights / weights.sum())[offsets.clamp(0, 10)], 0.0
    )


class _PixelScore:
    """A measure between the edit and its base image; `what` describes it, {} for the pictures."""

    name: str
    higher_is_better: bool
    measure: Measure
    what: str
    pictures = "edit and base image"
    nan = "never"

    def __init__(self) -> None:
        self.card: Mapping[str, str] = _card(self.what.format(self.pictures), nan=self.nan)

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return with_base(edits, self.measure)


class PSNR(_PixelScore):
    """PSNR of the edit against the base image, dB."""

    name = "psnr"
    higher_is_better = True
    measure = staticmethod(psnr)
    what = "PSNR of {}, dB, at most 100"


class SSIM(_PixelScore):
    """SSIM of the edit against the base image."""

    name = "ssim"
    higher_is_better = True
    measure = staticmethod(ssim)
    what = "SSIM of {}, 11 px Gaussian window of sigma 1.5"


class MSE(_PixelScore):
    """Mean squared change of all pixels."""

    name = "mse"
    higher_is_better = False
    measure = staticmethod(mse)
    what = "mean squared difference of {}"


class _Unedited(_PixelScore):
    """The same measure as PIE-Bench takes it of what must stay: what is masked counts as equal."""

    pictures = "edit and base image, both times (1 - mask) on [0, 1] (PIE-Bench)"
    nan = NO_MASK

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return unedited(edits, self.measure)


class UneditedPSNR(_Unedited, PSNR):
    """PSNR outside the mask as PIE-Bench defines it: a large mask alone raises it."""

    name = "psnr_unedited"


class UneditedSSIM(_Unedited, SSIM):
    """SSIM outside the mask as PIE-Bench defines it."""

    name = "ssim_unedited"


class UneditedMSE(_Unedited, MSE):
    """MSE outside the mask as PIE-Bench defines it, a mean over all pixels.

    `mse_outside` averages over the pixels outside the mask alone.
    """

    name = "mse_unedited"


class TargetPSNR(PSNR):
    """PSNR of the edit against the exact answer, dB; NaN where no target is known."""

    name = "psnr_target"
    pictures = "edit and exact target"
    nan = "no target"

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return compared(edits, _with_target, lambda image, to: psnr(unit(image), unit(to)))


def _with_target(edit: Edit) -> tuple[Tensor, Tensor] | None:
    target = edit.request.target
    if target is None:
        return None
    check_size(edit, target, "target")
    return edit.image, target


class MSEOutsideMask(MSE):
    """Mean squared change of the pixels that must stay; NaN without a mask or where none must."""

    name = "mse_outside"
    pictures = "edit and base image over the pixels where the mask is below 0.5"
    nan = NO_MASK

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [self._outside(edit) for edit in edits]

    def _outside(self, edit: Edit) -> float:
        mask, base = edit.request.mask, edit.example.image
        if mask is None:
            return NAN
        check_size(edit, mask, "mask")
        check_size(edit, base, "base image")
        return _error(edit.image, base, mask.cpu() < 0.5)


class ErrorInsideMask(MSE):
    """Mean squared distance from the exact answer over the pixels that the mask lets change.

    NaN without target or mask, or where nothing may change.
    """

    name = "error_inside"
    pictures = f"edit and exact target {INSIDE}"
    nan = "no exact target, no mask, or one that lets nothing change"

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [_inside(edit, edit.image) for edit in edits]


class BaseErrorInsideMask(ErrorInsideMask):
    """The same distance of the base image; an edit that is nearer has made progress.

    Progress is 1 - error_inside / base_error_inside, each summed over edits.
    """

    name = "base_error_inside"
    pictures = f"base image and exact target {INSIDE}; what error_inside is for a copy of the base"

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score the base images of edits."""
        return [_inside(edit, edit.example.image) for edit in edits]


PROGRESS = _card(  # of no class: a table makes it of two scores
    f"share of the way from the base image to the exact target that edits go, {INSIDE}: "
    "1 - error_inside / base_error_inside; 1 is the exact target, 0 as far from it as a copy of "
    "the base, below 0 farther",
    nan="a base image whose base_error_inside sums to 0, or that has none; records without edit "
    "success (both)",
    version="own code: unitune.metrics.statistics (DERIVED), of the scores of "
    "unitune.metrics.pixel",
    more={
        "averaging": "error_inside and base_error_inside summed over edits and seeds of an image, "
        "then divided; means with an interval over images"
    },
)


def _inside(edit: Edit, image: Tensor) -> float:
    target, mask = edit.request.target, edit.request.mask
    if target is None or mask is None:
        return NAN
    for other, what in ((target, "target"), (mask, "mask"), (edit.example.image, "base image")):
        check_size(edit, other, what)
    return _error(image, target, mask.cpu() >= 0.5)


def _error(image: Tensor, reference: Tensor, chosen: Tensor) -> float:
    """Return the mean squared difference on [0, 1] over the chosen pixels; NaN of none."""
    error = (image.float().cpu() - reference.float().cpu()) / 2
    return float(error.square().mean(dim=1, keepdim=True)[chosen].mean())
