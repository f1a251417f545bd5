"""Muon for matrices and convolution kernels, AdamW for the rest, behind one step()."""

from torch import nn
from torch.optim import AdamW, Muon


class MuonAndAdamW:
    """torch's Muon takes matrices only, so kernels are handed to it as (out, in*h*w) views of the same storage."""

    def __init__(self, module: nn.Module, *, lr: float, weight_decay: float = 0.01) -> None:
        trained = [p for p in module.parameters() if p.requires_grad]
        self.kernels = [p for p in trained if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 6]
        small = {id(p) for p in self.kernels}
        self.views = [nn.Parameter(p.data.view(p.shape[0], -1)) for p in self.kernels]
        self.parts = [
            Muon(self.views, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            AdamW([p for p in trained if id(p) not in small], lr=lr, betas=(0.9, 0.99), weight_decay=0.0),
        ]

    def set_lr(self, lr: float) -> None:
        """Use this learning rate from the next step on."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr

    def step(self) -> None:
        """Apply the gradients and clear them."""
        for view, kernel in zip(self.views, self.kernels, strict=True):
            view.grad = None if kernel.grad is None else kernel.grad.contiguous().view_as(view)
        for part in self.parts:
            part.step()
            part.zero_grad()
        for kernel in self.kernels:
            kernel.grad = None

    def state_dict(self) -> list[dict]:
        """Return both parts' states."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        """Take both parts' states back."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
