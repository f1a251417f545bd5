"""Records grouped by what made the edits, with means over images, intervals and costs."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from statistics import fmean

from unitune.metrics.statistics import (
    Interval,
    applying,
    bounds,
    by_image,
    group_by,
    interval,
    measured,
)
from unitune.storage.records import REFERENCES, Record, merge, tuning_cost
from unitune.types import Refused

Cards = Mapping[str, Mapping[str, str]]  # of metrics, by their names

# How the names of metrics begin that are better when lower, where no card says it.
LOWER = ("mse", "lpips", "stlpips", "structure", "error")
DIALS = ("steps", "weight", "start")  # of a record
# Means over images of what tuning took and stored, over edits of the others.
COSTS: Mapping[str, Callable[[Sequence[Record]], float]] = {
    "tuning s": lambda records: tuning_cost(records, "tuning_seconds"),
    "sampling s": lambda records: fmean(record.cost["seconds"] for record in records),
    "peak MiB": lambda records: fmean(
        max(record.cost["peak_mib"], record.cost.get("tuning_peak_mib", 0.0)) for record in records
    ),
    "optimiser steps": lambda records: tuning_cost(records, "optimizer_steps"),
    "tuning evaluations": lambda records: tuning_cost(records, "tuning_evaluations"),
    "sampling evaluations": lambda records: fmean(record.cost["evaluations"] for record in records),
    "stored MiB": lambda records: tuning_cost(records, "stored_bytes") / 2**20,
}


@dataclass(frozen=True)
class Group:
    """The records of one way of editing, or of one kind of reference, as `row` says."""

    records: tuple[Record, ...]
    row: str = "edit"
    method: str = ""
    sampler: str = ""
    saw_mask: str = ""
    setting: str = ""

    @cached_property
    def scores(self) -> Mapping[str, Interval]:
        """Means over images of the metrics that apply to it."""
        names = measured(self.records)
        return {name: interval(by_image(self.records, name), within=bounds(name)) for name in names}

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many of the records each mean goes over."""
        return {name: len(applying(self.records, name)) for name in self.scores}

    @cached_property
    def costs(self) -> Mapping[str, float]:
        """Means of what an edit or the tuning of an image took; without those a record lacks."""
        found = {}
        for name, cost_of in COSTS.items():
            try:
                found[name] = cost_of(self.records)
            except KeyError:  # references cost nothing, and old records lack some
                continue
        return found

    @property
    def label(self) -> str:
        """A reference's name, or method, sampler, setting, and what is no edit as planned."""
        if self.is_reference:
            return REFERENCES[self.row]
        row = "" if self.row == "edit" else self.row
        more = ", ".join(filter(None, (self.setting, row)))
        return f"{made_by(self)} ({more})" if more else made_by(self)

    @property
    def is_reference(self) -> bool:
        """Whether edits are compared with it."""
        return self.row in REFERENCES

    @property
    def images(self) -> int:
        """How many base images, the unit of every interval."""
        return len({record.example for record in self.records})

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that the numbers come from."""
        return tuple(dict.fromkeys(record.run for record in self.records))


def make_groups(
    records: Iterable[Record], *, settings: Mapping[str, str] | None = None
) -> list[Group]:
    """Group records by method, sampler, mask and setting, UniTune first, references last.

    Each kind of reference and selected samples have groups of their own. No record at all is
    refused. `settings` says by run what was set in it; weight, start and steps are said where they
    vary, and the run where nothing else tells two samples apart.
    """
    every = merge(records)
    if not every:
        raise Refused(
            "a table needs records, and there are none; name the records of a finished run"
        )
    edits = [record for record in every if record.row not in REFERENCES]
    how = attrgetter("row", "method", "sampler", "saw_mask")
    groups = [
        Group(tuple(members), row, method, sampler, mask, setting)
        for (row, method, sampler, mask), alike in group_by(edits, how).items()
        for setting, members in _by_setting(alike, settings or {}).items()
    ]
    groups.sort(key=lambda group: group.method != "unitune")  # differences are to the first
    return groups + reference_groups(every, {edit_of(record) for record in edits})


def reference_groups(records: Iterable[Record], edits: Collection[tuple[str, str]]) -> list[Group]:
    """Make a group of each kind of reference of the given edits, in the order of their table."""
    kinds = group_by(records, lambda record: record.row)
    found = {row: of_edits(kinds.get(row, ()), edits) for row in REFERENCES}
    return [Group(tuple(members), row) for row, members in found.items() if members]


def made_by(one: Record | Group) -> str:
    """Name a method and its sampler; a reference has none, and published edits have no sampler."""
    return " + ".join(filter(None, (one.method, one.sampler)))


def edit_of(record: Record) -> tuple[str, str]:
    """The edit that a record is of: its base image and the prompt."""
    return record.example, record.prompt


def of_edits(references: Iterable[Record], edits: Collection[tuple[str, str]]) -> list[Record]:
    """Take one kind of reference once, however many runs have it.

    Of the given edits alone, where there are any (plan=dials makes the first of an image).
    """
    once = {(*edit_of(record), record.seed): record for record in references}
    return [record for record in once.values() if not edits or edit_of(record) in edits]


def higher_is_better(metric: str, cards: Cards) -> bool:
    """Say which way a metric is better, from its card where there is one."""
    if metric in cards:
        return cards[metric]["better"] == "higher"
    return not metric.startswith(LOWER)


def _by_setting(records: Sequence[Record], settings: Mapping[str, str]) -> dict[str, list[Record]]:
    """Group edits of one method by as many words as tell them apart."""
    parts: list[Callable[[Record], str]] = [lambda record: settings.get(record.run, "")]

    def label(record: Record) -> str:
        return ", ".join(filter(None, (part(record) for part in parts)))

    for dial in DIALS:
        alike = group_by(records, label).values()
        if any(len({getattr(one, dial) for one in group}) > 1 for group in alike):
            parts.append(lambda record, dial=dial: f"{dial} {getattr(record, dial):g}")
    alike = group_by(records, label).values()
    samples = [[(*edit_of(record), record.seed) for record in group] for group in alike]
    if any(len(set(group)) < len(group) for group in samples):
        short = {record.run: record.run.rpartition("/")[2] for record in records}
        apart = len(set(short.values())) == len(short)
        parts.append(lambda record: short[record.run] if apart else record.run)
    return group_by(records, label)
