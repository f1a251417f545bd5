"""Scores of the part that must stay, as PIE-Bench defines them: both pictures on [0, 1] times (1 - mask), then compared whole."""

from collections.abc import Callable, Sequence

from torch import Tensor

from unitune.metrics.batches import check_size
from unitune.types import Edit


def unedited(edits: Sequence[Edit], compare: Callable[[list[Tensor], list[Tensor]], list[float]]) -> list[float]:
    """Compare the masked pictures, in [0, 1]; NaN without a mask or where the mask lets everything change."""
    scores = [float("nan")] * len(edits)
    rows = [k for k, edit in enumerate(edits) if edit.request.mask is not None and bool((edit.request.mask < 1).any())]
    for k, score in zip(rows, compare(*_masked([edits[k] for k in rows])) if rows else [], strict=True):
        scores[k] = score
    return scores


def _masked(edits: Sequence[Edit]) -> tuple[list[Tensor], list[Tensor]]:
    pictures: tuple[list[Tensor], list[Tensor]] = [], []
    for edit in edits:
        assert edit.request.mask is not None
        check_size(edit, edit.request.mask, "mask")
        check_size(edit, edit.example.image, "base image")
        stays = 1 - edit.request.mask.float().cpu()
        for column, image in zip(pictures, (edit.image, edit.example.image), strict=True):
            column.append((image.float().cpu() + 1) / 2 * stays)
    return pictures
