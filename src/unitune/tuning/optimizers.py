"""The optimisers of tuning as plain data: what is set here is part of a tuning's key."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer


class OptimizerSettings(Protocol):
    """An optimiser's settings, which build one with a constant lr."""

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float) -> Optimizer:
        """Build the optimiser of these parameters."""
        ...


@dataclass(frozen=True)
class Adafactor:
    """The paper's optimiser (as Imagen's base): steps scale with a parameter's RMS; no momentum.

    So lr is relative: at 1e-4 a tensor moves by at most about 1.1 % in 128 steps, enough for Imagen
    and too little for a small model. transformers' version factors the last two dimensions of a
    kernel, so it saves little memory here.
    """

    clip_threshold: float = 1.0
    decay_rate: float = -0.8

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float) -> Optimizer:  # noqa: D102
        from transformers.optimization import Adafactor as Implementation

        return Implementation(
            parameters, lr=lr, scale_parameter=True, relative_step=False, warmup_init=False,
            clip_threshold=self.clip_threshold, decay_rate=self.decay_rate,
        )  # fmt: skip


@dataclass(frozen=True)
class AdamW:
    """The optimiser of most open re-implementations.

    Imagen trained its super-resolution stages with Adam because Adafactor hurt them.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float) -> Optimizer:  # noqa: D102
        betas = (self.beta_1, self.beta_2)
        return torch.optim.AdamW(
            parameters, lr=lr, betas=betas, weight_decay=self.weight_decay, fused=True
        )
