"""What sampling leaves of one example: its samples with their costs, which of them were chosen, and the pictures in a run's folder."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unitune import images
from unitune.runs.grid import labelled_grid
from unitune.runs.paste import Paste
from unitune.runs.plans import Plan
from unitune.runs.selection import Choice
from unitune.storage import records
from unitune.tuning.visibility import Visibility
from unitune.types import Edit, Example, Tuned

BLANK = np.full((8, 8, 3), 255, dtype=np.uint8)  # of a grid: nothing was chosen here


@dataclass(frozen=True)
class Sample:
    """One sample as the plan asked for it (row "edit"), or in place of a rejected one ("redrawn"), and what it cost."""

    edit: Edit
    row: str
    cost: Mapping[str, float]


@dataclass(frozen=True)
class Samples:
    """The samples of one tuning."""

    tuned: Tuned
    samples: Sequence[Sample]
    chosen: Sequence[Choice] = ()
    visibility: Visibility | None = (
        None  # how the tuning prompt is told from others, where weights are tuned on one
    )

    @property
    def planned(self) -> list[Edit]:
        """The samples that the plan asked for."""
        return [sample.edit for sample in self.samples if sample.row == "edit"]

    def rows(self) -> list[Sample]:
        """List all samples, and after them the chosen ones, which cost what all of their candidates did, and a share of what was tried in vain elsewhere."""
        of = {id(sample.edit): sample.cost for sample in self.samples}
        selected = []
        for one in self.chosen:
            spent = {
                name: sum(of[id(edit)][name] for edit in one.candidates)
                for name in ("seconds", "evaluations")
            }
            spent |= {
                name: spent[name] + sum(of[id(edit)][name] for edit in one.vain) / len(self.chosen)
                for name in spent
            }
            counted = {"candidates": len(one.candidates), "empty_places": one.empty}
            selected.append(Sample(one.edit, "selected", {**of[id(one.edit)], **spent, **counted}))
        return [*self.samples, *selected]


MODEL_FREE = (
    "copy",
    "target",
)  # references that need no model: they are made again where they are scored again


def references(example: Example) -> list[tuple[str, Edit]]:
    """List by its row a copy of the base (keeps everything, edits nothing) and, where it is known, the exact target of each request."""
    rows = []
    for request in example.requests:
        nothing = Edit(example, request, 0, 1.0, 1.0, request.prompt, example.image)
        rows.append(("copy", nothing))
        if request.target is not None:
            rows.append(("target", replace(nothing, image=request.target)))
    return rows


TUNING = (
    "example",
    "method",
    "stage",
    "key",
    "steps",
    "texts",
)  # of a line of tunings.jsonl: which tuning it is of, after how many steps


def note(folder: Path, taken: Sequence[Samples]) -> None:
    """Write a line for each tuning in the run's tunings.jsonl: what its prompt is told apart from.

    A run that goes again in its folder has its new lines in the place of the old ones. A line that a killed process left half-written goes.
    """
    new = [one.visibility.plain() for one in taken if one.visibility is not None]
    if not new:
        return
    file = folder / records.TUNINGS
    lines = [
        *_other(file.read_text(encoding="utf-8").split("\n") if file.is_file() else [], new),
        *new,
    ]
    whole = file.with_name(f".{file.name}.partial")
    whole.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    whole.replace(file)


def _other(lines: Sequence[str], new: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Read the lines that are of other tunings than the new ones; what an old line does not say is no difference."""
    found: list[Mapping[str, object]] = []
    for line in lines:
        with suppress(ValueError):
            if isinstance(one := json.loads(line), Mapping) and not any(
                all(one.get(name, it[name]) == it[name] for name in TUNING) for it in new
            ):
                found.append(one)
    return found


def picture_name(example: Example, what: str, k: int) -> str:
    """Name the file of a picture: NAME-copy-000.png."""
    return f"{example.id}-{what.replace(' ', '-')}-{k:03}.png"


def save(edits: Sequence[Edit], names: Sequence[str], folder: Path, *, paste: Paste | None) -> None:
    """Write pictures; beside them the mask that sampling was given (-mask) and the edit in its photograph (-full), where there is such."""
    for edit, name in zip(edits, names, strict=True):
        images.save_png(edit.image, folder / name)
        stem = Path(name).stem
        if edit.allowed is not None:
            images.save_mask(edit.allowed[0, 0].bool().cpu().numpy(), folder / f"{stem}-mask.png")
        if paste is not None:
            images.save_png(paste(edit), folder / f"{stem}-full.png")


def grid(plan: Plan, example: Example, taken: Sequence[Samples], path: Path) -> None:
    """Show the base image and every planned sample, in the plan's order; below each row the chosen ones in the places that they take."""
    layout = plan.layout([edit for one in taken for edit in one.planned])
    chosen = {
        id(one.place): images.to_uint8(one.edit.image) for part in taken for one in part.chosen
    }
    columns = list(next(iter(layout.values())))
    rows, labels = [], []
    for label, row in layout.items():
        rows.append(
            [
                images.to_uint8(example.image),
                *(images.to_uint8(row[column].image) for column in columns),
            ]
        )
        labels.append(label)
        if chosen:
            rows.append([BLANK, *(chosen.get(id(row[column]), BLANK) for column in columns)])
            labels.append(f"selected: {label}")
    labelled_grid(rows, row_labels=labels, column_labels=["base image", *columns], path=path)
