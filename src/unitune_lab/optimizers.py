"""AdamW, or Muon for matrices and kernels with AdamW for the rest, behind one step(lr)."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon
from unitune.errors import Refused

BETAS = (0.9, 0.99)


class Optimizer(Protocol):
    """What the trainer asks of an optimizer; the state is tensors and plain data."""

    def step(self, lr: float) -> None:
        """Apply the gradients at this learning rate and clear them."""
        ...

    def state_dict(self) -> dict:
        """Return the state."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Take the state back."""
        ...


class AdamWOnly:
    """AdamW for all parameters."""

    def __init__(self, module: nn.Module, *, weight_decay: float) -> None:
        trained = [p for p in module.parameters() if p.requires_grad]
        self.adamw = AdamW(trained, betas=BETAS, weight_decay=weight_decay, fused=True)

    def step(self, lr: float) -> None:
        """Apply the gradients at this learning rate and clear them."""
        self.adamw.param_groups[0]["lr"] = lr
        self.adamw.step()
        self.adamw.zero_grad()

    def state_dict(self) -> dict:
        """Return AdamW's state."""
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Take it back."""
        self.adamw.load_state_dict(state)


class MuonAndAdamW:
    """Muon for matrices and kernels; AdamW for biases, norms and very small kernels.

    torch's Muon takes matrices alone, so it is given kernels as (out, in*h*w) views of the same
    storage.
    """

    def __init__(self, module: nn.Module, *, weight_decay: float) -> None:
        trained = [p for p in module.parameters() if p.requires_grad]
        self.kernels = [p for p in trained if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 6]
        taken = {id(p) for p in self.kernels}
        rest = [p for p in trained if id(p) not in taken]
        self.views = [nn.Parameter(_matrix(p.data, like=p)) for p in self.kernels]
        self.muon = Muon(self.views, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.adamw = AdamW(rest, betas=BETAS, weight_decay=0.0, fused=True)

    def step(self, lr: float) -> None:
        """Apply the gradients at this learning rate and clear them."""
        for view, kernel in zip(self.views, self.kernels, strict=True):
            view.grad = None if kernel.grad is None else _matrix(kernel.grad, like=kernel)
            kernel.grad = None
        for part in (self.muon, self.adamw):
            part.param_groups[0]["lr"] = lr
            part.step()
            part.zero_grad()

    def state_dict(self) -> dict:
        """Return both parts' states."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Take both parts' states back."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


OPTIMIZERS = {"adamw": AdamWOnly, "muon": MuonAndAdamW}


def build(name: str, module: nn.Module, *, weight_decay: float) -> Optimizer:
    """Build one of OPTIMIZERS for the trained parameters of a module."""
    if name not in OPTIMIZERS:
        raise Refused(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}")
    return OPTIMIZERS[name](module, weight_decay=weight_decay)


def rate(lr: float, *, step: int, warmup: int, left: int, cooldown: int) -> float:
    """Return the learning rate of a step, with `left` samples to the end of the training.

    It rises over the first `warmup` steps after a start and falls to 0 over the last `cooldown`
    samples.
    """
    fall = min(1.0, left / cooldown) if cooldown else 1.0
    return lr * min(1.0, (step + 1) / max(1, warmup)) * fall


def _matrix(x: Tensor, *, like: Tensor) -> Tensor:
    """View a kernel, or its gradient, as a matrix in the kernel's own order of memory.

    Muon does not mind the order of columns.
    """
    if like.is_contiguous():
        return x.contiguous().view(x.shape[0], -1)
    ordered = x.contiguous(memory_format=torch.channels_last)
    return ordered.permute(0, 2, 3, 1).view(x.shape[0], -1)
