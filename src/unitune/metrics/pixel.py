"""Scores that compare pixels: PSNR and SSIM against the base image, error outside the mask, PSNR against the exact target.

Pictures are read as [0, 1] with data range 1. PSNR is the same on [-1, 1] with range 2; SSIM is not, because its luminance term needs black at 0.
"""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from unitune.types import Edit, Refused

NAN = float("nan")
EQUAL = 100.0  # dB, of equal pictures: infinity would spoil every mean
HOW = {"preprocessing": "[0, 1], data range 1", "version": "torchmetrics"}


def _unit(image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 H W"]:
    return (image.float().cpu() + 1) / 2


def _compare(measure: Callable[[Tensor, Tensor], Tensor], edit: Edit, reference: Tensor | None) -> float:
    if reference is None:
        return NAN
    if reference.shape != edit.image.shape:
        raise Refused(f"pixel metrics compare pictures of one size; the edit is {tuple(edit.image.shape)}, its reference {tuple(reference.shape)}")
    return float(measure(_unit(edit.image), _unit(reference)))


def psnr(image: Float[Tensor, "1 3 H W"], reference: Float[Tensor, "1 3 H W"]) -> Tensor:
    """Return the peak signal-to-noise ratio of pictures in [0, 1], dB, at most `EQUAL`."""
    return peak_signal_noise_ratio(image, reference, data_range=1.0).clamp(max=EQUAL)


def ssim(image: Float[Tensor, "1 3 H W"], reference: Float[Tensor, "1 3 H W"]) -> Tensor:
    """Return the structural similarity of pictures in [0, 1], Gaussian window of 11 px, sigma 1.5."""
    value = structural_similarity_index_measure(image, reference, data_range=1.0)
    return value if isinstance(value, Tensor) else value[0]


class PSNR:
    """PSNR of the edit against the base image, dB."""

    name = "psnr"
    higher_is_better = True
    card: Mapping[str, str] = {"what": "PSNR of edit and base image, dB, at most 100", **HOW}

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [_compare(psnr, e, e.example.image) for e in edits]


class SSIM:
    """SSIM of the edit against the base image."""

    name = "ssim"
    higher_is_better = True
    card: Mapping[str, str] = {"what": "SSIM of edit and base image, 11 px Gaussian window", **HOW}

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [_compare(ssim, e, e.example.image) for e in edits]


class MSEOutsideMask:
    """Mean squared change of the pixels that the request's mask says must stay; NaN without a mask or where nothing must stay."""

    name = "mse_outside"
    higher_is_better = False
    card: Mapping[str, str] = {"what": "mean squared difference of edit and base image where the mask is 0", "preprocessing": "[0, 1]"}

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [self._outside(e) for e in edits]

    def _outside(self, edit: Edit) -> float:
        if edit.request.mask is None:
            return NAN
        stays = edit.request.mask.cpu() < 0.5
        if stays.shape[-2:] != edit.image.shape[-2:]:
            sizes = f"{tuple(stays.shape[-2:])} px, the edit {tuple(edit.image.shape[-2:])} px"
            raise Refused(f"the mask of {edit.request.prompt!r} is {sizes}; give a mask of the edit's size")
        return _compare(lambda a, b: (a - b).square().mean(dim=1, keepdim=True)[stays].mean(), edit, edit.example.image)


class TargetPSNR:
    """PSNR of the edit against the exact answer, dB; NaN where no target is known."""

    name = "psnr_target"
    higher_is_better = True
    card: Mapping[str, str] = {"what": "PSNR of edit and exact target, dB, at most 100", **HOW}

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return [_compare(psnr, e, e.request.target) for e in edits]
