"""Tables of records: what a run, a sweep and a claim show of the same groups.

Every mean, interval, count and cost that is printed comes through here.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from unitune.metrics.statistics import BESIDE, ENOUGH, FEWEST, OF_BASE, group_by, score_of
from unitune.report.groups import (
    COSTS,
    Cards,
    Group,
    edit_of,
    higher_is_better,
    make_groups,
    reference_groups,
)
from unitune.report.table_formats import Table, aligned, in_one_line
from unitune.storage.records import Record, merge

MEANS = (
    "Means [95 % intervals over images; edits and seeds of an image averaged first], "
    f"from {FEWEST} images on; (k): the mean goes over k samples only."
)
PER_IMAGE = (
    "Tuning and what is stored are of an image: of all its tunings, where each prompt needs its "
    "own; the other costs are of an edit."
)
WHY_LEFT_OUT = (  # why an edit has no success, by the number of _left_out; 0 has one
    "",
    "without facts",
    "that a copy of the base satisfies",
    "that the judge fails on the exact target",
    "without facts, satisfied by a copy of the base, or failed by the judge on the exact target "
    "(these records do not say which)",
)


def comparison(groups: Sequence[Group], *, cards: Cards) -> Table:
    """Write one row per group: n, metrics with intervals, costs."""
    metrics, costs = _metrics(groups), _costs(groups)
    arrows = [with_arrow(name, cards) for name in metrics]
    rows = []
    for group in groups:
        mask = group.saw_mask or ("-" if group.is_reference else "no")
        sizes = str(group.images), str(len(group.records))
        first, last = group.runs[0], group.runs[-1]
        runs = ", ".join(group.runs) if len(group.runs) < 3 else f"{first} ... {last}"
        rows.append((group.label, mask, *sizes, *_cells(group, metrics, costs), runs))
    notes = [MEANS, *counting(record for group in groups for record in group.records)]
    if costs:
        notes.append(PER_IMAGE)
    notes += unequal_threads(record for group in groups if group.costs for record in group.records)
    few = min(group.images for group in groups)
    if few < ENOUGH:
        plural = "s" if few > 1 else ""
        notes.append(f"{few} image{plural}, fewer than {ENOUGH}: too few for a verdict.")
    head = ("method", "mask seen", "images", "samples", *arrows, *costs, "run")
    return Table(head, tuple(rows), tuple(notes))


def by_prompt(records: Iterable[Record]) -> Table:
    """Write one row for each edit prompt and what made it: what a run shows when it ends."""
    prompts = _by_prompt(records)
    groups = [group for _, group in prompts]
    metrics = _metrics(groups)
    costs = [name for name in _costs(groups) if name in ("sampling s", "peak MiB")]
    rows = tuple(
        (group.label, prompt, str(len(group.records)), *_cells(group, metrics, costs))
        for prompt, group in prompts
    )
    notes = counting(record for group in groups for record in group.records)
    return Table(("method", "prompt", "n", *metrics, *costs), rows, notes)


def numbers(records: Iterable[Record]) -> tuple[list[str], list[list[object]]]:
    """Return the heads and means of the rows by prompt, for a table that somebody else draws.

    A mean is None where the metric does not apply.
    """
    prompts = _by_prompt(records)
    metrics = _metrics([group for _, group in prompts])
    data: list[list[object]] = []
    for prompt, group in prompts:
        means = [group.scores[name].mean if name in group.scores else None for name in metrics]
        data.append([group.row, group.method, group.sampler, prompt, len(group.records), *means])
    return ["row", "method", "sampler", "prompt", "n", *metrics], data


def overall(records: Iterable[Record]) -> dict[str, float]:
    """Return the mean of each score over images by group, as "label/score"."""
    return {
        f"{group.label}/{name}": found.mean
        for group in make_groups(records)
        for name, found in group.scores.items()
    }


def named(
    groups: Mapping[str, Sequence[Record]],
    references: Iterable[Record],
    *,
    scores: Mapping[str, str],
    costs: Mapping[str, str],
) -> Table:
    """Write one row for each named group of edits, with scores and costs under the given heads.

    References follow the rows of the same edits: where groups have different ones, each kind of
    group has references of its own.
    """
    references = list(references)
    alike: dict[frozenset, dict[str, Group]] = {}
    for label, members in groups.items():
        alike.setdefault(frozenset(map(edit_of, members)), {})[label] = Group(tuple(members))
    more = " of these edits" if len(alike) > 1 else ""
    for edits, shown in alike.items():
        shown |= {f"{group.label}{more}": group for group in reference_groups(references, edits)}
    rows = tuple(
        (label, str(len(group.records)), *_cells(group, scores, costs))
        for shown in alike.values()
        for label, group in shown.items()
    )
    every = [r for shown in alike.values() for group in shown.values() for r in group.records]
    notes = counting(every) if BESIDE in scores else ()
    notes += unequal_threads(every) if {"tuning s", "sampling s"} & {*costs} else ()
    return Table(("", "n", *scores.values(), *costs.values()), rows, notes)


def text(groups: Sequence[Group], *, columns: int = 4) -> str:
    """Write groups for a terminal: a few at a time beside each other, a row for each number."""
    blocks = []
    for k in range(0, len(groups), columns):
        some = groups[k : k + columns]
        metrics, costs = _metrics(groups), _costs(some)
        shown = [["", "images, samples", *metrics, *costs]]
        for group in some:
            sizes = f"{group.images}, {len(group.records)}"
            shown.append([group.label, sizes, *_cells(group, metrics, costs)])
        rows = list(zip(*shown, strict=True))
        blocks.append("\n".join(aligned(rows, left=len(shown))))
    notes = counting(record for group in groups for record in group.records)
    return "\n\n".join([*blocks, *notes])


def as_csv(groups: Sequence[Group]) -> str:
    """Write groups as CSV, every number in a column of its own.

    They are the mean, the ends of the interval (empty where there are too few images) and the
    count of each metric, and the costs.
    """
    metrics = _metrics(groups)
    head = ["row", "method", "sampler", "saw_mask", "setting", "images", "samples"]
    head += [f"{name}{end}" for name in metrics for end in ("", "_low", "_high", "_n")]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*head, *COSTS, "runs"], lineterminator="\n")
    writer.writeheader()
    for group in groups:
        row: dict[str, object] = {name: in_one_line(getattr(group, name)) for name in head[:5]}
        row["images"] = group.images
        row |= {"samples": len(group.records), **group.costs, "runs": " ".join(group.runs)}
        for name in metrics:
            row[f"{name}_n"] = group.counts.get(name, 0)
            for end, value in zip(("", "_low", "_high"), group.scores.get(name, ()), strict=False):
                row[f"{name}{end}"] = "" if math.isnan(value) else value
        writer.writerow(row)
    return out.getvalue()


def cell(group: Group, metric: str) -> str:
    """Write a mean with its interval, and over how many samples it goes where not over all.

    It is "-" where the metric does not apply.
    """
    if metric not in group.scores:
        return "-"
    count = group.counts[metric]
    of_some = f" ({count})" if count < len(group.records) else ""
    return f"{group.scores[metric]}{of_some}"


def counting(records: Iterable[Record]) -> tuple[str, ...]:
    """Say how many of the edits the edit success goes over, and why not over the others.

    Nothing, where it goes over all of them.
    """
    judged = [record for record in records if BESIDE in record.scores]
    counts = Counter(min(map(_left_out, found)) for found in group_by(judged, edit_of).values())
    if counts.total() == counts[0]:
        return ()
    why = ", ".join(f"{counts[k]} {WHY_LEFT_OUT[k]}" for k in sorted(counts) if k)
    return (f"Edit success goes over {counts[0]} of {counts.total()} edits; not over {why}.",)


def unequal_threads(records: Iterable[Record]) -> tuple[str, ...]:
    """Say it where the seconds of edits cannot be compared."""
    known = [record.environment for record in records if "threads" in record.environment]
    threads = sorted({str(environment["threads"]) for environment in known})
    if len(threads) < 2:
        return ()
    unequal = f"Seconds are of {' and '.join(threads)} threads, not of equal ones"
    return (f"{unequal}: compare evaluations.",)


def _by_prompt(records: Iterable[Record]) -> list[tuple[str, Group]]:
    prompts = group_by(merge(records), lambda record: record.prompt)
    return [(prompt, group) for prompt, some in prompts.items() for group in make_groups(some)]


def _metrics(groups: Iterable[Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group.scores))


def _costs(groups: Iterable[Group]) -> list[str]:
    return [name for name in COSTS if any(name in group.costs for group in groups)]


def _cells(group: Group, metrics: Iterable[str], costs: Iterable[str]) -> list[str]:
    spent = [f"{group.costs[name]:.3g}" if name in group.costs else "-" for name in costs]
    return [*(cell(group, name) for name in metrics), *spent]


def with_arrow(metric: str, cards: Cards) -> str:
    """Say beside a metric's name which way it is better."""
    return f"{metric} {'↑' if higher_is_better(metric, cards) else '↓'}"


def _left_out(record: Record) -> int:
    """Say why a record has no edit success, as a place in WHY_LEFT_OUT; 0 where it has one."""
    if score_of(record, BESIDE) is not None:
        return 0
    if OF_BASE not in record.scores:
        return 4
    of_base = score_of(record, OF_BASE)
    if of_base is None:
        return 1
    return 2 if of_base else 3
