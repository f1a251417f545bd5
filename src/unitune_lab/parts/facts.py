"""The facts of a scene as heads and their loss, shared by the text encoder and the judge."""

import torch.nn.functional as F
from torch import Tensor, nn
from unitune.scenes.scene import MAX_OBJECTS

from unitune_lab.batches import COLOUR, NOUN, PLACE, STYLE, TIME, Batch

ONE_OF_MANY = ("place", "time", "style", "count")


class FactHeads(nn.Module):
    """Linear heads that read facts off a feature vector; `colours` tells which noun has which."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = {
            "nouns": len(NOUN), "place": len(PLACE), "time": len(TIME), "style": len(STYLE),
            "count": MAX_OBJECTS, "colours": len(NOUN) * len(COLOUR), "side": len(NOUN),
        }  # fmt: skip
        for name, size in sizes.items():
            self.add_module(name, nn.Linear(width, size))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of every fact."""
        return {name: head(features) for name, head in self.named_children()}


def fact_loss(logits: dict[str, Tensor], batch: Batch) -> Tensor:
    """Sum the cross entropies of all facts.

    `colours` are told for each noun or, where the logits are as few as the colours (the judge's),
    for the picture as a whole.
    """
    device = logits["nouns"].device
    binary = F.binary_cross_entropy_with_logits
    by_noun = logits["colours"].shape[1] > batch.colours.shape[2]
    colours = batch.colours.flatten(1) if by_noun else batch.colours.amax(dim=1)
    loss = 20 * binary(logits["nouns"], batch.nouns.to(device))
    loss = loss + (20 if by_noun else 4) * binary(logits["colours"], colours.to(device))
    side = batch.side.to(device)
    if (known := side >= 0).any():
        loss = loss + 0.5 * binary(logits["side"][known], side[known])
    for name in ONE_OF_MANY:
        loss = loss + F.cross_entropy(logits[name], getattr(batch, name).to(device))
    return loss
