"""Pictures that another method made of a benchmark's edits, scored as they are: a run's folder without a run, beside the same reference rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from unitune import images
from unitune.metrics import score as scores_of
from unitune.metrics import write_cards
from unitune.runs import outcome
from unitune.runs.grid import labelled_grid
from unitune.storage import records
from unitune.storage.records import Record
from unitune.types import Edit, Metric


class Outputs(Protocol):
    """A benchmark that holds other methods' outputs."""

    def outputs(self, name: str, resolution: int) -> list[Edit]: ...  # noqa: D102


def score(
    benchmark: Outputs, chosen: Sequence[Metric], *, name: str, resolution: int, folder: Path
) -> list[Record]:
    """Read the outputs of that name, save, score and record them with the base images and known targets; the method of their records is the name."""
    edits = benchmark.outputs(name, resolution)
    rows = [(name, "edit", edit) for edit in edits]
    for example in {id(edit.example): edit.example for edit in edits}.values():
        rows += [("", row, edit) for row, edit in outcome.references(example)]
    scores = scores_of(chosen, [edit for _, _, edit in rows])
    done = []
    for k, ((method, row, edit), score) in enumerate(zip(rows, scores, strict=True)):
        file = outcome.picture_name(edit.example, method or row, k)
        images.save_png(edit.image, folder / file)
        record = Record(
            run=folder.name, method=method, sampler="", model="published", example=edit.example.id, kind=edit.request.kind, local=edit.request.local,
            composed_alike=edit.request.composed_alike,
            prompt=edit.request.prompt, text=edit.prompt, seed=edit.seed, weight=edit.weight, start=edit.start, steps=0, image=file, scores={**score},
            cost={}, environment=records.environment(), row=row,
        )  # fmt: skip
        records.append(folder / records.FILE, record)
        done.append(record)
    write_cards(chosen, folder)
    _grid(edits, folder / "grid.png")
    return done


def _grid(edits: Sequence[Edit], path: Path) -> None:
    rows = [[images.to_uint8(edit.example.image), images.to_uint8(edit.image)] for edit in edits]
    labelled_grid(
        rows,
        row_labels=[edit.request.prompt for edit in edits],
        column_labels=["base image", "output"],
        path=path,
    )
