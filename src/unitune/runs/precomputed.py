"""Pictures that another method made of a benchmark's edits: scored and recorded as a run is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from unitune import images, metrics
from unitune.runs import pictures, reference_rows, results
from unitune.runs.folder import finish, note
from unitune.runs.grid import labelled_grid
from unitune.runs.results import Sample
from unitune.storage import records
from unitune.storage.records import Record
from unitune.types import Edit, Metric


class PublishedEdits(Protocol):
    """A benchmark that holds other methods' pictures of its edits."""

    def outputs(self, name: str, resolution: int) -> list[Edit]: ...  # noqa: D102


def score(
    benchmark: PublishedEdits, chosen: Sequence[Metric], *, name: str, resolution: int, folder: Path
) -> list[Record]:
    """Read the pictures of that name; save, score and record them beside the reference rows.

    The method of their records is the name.
    """
    edits = benchmark.outputs(name, resolution)
    rows = [(name, Sample(edit, "edit")) for edit in edits]
    examples = [*{id(edit.example): edit.example for edit in edits}.values()]
    stems = pictures.stems(examples)
    for example in examples:
        rows += [("", Sample(edit, row)) for row, edit in reference_rows.model_free(example)]
    scores = metrics.score(chosen, [sample.edit for _, sample in rows])
    done = []
    for k, ((method, sample), found) in enumerate(zip(rows, scores, strict=True)):
        file = pictures.file_name(stems[sample.edit.example.id], method or sample.row, k)
        images.save_png(sample.edit.image, folder / file)
        fields = {"image": file, "scores": found, "environment": records.environment()}
        done.append(results.record(sample, folder, method=method, model="published", **fields))
    metrics.write_cards(chosen, folder)
    note(folder, done)
    labelled_grid(
        [[images.to_uint8(edit.example.image), images.to_uint8(edit.image)] for edit in edits],
        row_labels=[edit.request.prompt for edit in edits],
        column_labels=["base image", "output"],
        path=folder / "grid.png",
    )
    finish(folder)
    return done
