"""Scores of the part that must stay, as PIE-Bench defines them: both pictures on [0, 1] times (1 - mask), then compared whole."""

from collections.abc import Callable, Sequence

from torch import Tensor

from unitune.metrics.batches import check_size, in_batches, unit
from unitune.types import Edit


def unedited(edits: Sequence[Edit], compare: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """Compare the masked pictures, (B, 3, H, W) in [0, 1], a few at a time; NaN without a mask or where the mask lets everything change."""
    scores = [float("nan")] * len(edits)
    masks = {
        k: edit.request.mask
        for k, edit in enumerate(edits)
        if edit.request.mask is not None and bool((edit.request.mask < 1).any())
    }
    for k, mask in masks.items():
        check_size(edits[k], mask, "mask")
        check_size(edits[k], edits[k].example.image, "base image")

    def masked(image: Tensor, base: Tensor, mask: Tensor) -> Tensor:
        stays = 1 - mask.float().cpu()
        return compare(unit(image) * stays, unit(base) * stays)

    columns = (
        [edits[k].image for k in masks],
        [edits[k].example.image for k in masks],
        [*masks.values()],
    )
    for k, score in zip(masks, in_batches(masked, *columns), strict=True):
        scores[k] = score
    return scores
