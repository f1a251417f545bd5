"""The table of claims, table.yaml, as objects: what is asked of which records, and how shown."""

import functools
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unitune.report.groups import higher_is_better
from unitune.storage.records import Record

from . import areas, best_of_n
from .contrasts import EDITING, Claim, Contrast
from .labels import COSTS, SCORES

fill = functools.partial(textwrap.fill, width=100, break_on_hyphens=False)
Records = Callable[[list[Record]], list[Record]]


def of_one_size(found: list[Record]) -> list[Record]:
    """Keep of the sweep at 256 px the rows of super-resolution alone."""
    return [
        record
        for record in found
        if ("first_edits_ceiling/" in record.run) == ("through super-resolution" in record.row)
    ]


FUNCTIONS: Mapping[str, Callable] = {
    function.__name__: function
    for function in (
        of_one_size, best_of_n.judged, best_of_n.chosen,
        areas.settings_of_dials, areas.larger_areas, areas.covered,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One entry: its sweeps, and what is asked of their records."""

    name: str
    title: str
    claim: str  # of the paper, or ours
    expected: str
    minutes: str
    rows: Mapping[str, str]
    claims: tuple[Claim, ...]
    scores: Mapping[str, str]  # columns: {name: heading}
    costs: Mapping[str, str]
    sweeps: tuple[str, ...]
    note: str = ""
    images: int | None = None  # of a comparison beside the claims
    full: tuple[str, ...] = ()  # settings of its sweeps at full size
    add: Records = list  # adds to a sweep's records before they are kept
    view: Records = list  # makes what table, claims and figure see of the kept ones
    more: Callable[[Sequence[Record]], str] | None = None  # is written below the claims
    masks: Mapping[str, str] | None = None  # columns of a picture that shows masks: {label: group}
    figure: Mapping[str, Any] | str | None = None

    @property
    def recipe(self) -> str:
        """The command that makes its records."""
        sweeps = (f"python run.py -m experiment={sweep}" for sweep in self.sweeps)
        size = f" --images {self.images}" if self.images else ""
        return " && ".join([*sweeps, f"python -m experiments.claims {self.name}{size}"])

    @property
    def header(self) -> str:
        """What a reader needs to know of it."""
        told = {"Claim": self.claim, "Expected": self.expected}
        told["Minutes"] = f"{self.minutes} On two CPU cores."
        lines = [f"Command:  {self.recipe}"]
        for name, said in told.items():
            lines.append(fill(f"{f'{name}:':<10}{said}", subsequent_indent=" " * 10))
        parts = (self.title, "\n".join(lines), fill(self.note))
        return "\n\n".join(part for part in parts if part)


def entry(name: str, data: Mapping[str, Any]) -> Entry:
    """Read an entry; a field that no entry has raises TypeError."""
    fields = dict(data)
    over, asked = fields.pop("over", {}), fields.pop("asked")
    rows = fields.pop("rows")
    rows = FUNCTIONS[rows]() if isinstance(rows, str) else expanded(rows, over)
    if isinstance(asked, str):
        claims = FUNCTIONS[asked]()
    else:
        claims = tuple(claim(says, rows, **how) for says, how in asked.items())
    usual = [score for score in SCORES if score != "direction"]
    columns = {
        "scores": {score: SCORES[score] for score in fields.pop("scores", usual)},
        "costs": {cost: COSTS[cost] for cost in fields.pop("costs", ())},
        "sweeps": tuple(fields.pop("sweeps", (name,))),
        "full": tuple(fields.pop("full", ())),
    }
    functions = {
        key: FUNCTIONS[fields.pop(key)] for key in ("add", "view", "more") if key in fields
    }
    if masks := fields.pop("masks", None):
        fields["masks"] = {column: rows.get(group, group) for column, group in masks.items()}
    return Entry(name=name, rows=rows, claims=claims, **columns, **functions, **fields)


def expanded(rows: Mapping[str, str], over: Mapping[str, Sequence]) -> dict[str, str]:
    """Fill templates with every combination of values; the first name varies slowest."""
    settings = [
        dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())
    ]
    return {
        row.format(**setting): group.format(**setting)
        for setting in settings
        for row, group in rows.items()
    }


def claim(
    says: str,
    rows: Mapping[str, str],
    *,
    metric: str,
    of: str = "",
    over: Sequence[str] = (),
    terms: Mapping[str, float] | None = None,
    about: str = "",
    above: float = 0.0,
) -> Claim:
    """Read a claim; groups may be named by the labels of their rows."""
    if terms is None:
        better = 1 if higher_is_better(metric, {}) else -1
        terms = {of: better, **dict.fromkeys(over, -better)}
    named = {rows.get(group, group): weight for group, weight in terms.items()}
    about = about or ("edit" if metric in EDITING else "fidelity")
    return Claim(says, Contrast(metric, named), about, above)


ENTRIES: Mapping[str, Entry] = {
    name: entry(name, data)
    for name, data in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()).items()
}
CLAIMS = tuple(name for name, entry in ENTRIES.items() if entry.images is None)
