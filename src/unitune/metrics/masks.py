"""Scores of the part that must stay, as PIE-Bench defines them: both pictures on [0, 1] times (1 - mask), then compared whole."""

from collections.abc import Callable, Sequence

from torch import Tensor

from unitune.metrics.batches import check_size, in_batches, unit
from unitune.types import Edit


def unedited(edits: Sequence[Edit], compare: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """Compare the masked pictures, (B, 3, H, W) in [0, 1], a few at a time; NaN without a mask or where the mask lets everything change."""
    scores = [float("nan")] * len(edits)
    rows = [k for k, edit in enumerate(edits) if edit.request.mask is not None and bool((edit.request.mask < 1).any())]
    for k in rows:
        check_size(edits[k], edits[k].request.mask, "mask")
        check_size(edits[k], edits[k].example.image, "base image")

    def masked(image: Tensor, base: Tensor, mask: Tensor) -> Tensor:
        stays = 1 - mask.float().cpu()
        return compare(unit(image) * stays, unit(base) * stays)

    columns = zip(*((edits[k].image, edits[k].example.image, edits[k].request.mask) for k in rows), strict=True)
    for k, score in zip(rows, in_batches(masked, *columns) if rows else [], strict=True):
        scores[k] = score
    return scores
