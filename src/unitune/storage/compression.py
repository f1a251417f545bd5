"""Tuned tensors in few bytes: their change from what they began as, rounded.

A tensor W that began as W_0 is stored as its change D = W - W_0, in the smaller of two forms:

    8 bits  D[i, :] ~ s[i] q[i, :],  s[i] = max |D[i, :]| / 127,  q whole numbers in [-127, 127]
    half    D ~ s h,                 s = max |D|,                 h in half precision

where i counts output channels, the first dimension. 8 bits are taken where they are off by at most
2 % of the change, ||D - s q|| <= 0.02 ||D||; half precision is off by 0.05 % at most. The scales
make both independent of how small a change is. A tensor of one dimension, which has one number a
channel, takes less in half precision.

Pictures of the embedded model, sampled in float32, are those of the uncompressed weights to 67 dB
and more. In bf16 arithmetic a change of the weights' last bit moves them as far as 8 bits do: both
give 41 to 53 dB.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

BYTES = 2  # a number takes at most, without the names of tensors
LEVELS = 127
ERROR = 0.02  # of the change, root mean square, that 8 bits may make
SCALE, CHANGE = "scale", "change"  # what a stored tensor's name begins with


def compressed(tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store tensors as their changes from `base`, float32; what `base` lacks began as zeros.

    Raises ValueError for a change that is not finite.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tuned.items():
        change = tensor.float()
        if name in base:
            change = change - base[name]
        if not change.isfinite().all():
            raise ValueError(f"the change of {name} is not finite")
        form = _half(change)
        if change.ndim > 1 and change.numel():
            coarse = _eight_bits(change)
            unit = _divisor(form[0])  # squares of the changes themselves leave float32's range
            error = ((_product(*coarse) - change) / unit).norm()
            if _size(coarse) < _size(form) and error <= ERROR * (change / unit).norm():
                form = coarse
        stored[f"{SCALE}:{name}"], stored[f"{CHANGE}:{name}"] = form
    return stored


def restored(stored: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `compressed` stored, float32; `base` as it was then.

    Raises KeyError where `stored` is nothing that `compressed` made.
    """
    tensors = {}
    for name in (key.removeprefix(f"{CHANGE}:") for key in stored if key.startswith(CHANGE)):
        change = _product(stored[f"{SCALE}:{name}"], stored[f"{CHANGE}:{name}"])
        tensors[name] = base[name] + change if name in base else change
    return tensors


def _eight_bits(change: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales (C, 1, ...) in float32 and changes (C, ...) in int8."""
    largest = change.abs().amax(dim=tuple(range(1, change.ndim)), keepdim=True)
    scale = largest / LEVELS
    return scale, (change / _divisor(scale)).round().clamp(-LEVELS, LEVELS).to(torch.int8)


def _half(change: Tensor) -> tuple[Tensor, Tensor]:
    """Return one scale in float32 and changes of at most 1 in half precision."""
    scale = change.abs().amax() if change.numel() else change.new_zeros(())
    return scale, (change / _divisor(scale)).half()


def _divisor(scale: Tensor) -> Tensor:
    """Return the scale, and 1 where nothing changed."""
    return torch.where(scale > 0, scale, 1.0)


def _product(scale: Tensor, rounded: Tensor) -> Tensor:
    return scale * rounded.float()


def _size(form: tuple[Tensor, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in form)
