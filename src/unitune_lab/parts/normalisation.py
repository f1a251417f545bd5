"""Statistics of batch normalisation for mean weights.

Mean weights need statistics of their own. They are taken over the same pictures at every export,
so that they are no state of the training: one that was resumed exports what one that was not does.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from unitune_lab.batches import SceneBatches

BATCHES, BATCH_SIZE, SEED = 8, 64, 5


class Statistics:
    """The pictures of seen compositions over which statistics are taken; drawn when first needed.

    `prepare` turns pictures (B, 3, 64, 64) on [-1, 1] into what the network reads in training.
    """

    def __init__(self, device: torch.device, prepare: Callable[[Tensor], Tensor]) -> None:
        self.device, self.prepare = device, prepare
        self.pictures: list[Tensor] = []

    def _draw(self) -> Iterable[Tensor]:
        batches = SceneBatches(seed=SEED, batch_size=BATCH_SIZE, size=64, captions="plain")
        for k in range(BATCHES):
            yield self.prepare(batches.batch(k).pictures(self.device))

    def renew(self, network: nn.Module) -> None:
        """Give a network's batch normalisation the statistics of these pictures."""
        self.pictures = self.pictures or list(self._draw())
        update_bn(self.pictures, network)
