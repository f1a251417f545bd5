"""KID (Binkowski et al. 2018, arXiv 1801.01401): how far two sets of pictures are apart, by the unbiased squared MMD of their features under a cubic kernel."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from unitune.types import Refused


def mmd(a: Float[Tensor, "N D"], b: Float[Tensor, "N D"]) -> float:
    """Return the unbiased estimate of MMD^2 with the kernel (x . y / D + 1)^3, in float64; it may be negative, and is 0 on average for equal distributions."""
    return float(poly_mmd(a.double(), b.double(), degree=3, coef=1.0))


def kid(
    a: Float[Tensor, "N D"], b: Float[Tensor, "M D"], *, subsets: int, size: int, seed: int
) -> list[float]:
    """Return `mmd` of random subsets of `size` rows of either set; their mean is the KID, their spread its uncertainty at that size."""
    if not 2 <= size <= min(len(a), len(b)):
        raise Refused(
            f"KID needs subsets of 2 to {min(len(a), len(b))} pictures (the smaller set), got {size}"
        )
    rng = np.random.default_rng(seed)
    draws = [
        [torch.from_numpy(rng.choice(len(x), size, replace=False)) for x in (a, b)]
        for _ in range(subsets)
    ]
    return [mmd(a[rows], b[others]) for rows, others in draws]
