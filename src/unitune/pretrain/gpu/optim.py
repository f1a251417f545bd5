"""Muon in batches of matrices of one shape, and mean weights: few large operations where a GPU would wait for many small ones."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class BatchedMuon:
    """torch's Muon (nesterov, match_rms_adamw) for matrices and kernels, all of one shape in one batch; fused AdamW for the rest.

    A kernel is a matrix (out, h * w * in): that order is a view when the memory is channels_last, and the order of columns does not matter to Muon.
    """

    def __init__(self, module: nn.Module, *, lr: float, weight_decay: float = 0.01, momentum: float = 0.95) -> None:
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum
        trained: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        shapes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for p in trained:
            if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 6:
                shapes[p.shape[0], p[0].numel()].append(p)
        self.groups = list(shapes.values())
        self.moving = [torch.zeros((len(group), *shape), device=group[0].device) for shape, group in shapes.items()]
        taken = {id(p) for group in self.groups for p in group}
        self.rest = torch.optim.AdamW([p for p in trained if id(p) not in taken], lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Apply the gradients and clear them."""
        for group, moving in zip(self.groups, self.moving, strict=True):
            gradient = torch.stack([_flat(p.grad if p.grad is not None else torch.zeros_like(p)) for p in group])
            moving.lerp_(gradient, 1 - self.momentum)
            update = _orthogonal(gradient.lerp(moving, self.momentum))
            torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            torch._foreach_add_(
                group, [_unflat(u, p) for u, p in zip(update.to(moving).unbind(), group, strict=True)], alpha=-lr * 0.2 * max(moving.shape[1:]) ** 0.5
            )
            for p in group:
                p.grad = None
        self.rest.param_groups[0]["lr"] = lr
        self.rest.step()
        self.rest.zero_grad()

    def state_dict(self) -> dict:
        """Return the momenta and AdamW's state."""
        return {"moving": self.moving, "rest": self.rest.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Take them back."""
        for mine, saved in zip(self.moving, state["moving"], strict=True):
            mine.copy_(saved)
        self.rest.load_state_dict(state["rest"])


def _flat(x: Tensor) -> Tensor:
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).reshape(x.shape[0], -1)


def _unflat(x: Tensor, like: Tensor) -> Tensor:
    return x.view(like.shape[0], *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2) if like.ndim == 4 else x.view_as(like)


def _orthogonal(x: Tensor) -> Tensor:
    """Five Newton-Schulz steps towards the nearest orthogonal matrices, (N, rows, columns), in bfloat16; the coefficients are those of torch.optim.Muon."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x.bfloat16()
    wide = x if x.shape[1] <= x.shape[2] else x.mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if x.shape[1] <= x.shape[2] else wide.mT


class MeanWeights:
    """An average of the weights whose memory grows with the steps: a twentieth of them (arXiv 2312.02696, eq. 121 of the power function, gamma 16.97)."""

    def __init__(self, module: nn.Module) -> None:
        self.live: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        self.values = [p.detach().clone() for p in self.live]

    def step(self, steps: int) -> None:
        """Take the weights after so many steps in."""
        torch._foreach_lerp_(self.values, [p.detach() for p in self.live], 1 - (1 - 1 / steps) ** 17.97)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Put the mean weights into the network for a while."""
        kept = [p.detach().clone() for p in self.live]
        with torch.no_grad():
            torch._foreach_copy_(self.live, self.values)
            try:
                yield
            finally:
                torch._foreach_copy_(self.live, kept)
