"""Grids that show the mask of interpolation, from the saved pictures of sweeps alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from unitune.diffusion import interpolation
from unitune.images import load, to_uint8
from unitune.runs.grid import labelled_grid
from unitune.storage.records import Record

from .contrasts import group
from .sweeps import SWEEPS

FIGURES = Path("outputs/figures")


def picture(record: Record) -> torch.Tensor:
    """Read what a record shows."""
    return load(SWEEPS / record.image, size=256).image


def masked(edit: torch.Tensor, base: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The mask that is estimated for an edit sampled without it, and the interpolated picture."""
    mask = interpolation.Interpolation().mask(edit, base)
    grey = (255 * mask[0, 0]).round().byte().numpy()
    mixed = interpolation.mix(edit, base, mask)
    return np.repeat(grey[..., None], 3, axis=2), to_uint8(mixed)


def grid(name: str, found: Sequence[Record], columns: Mapping[str, str]) -> Path:
    """Write a row for each edit.

    It shows the base image, a picture of each named group, the mask of the last one, and that one
    interpolated.
    """
    bases = {record.example: record for record in group(found, "reference=copy")}
    groups = [
        {(record.example, record.prompt, record.seed): record for record in group(found, members)}
        for members in columns.values()
    ]
    rows, labels = [], []
    for edit in groups[-1]:
        base, shown = picture(bases[edit[0]]), [picture(members[edit]) for members in groups]
        rows.append([to_uint8(base), *map(to_uint8, shown), *masked(shown[-1], base)])
        labels.append(edit[1])
    path = FIGURES / f"{name}.png"
    labelled_grid(
        rows,
        row_labels=labels,
        column_labels=["base image", *columns, "mask", "interpolated"],
        path=path,
    )
    return path
