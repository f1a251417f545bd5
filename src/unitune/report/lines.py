"""The lines of a table: records grouped by what made the edits, with means over images, intervals and costs."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unitune.metrics.statistics import Interval, applying, bounds, by_image, interval, measured
from unitune.storage.records import REFERENCES, Record, merge, tuning
from unitune.types import Refused

LOWER = (
    "mse",
    "lpips",
    "stlpips",
    "structure",
    "error",
)  # metrics that are better when lower begin so; a card says it of any other
DIALS = ("steps", "weight", "start")  # of a record
COSTS: Mapping[
    str, Callable[[Sequence[Record]], float]
] = {  # of tuning and of what is stored by image, the others by edit
    "tuning s": lambda found: tuning(found, "tuning_seconds"),
    "sampling s": lambda found: _mean(record.cost["seconds"] for record in found),
    "peak MiB": lambda found: _mean(
        max(record.cost["peak_mib"], record.cost.get("tuning_peak_mib", 0.0)) for record in found
    ),
    "optimiser steps": lambda found: tuning(found, "optimizer_steps"),
    "tuning evaluations": lambda found: tuning(found, "tuning_evaluations"),
    "sampling evaluations": lambda found: _mean(record.cost["evaluations"] for record in found),
    "stored MiB": lambda found: tuning(found, "stored_bytes") / 2**20,
}
Cards = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Line:
    """What one way of editing reached: intervals over images, `counts` of the records that a mean goes over, mean costs of an edit or of an image's tuning."""

    row: str
    method: str
    sampler: str
    saw_mask: str
    setting: str
    records: tuple[Record, ...]
    scores: Mapping[str, Interval] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name the line: a reference, or method, sampler, setting, and the kind of row where it is not all of the edits."""
        if self.is_reference:
            return REFERENCES[self.row]
        made = " + ".join(part for part in (self.method, self.sampler) if part)
        said = ", ".join(
            part for part in (self.setting, "" if self.row == "edit" else self.row) if part
        )
        return f"{made} ({said})" if said else made

    @property
    def is_reference(self) -> bool:
        """Whether edits are compared with it."""
        return self.row in REFERENCES

    @property
    def images(self) -> int:
        """Count the base images, the unit of every interval."""
        return len({record.example for record in self.records})

    @property
    def runs(self) -> tuple[str, ...]:
        """Name the runs that the numbers come from."""
        return tuple(dict.fromkeys(record.run for record in self.records))


def lines(records: Iterable[Record], *, settings: Mapping[str, str] | None = None) -> list[Line]:
    """Make a line of every method, sampler, mask and setting; each kind of reference and selected samples have lines of their own.

    UniTune stands first, references last. No record at all is refused. `settings` says by run what was set in it; weight, start and steps are said
    where they vary, and the run where nothing else tells two samples apart.
    """
    groups: dict[tuple[str, ...], list[Record]] = {}
    known: dict[str, list[Record]] = {}
    for record in merge(records):
        if record.row in REFERENCES:
            known.setdefault(record.row, []).append(record)
        else:
            groups.setdefault(
                (record.row, record.method, record.sampler, record.saw_mask), []
            ).append(record)
    if not groups and not known:
        raise Refused(
            "a table needs records, and there are none; name the records of a finished run"
        )
    edits = {asked(member) for members in groups.values() for member in members}
    made = []
    for (row, method, sampler, mask), members in groups.items():
        for setting, found in _by_setting(members, settings or {}).items():
            made.append(
                line_of(
                    found, row=row, method=method, sampler=sampler, saw_mask=mask, setting=setting
                )
            )
    made.sort(key=lambda line: line.method != "unitune")  # differences are to the first
    kept = {row: of_edits(known.get(row, []), edits) for row in REFERENCES}
    return made + [line_of(members, row=row) for row, members in kept.items() if members]


def asked(record: Record) -> tuple[str, str]:
    """The edit that a record is of: its base image and the prompt."""
    return record.example, record.prompt


def of_edits(references: Iterable[Record], edits: set[tuple[str, str]]) -> list[Record]:
    """Take one kind of reference once, however many runs have it, and of the given edits alone where there are any (plan=dials makes the first of an image)."""
    once = {(*asked(record), record.seed): record for record in references}
    return [record for record in once.values() if asked(record) in edits or not edits]


def line_of(
    members: Sequence[Record],
    *,
    row: str = "edit",
    method: str = "",
    sampler: str = "",
    saw_mask: str = "",
    setting: str = "",
) -> Line:
    """Make the line of some records; a cost that some of them lack is left out."""
    names = measured(members)
    scores = {name: interval(by_image(members, name), within=bounds(name)) for name in names}
    costs = {}
    for name, of in COSTS.items():
        try:
            costs[name] = of(members)
        except KeyError:  # references cost nothing, and old records lack some
            continue
    return Line(
        row,
        method,
        sampler,
        saw_mask,
        setting,
        tuple(members),
        scores,
        {name: len(applying(members, name)) for name in names},
        costs,
    )


def _mean(numbers: Iterable[float]) -> float:
    return statistics.fmean(numbers)


def _by_setting(members: Sequence[Record], settings: Mapping[str, str]) -> dict[str, list[Record]]:
    parts: list[Callable[[Record], str]] = [lambda record: settings.get(record.run, "")]

    def split() -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for member in members:
            found.setdefault(
                ", ".join(said for part in parts if (said := part(member))), []
            ).append(member)
        return found

    for dial in DIALS:
        if any(len({getattr(member, dial) for member in found}) > 1 for found in split().values()):
            parts.append(lambda record, dial=dial: f"{dial} {getattr(record, dial):g}")
    if any(
        len({(*asked(member), member.seed) for member in found}) < len(found)
        for found in split().values()
    ):
        runs = {member.run for member in members}
        short = len({run.rpartition("/")[2] for run in runs}) == len(runs)
        parts.append(lambda record: record.run.rpartition("/")[2] if short else record.run)
    return split()


def higher_is_better(metric: str, cards: Cards) -> bool:
    """Say which way a metric is better, from its card where there is one."""
    return cards[metric]["better"] == "higher" if metric in cards else not metric.startswith(LOWER)
