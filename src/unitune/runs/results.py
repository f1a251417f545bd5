"""What one tuning gave: its samples with their costs, those that were chosen, and their records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitune.runs.selection import Choice
from unitune.storage import records
from unitune.storage.files import write_whole
from unitune.storage.records import Record
from unitune.tuning.visibility import Visibility
from unitune.types import Edit, Tuned

# Lines of tunings.jsonl that agree in these are of one tuning, after one number of steps.
SAME_TUNING = ("example", "method", "stage", "key", "steps", "texts")
# What a record says of a picture that no method made.
NO_METHOD: Mapping[str, Any] = {"method": "", "sampler": "", "steps": 0}


@dataclass(frozen=True)
class Sample:
    """An edit, its kind of row ("edit": as planned, "redrawn": for a rejected one) and its cost."""

    edit: Edit
    row: str
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TuningResult:
    """What was sampled of one tuning; `visibility` where weights are tuned on a prompt."""

    tuned: Tuned
    samples: Sequence[Sample]
    chosen: Sequence[Choice] = ()
    visibility: Visibility | None = None

    @property
    def planned(self) -> list[Edit]:
        """The samples that the plan asked for."""
        return [sample.edit for sample in self.samples if sample.row == "edit"]

    def rows(self) -> list[Sample]:
        """List all samples and, once more as rows "selected", the chosen ones.

        A chosen one costs what all of its candidates did, and its share of what was tried in vain
        for places that stay empty.
        """
        cost = {id(sample.edit): sample.cost for sample in self.samples}
        selected = []
        for choice in self.chosen:
            whole = dict(cost[id(choice.edit)])
            for name in ("seconds", "evaluations"):
                tried = sum(cost[id(edit)][name] for edit in choice.candidates)
                in_vain = sum(cost[id(edit)][name] for edit in choice.vain)
                whole[name] = tried + in_vain / len(self.chosen)
            whole |= {"candidates": len(choice.candidates), "empty_places": choice.empty}
            selected.append(Sample(choice.edit, "selected", whole))
        return [*self.samples, *selected]


def note(folder: Path, results: Sequence[TuningResult]) -> None:
    """Write a line for each tuning in the run's tunings.jsonl: what its prompt is told apart from.

    A run that goes again in its folder has its new lines in the place of the old ones. A line that
    a killed process left half-written goes.
    """
    new = [one.visibility.plain() for one in results if one.visibility is not None]
    if not new:
        return
    file = folder / records.TUNINGS
    # Not splitlines: a prompt may hold other ends of lines than \n, such as U+2028.
    old = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    lines = [*_of_other_tunings(old, new), *new]
    write_whole("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), file)


def _of_other_tunings(
    lines: Sequence[str], new: Sequence[Mapping[str, object]]
) -> list[Mapping[str, object]]:
    """Read the lines that are not of a new tuning; what an old line lacks is no difference."""
    found: list[Mapping[str, object]] = []
    for line in lines:
        try:
            old = json.loads(line)
        except ValueError:
            continue
        again = isinstance(old, Mapping) and any(
            all(old.get(name, one[name]) == one[name] for name in SAME_TUNING) for one in new
        )
        if isinstance(old, Mapping) and not again:
            found.append(old)
    return found


def record(sample: Sample, folder: Path, **fields: Any) -> Record:
    """Make the record of a picture in a run's folder.

    `fields` are those of a Record that neither the sample nor NO_METHOD says.
    """
    edit, request = sample.edit, sample.edit.request
    asked = {name: getattr(request, name) for name in ("prompt", "kind", "local", "composed_alike")}
    sampled = {name: getattr(edit, name) for name in ("seed", "weight", "start")}
    return Record(
        run=folder.name,
        example=edit.example.id,
        text=edit.prompt,
        row=sample.row,
        cost={**sample.cost},
        **asked,
        **sampled,
        **{**NO_METHOD, **fields},
    )
