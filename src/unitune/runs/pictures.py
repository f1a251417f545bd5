"""The pictures in a run's folder: edits, their masks, edits in their photographs, the grid."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unitune import images
from unitune.runs.grid import labelled_grid
from unitune.runs.paste import Paste
from unitune.runs.plans import Plan
from unitune.runs.results import TuningResult
from unitune.storage import names
from unitune.storage.records import REFERENCES
from unitune.types import Edit, Example

BLANK = np.full((8, 8, 3), 255, dtype=np.uint8)  # of a grid: nothing was chosen here


def stems(examples: Sequence[Example]) -> dict[str, str]:
    """Name the pictures of each example, by its id, so that no file is another's or the grid's."""
    endings = ["", *(f"-{names.file_name(row.replace(' ', '-'))}" for row in REFERENCES)]
    return names.file_names([one.id for one in examples], endings=endings, taken=("grid",))


def file_name(stem: str, row: str, k: int) -> str:
    """Name the file of a picture: STEM-000.png of an edit, STEM-copy-000.png of another row."""
    parts = [stem, names.file_name(row.replace(" ", "-"))] if row else [stem]
    return f"{'-'.join(parts)}-{k:03}.png"


def save(
    edits: Sequence[Edit], files: Mapping[int, str], folder: Path, *, paste: Paste | None
) -> None:
    """Write pictures and, where there are such, masks (-mask) and edits in photographs (-full).

    `files` are their names by the id() of their edit.
    """
    for edit in edits:
        file = folder / files[id(edit)]
        images.save_png(edit.image, file)
        if edit.allowed is not None:
            images.save_mask(
                edit.allowed[0, 0].bool().cpu().numpy(), file.with_name(f"{file.stem}-mask.png")
            )
        if paste is not None:
            full = file.with_name(f"{file.stem}-full.png")
            images.save_png(paste(edit), full, profile=paste.profile)


def grid(plan: Plan, example: Example, results: Sequence[TuningResult], path: Path) -> None:
    """Show the base image and every planned sample, in the plan's order.

    Below each row stand the chosen samples, in the places that they take.
    """
    layout = plan.layout([edit for result in results for edit in result.planned])
    chosen = {
        id(choice.place): images.to_uint8(choice.edit.image)
        for result in results
        for choice in result.chosen
    }
    columns = list(next(iter(layout.values())))
    base = images.to_uint8(example.image)
    rows, labels = [], []
    for label, row in layout.items():
        rows.append([base, *(images.to_uint8(row[column].image) for column in columns)])
        labels.append(label)
        if chosen:
            rows.append([BLANK, *(chosen.get(id(row[column]), BLANK) for column in columns)])
            labels.append(f"selected: {label}")
    labelled_grid(rows, row_labels=labels, column_labels=["base image", *columns], path=path)
