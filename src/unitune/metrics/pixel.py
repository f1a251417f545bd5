"""Scores that compare pixels: PSNR, SSIM and MSE against the base image, the same outside the mask, PSNR and error inside the mask against the exact target.

Pictures are read as [0, 1] with data range 1. PSNR is the same on [-1, 1] with range 2; SSIM is not, because its luminance term needs black at 0.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.metrics.batches import check_size, check_sizes, in_batches, unit
from unitune.metrics.card import card
from unitune.metrics.masks import unedited
from unitune.types import Edit

NAN = float("nan")
EQUAL = 100.0  # dB, of equal pictures: infinity would spoil every mean
Measure = Callable[[Tensor, Tensor], Tensor]  # (B, C, H, W) on [0, 1], twice -> (B,)
WINDOW = "11 px Gaussian window of sigma 1.5"
NO_MASK = "no mask, or one that is 1 everywhere"
NO_INSIDE = "no exact target, no mask, or one that lets nothing change"
MASKED = "edit and base image, both times (1 - mask) on [0, 1] (PIE-Bench)"
_card = partial(card, preprocessing="[0, 1], data range 1")
OURS = "own code, the numbers of torchmetrics"


def mse(
    image: Float[Tensor, "B C H W"], reference: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    """Return the mean squared difference of each pair."""
    return (image - reference).square().flatten(1).mean(dim=1)


def psnr(
    image: Float[Tensor, "B C H W"], reference: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    """Return the peak signal-to-noise ratio of each pair in [0, 1], dB, at most `EQUAL`."""
    return (-10 * mse(image, reference).log10()).clamp(max=EQUAL)


def ssim(
    image: Float[Tensor, "B C H W"], reference: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    """Return the structural similarity of each pair in [0, 1], Gaussian window of 11 px, sigma 1.5 (Wang et al. 2004, equation 13), borders reflected.

    The numbers of torchmetrics in half its time: the window is applied along rows, then columns, as products with band matrices.
    """
    image, reference = (F.pad(x, (5, 5, 5, 5), mode="reflect") for x in (image, reference))
    stacked = torch.cat([image, reference, image**2, reference**2, image * reference])
    down, along = (_window(side - 10).to(image) for side in image.shape[-2:])
    mu_x, mu_y, xx, yy, xy = (down @ (stacked @ along.T)).chunk(5)
    c_1, c_2 = 0.01**2, 0.03**2  # of data range 1
    luminance = (2 * mu_x * mu_y + c_1) / (mu_x**2 + mu_y**2 + c_1)
    structure = (2 * (xy - mu_x * mu_y) + c_2) / (
        (xx - mu_x**2).clamp(min=0) + (yy - mu_y**2).clamp(min=0) + c_2
    )
    return (luminance * structure).flatten(1).mean(dim=1)


@lru_cache(maxsize=8)
def _window(size: int) -> Float[Tensor, "size size+10"]:
    """Weights of the window around each of `size` pixels, of sigma 1.5 and width 11; every row sums to 1."""
    weights = (-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2)).exp()
    offsets = torch.arange(size + 10)[None] - torch.arange(size)[:, None]
    return torch.where(
        (offsets >= 0) & (offsets < 11), (weights / weights.sum())[offsets.clamp(0, 10)], 0.0
    )


def _between(measure: Measure, images: Sequence[Tensor], others: Sequence[Tensor]) -> list[float]:
    return in_batches(lambda image, other: measure(unit(image), unit(other)), images, others)


def _whole(edits: Sequence[Edit], measure: Measure) -> list[float]:
    """Compare edits with their base images."""
    check_sizes(edits)
    return _between(measure, [e.image for e in edits], [e.example.image for e in edits])


class PSNR:
    """PSNR of the edit against the base image, dB."""

    name = "psnr"
    higher_is_better = True
    card: Mapping[str, str] = _card("PSNR of edit and base image, dB, at most 100", version=OURS)

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return _whole(edits, psnr)


class SSIM:
    """SSIM of the edit against the base image."""

    name = "ssim"
    higher_is_better = True
    card: Mapping[str, str] = _card(f"SSIM of edit and base image, {WINDOW}", version=OURS)

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return _whole(edits, ssim)


class MSE:
    """Mean squared change of all pixels."""

    name = "mse"
    higher_is_better = False
    card: Mapping[str, str] = _card("mean squared difference of edit and base image", version=OURS)

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return _whole(edits, mse)


class MSEOutsideMask:
    """Mean squared change of the pixels that the request's mask says must stay; NaN without a mask or where nothing must stay."""

    name = "mse_outside"
    higher_is_better = False
    card: Mapping[str, str] = _card(
        "mean squared difference of edit and base image over the pixels where the mask is below 0.5",
        nan=NO_MASK,
        version=OURS,
    )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [self._outside(e) for e in edits]

    def _outside(self, edit: Edit) -> float:
        if edit.request.mask is None:
            return NAN
        check_size(edit, edit.request.mask, "mask")
        check_size(edit, edit.example.image, "base image")
        stays = edit.request.mask.cpu() < 0.5
        change = (edit.image.float().cpu() - edit.example.image.float().cpu()) / 2
        return float(change.square().mean(dim=1, keepdim=True)[stays].mean())


class ErrorInsideMask:
    """Mean squared distance from the exact answer over the pixels that the mask lets change; NaN without target or mask, or where nothing may change."""

    name = "error_inside"
    higher_is_better = False
    card: Mapping[str, str] = _card(
        "mean squared difference of edit and exact target over the pixels where the mask is at least 0.5",
        nan=NO_INSIDE,
        version=OURS,
    )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [_inside(e, e.image) for e in edits]


class BaseErrorInsideMask:
    """The same distance of the base image; an edit that is nearer has made progress, which is 1 - error_inside / base_error_inside, each summed over edits."""

    name = "base_error_inside"
    higher_is_better = False
    card: Mapping[str, str] = _card(
        "mean squared difference of base image and exact target over the pixels where the mask is at least 0.5; what error_inside is for a copy of the base",
        nan=NO_INSIDE, version=OURS,
    )  # fmt: skip

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score the base images of edits."""
        return [_inside(e, e.example.image) for e in edits]


PROGRESS: Mapping[str, str] = _card(  # of no class: a table makes it of two scores
    "share of the way from the base image to the exact target that edits go, over the pixels where the mask is at least 0.5: 1 - error_inside / "
    "base_error_inside; 1 is the exact target, 0 as far from it as a copy of the base, below 0 farther",
    nan="a base image whose base_error_inside sums to 0, or that has none; records without edit success (both)",
    version="own code: unitune.metrics.statistics (DERIVED), of the scores of unitune.metrics.pixel",
    more={
        "averaging": "error_inside and base_error_inside summed over edits and seeds of an image, then divided; means with an interval over images"
    },
)


def _inside(edit: Edit, image: Tensor) -> float:
    target, mask = edit.request.target, edit.request.mask
    if target is None or mask is None:
        return NAN
    for other, what in ((target, "target"), (mask, "mask"), (edit.example.image, "base image")):
        check_size(edit, other, what)
    error = (image.float().cpu() - target.float().cpu()) / 2
    return float(
        error.square().mean(dim=1, keepdim=True)[mask.cpu() >= 0.5].mean()
    )  # of no pixels: NaN


class UneditedPSNR:
    """PSNR outside the mask as PIE-Bench defines it: what is masked counts as equal, so a large mask alone raises it."""

    name = "psnr_unedited"
    higher_is_better = True
    card: Mapping[str, str] = _card(f"PSNR of {MASKED}, dB, at most 100", nan=NO_MASK, version=OURS)

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return unedited(edits, psnr)


class UneditedSSIM:
    """SSIM outside the mask as PIE-Bench defines it."""

    name = "ssim_unedited"
    higher_is_better = True
    card: Mapping[str, str] = _card(f"SSIM of {MASKED}, {WINDOW}", nan=NO_MASK, version=OURS)

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return unedited(edits, ssim)


class UneditedMSE:
    """MSE outside the mask as PIE-Bench defines it: the mean goes over all pixels, masked ones count as 0. `mse_outside` averages over the others alone."""

    name = "mse_unedited"
    higher_is_better = False
    card: Mapping[str, str] = _card(
        f"mean squared difference of {MASKED}", nan=NO_MASK, version=OURS
    )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return unedited(edits, mse)


class TargetPSNR:
    """PSNR of the edit against the exact answer, dB; NaN where no target is known."""

    name = "psnr_target"
    higher_is_better = True
    card: Mapping[str, str] = _card(
        "PSNR of edit and exact target, dB, at most 100", nan="no target", version=OURS
    )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        known = [(k, e.request.target) for k, e in enumerate(edits) if e.request.target is not None]
        for k, target in known:
            check_size(edits[k], target, "target")
        scores = [NAN] * len(edits)
        for (k, _), score in zip(
            known,
            _between(psnr, [edits[k].image for k, _ in known], [t for _, t in known]),
            strict=True,
        ):
            scores[k] = score
        return scores
