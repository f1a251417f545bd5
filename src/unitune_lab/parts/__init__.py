"""What a part is: a loss on a batch of scenes, a look at unseen scenes, and how it is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from unitune_lab.batches import Batch


class Part(Protocol):
    """A network to train.

    `network` holds all trained weights, those of heads that are thrown away afterwards among them.
    """

    network: nn.Module

    @property
    def size(self) -> int | None:
        """The side in px of the pictures that it reads; None where it reads text alone."""
        ...

    @property
    def captions(self) -> str:
        """The kind of captions that it learns from, as SceneBatches names them."""
        ...

    @property
    def reads(self) -> str:
        """What names the weights of the text encoder that it learns from; "" without one."""
        ...

    @property
    def resolutions(self) -> Sequence[int]:
        """The sides in px at which it can learn."""
        ...

    def loss(self, batch: Batch, resolution: int, seed: int) -> Tensor:
        """Return the loss on a batch; whatever it draws depends on the seed alone."""
        ...

    def look(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Measure mean weights on scenes that training does not draw."""
        ...

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write mean weights as the package reads them."""
        ...
