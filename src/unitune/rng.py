"""Random tensors by name: what is drawn depends on its name alone.

It does not depend on what was drawn before, and no global generator is touched.
"""

import hashlib
import json
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def generator(*names: str | int) -> torch.Generator:
    """Make the CPU generator that belongs to these names."""
    joined = json.dumps(names)  # not str.join: ("a", "bc") and ("ab", "c") are two names
    seed = int.from_bytes(hashlib.sha256(joined.encode()).digest()[:8], "big") & (2**63 - 1)
    # torch's CPU generator keeps the low 32 bits, so of 10,000 tensors two are the same with
    # probability 1 %: harmless, as their names differ.
    return torch.Generator().manual_seed(seed)


def noise(
    shape: Sequence[int], *, seed: int, example: str, stage: str, role: str, step: int
) -> Float[Tensor, "..."]:
    """Draw N(0, 1), float32 on the CPU, for one named purpose, e.g. role="tune" or "sample"."""
    return torch.randn(
        tuple(shape), generator=generator(int(seed), example, stage, role, int(step))
    )


def uniform_levels(
    count: int, T: int, *, seed: int, example: str, stage: str, role: str, step: int
) -> Int[Tensor, " count"]:
    """Draw noise levels uniformly from 0..T-1; independent of `noise` under the same names."""
    return torch.randint(
        0, T, (count,), generator=generator(int(seed), example, stage, role, int(step), "levels")
    )
