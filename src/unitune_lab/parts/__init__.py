"""What each part learns: a loss on a batch of scenes, a look at unseen ones, and how it is written."""

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from unitune_lab.batches import Batch


class Part(Protocol):
    """A network to train.

    `network` holds all trained weights, those of heads that are thrown away afterwards among them;
    `size` is the side in px of the pictures that it reads, `captions` for whom a stream's are.
    """

    network: nn.Module
    size: int | None
    captions: str

    def loss(self, batch: Batch, resolution: int, seed: int) -> Tensor:
        """Return the loss on a batch; whatever it draws depends on the seed alone."""
        ...

    def look(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Measure mean weights on compositions that training never sees."""
        ...

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write mean weights as the package reads them."""
        ...
