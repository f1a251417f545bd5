"""Tables of records: what a run, a sweep and a claim show of the same lines. Every mean, interval, count and cost that is printed comes through here."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from unitune.metrics.statistics import (
    BESIDE,
    ENOUGH,
    FEWEST,
    OF_BASE,
    bounds,
    by_image,
    check_budgets,
    edits,
    paired,
)
from unitune.report.formats import Table as Table
from unitune.report.formats import as_csv as as_csv
from unitune.report.formats import cell as cell
from unitune.report.formats import latex as latex
from unitune.report.formats import markdown as markdown
from unitune.report.formats import plain as plain
from unitune.report.formats import side_by_side
from unitune.report.lines import COSTS as COSTS
from unitune.report.lines import Cards as Cards
from unitune.report.lines import Line as Line
from unitune.report.lines import asked, line_of, of_edits
from unitune.report.lines import higher_is_better as higher_is_better
from unitune.report.lines import lines as lines
from unitune.storage.records import REFERENCES, Record, merge
from unitune.types import Refused

MEANS = f"Means [95 % intervals over images; edits and seeds of an image averaged first], from {FEWEST} images on; (k): the mean goes over k samples only."

LEFT_OUT = (  # why edits have no success
    "",
    "without facts",
    "that a copy of the base satisfies",
    "that the judge fails on the exact target",
    "without facts, satisfied by a copy of the base, or failed by the judge on the exact target (these records do not say which)",
)


def comparison(found: Sequence[Line], *, cards: Cards) -> Table:
    """Write one row per line: n, metrics with intervals, costs."""
    metrics, costs = _columns(found)
    head = (
        "method",
        "mask seen",
        "images",
        "samples",
        *(_arrow(name, cards) for name in metrics),
        *costs,
        "run",
    )
    rows = []
    for line in found:
        runs = ", ".join(line.runs) if len(line.runs) < 3 else f"{line.runs[0]} ... {line.runs[-1]}"
        cells = [*(cell(line, name) for name in metrics), *(_spent(line, name) for name in costs)]
        rows.append(
            (
                line.label,
                line.saw_mask or ("-" if line.is_reference else "no"),
                str(line.images),
                str(len(line.records)),
                *cells,
                runs,
            )
        )
    notes = (MEANS, *counting(record for line in found for record in line.records))
    notes += (
        (
            "Tuning and what is stored are of an image: of all its tunings, where each prompt needs its own; the other costs are of an edit.",
        )
        if costs
        else ()
    )
    notes += unequal_threads(record for line in found for record in line.records if line.costs)
    few = min(line.images for line in found)
    notes += (
        (f"{few} image{'s' if few > 1 else ''}, fewer than {ENOUGH}: too few for a verdict.",)
        if few < ENOUGH
        else ()
    )
    return Table(head, tuple(rows), notes)


def by_prompt(records: Iterable[Record]) -> Table:
    """Write one row for each edit prompt and what made it: what a run shows when it ends."""
    found = _by_prompt(records)
    metrics, costs = _columns([line for _, line in found])
    costs = [name for name in costs if name in ("sampling s", "peak MiB")]
    rows = []
    for prompt, line in found:
        cells = [*(cell(line, name) for name in metrics), *(_spent(line, name) for name in costs)]
        rows.append((line.label, prompt, str(len(line.records)), *cells))
    return Table(
        ("method", "prompt", "n", *metrics, *costs),
        tuple(rows),
        counting(record for _, line in found for record in line.records),
    )


def numbers(records: Iterable[Record]) -> tuple[list[str], list[list[object]]]:
    """Return the heads and the means of the same rows, for a table that somebody else draws; None where a metric does not apply."""
    found = _by_prompt(records)
    metrics, _ = _columns([line for _, line in found])
    data: list[list[object]] = []
    for prompt, line in found:
        means = [line.scores[name].mean if name in line.scores else None for name in metrics]
        data.append([line.row, line.method, line.sampler, prompt, len(line.records), *means])
    return ["row", "method", "sampler", "prompt", "n", *metrics], data


def overall(records: Iterable[Record]) -> dict[str, float]:
    """Return the mean of each score over images by line, as "label/score"; by prompt they stand in the table."""
    return {
        f"{line.label}/{name}": found.mean
        for line in lines(records)
        for name, found in line.scores.items()
    }


def _by_prompt(records: Iterable[Record]) -> list[tuple[str, Line]]:
    prompts: dict[str, list[Record]] = {}
    for record in merge(records):
        prompts.setdefault(record.prompt, []).append(record)
    return [(prompt, line) for prompt, members in prompts.items() for line in lines(members)]


def named(
    groups: Mapping[str, Sequence[Record]],
    references: Iterable[Record],
    *,
    scores: Mapping[str, str],
    costs: Mapping[str, str],
) -> Table:
    """Write one row for each named group of edits, with the scores and costs that are asked for, under the given heads.

    References follow the rows of the same edits: where groups have different ones, each kind of group has references of its own.
    """
    known: dict[str, list[Record]] = {row: [] for row in REFERENCES}
    for record in references:
        known[record.row].append(record)
    alike: dict[frozenset, dict[str, Line]] = {}
    for label, members in groups.items():
        alike.setdefault(frozenset(map(asked, members)), {})[label] = line_of(members)
    rows = []
    for of, made in alike.items():
        more = " of these edits" if len(alike) > 1 else ""
        there = {
            row: members for row, every in known.items() if (members := of_edits(every, {*of}))
        }
        shown = made | {
            f"{REFERENCES[row]}{more}": line_of(members, row=row) for row, members in there.items()
        }
        for label, line in shown.items():
            rows.append(
                (
                    label,
                    str(len(line.records)),
                    *(cell(line, name) for name in scores),
                    *(_spent(line, name) for name in costs),
                )
            )
    every = [record for made in alike.values() for line in made.values() for record in line.records]
    notes = counting(every) if BESIDE in scores else ()
    notes += unequal_threads(every) if {"tuning s", "sampling s"} & {*costs} else ()
    return Table(("", "n", *scores.values(), *costs.values()), tuple(rows), notes)


def _columns(found: Sequence[Line]) -> tuple[list[str], list[str]]:
    return list(dict.fromkeys(name for line in found for name in line.scores)), [
        name for name in COSTS if any(name in line.costs for line in found)
    ]


def _spent(line: Line, cost: str) -> str:
    return f"{line.costs[cost]:.3g}" if cost in line.costs else "-"


def _arrow(metric: str, cards: Cards) -> str:
    return f"{metric} {'↑' if higher_is_better(metric, cards) else '↓'}"


def counting(records: Iterable[Record]) -> tuple[str, ...]:
    """Say how many of the edits the edit success goes over, where that is not all of them, and why not over the others."""
    found: dict[tuple[str, str], int] = {}
    for record in records:
        if BESIDE in record.scores:
            found[asked(record)] = min(_left_out(record), found.get(asked(record), len(LEFT_OUT)))
    counts = Counter(found.values())
    if counts.total() == counts[0]:
        return ()
    why = ", ".join(f"{counts[k]} {said}" for k, said in enumerate(LEFT_OUT) if k and counts[k])
    return (f"Edit success goes over {counts[0]} of {counts.total()} edits; not over {why}.",)


def _left_out(record: Record) -> int:
    """Say why a record has no edit success, as a place in LEFT_OUT; 0 where it has one."""
    success, of_base = (
        None if (value := record.scores.get(name)) is None or math.isnan(value) else value
        for name in (BESIDE, OF_BASE)
    )
    if success is not None:
        return 0
    if OF_BASE not in record.scores:
        return 4
    return 1 if of_base is None else 2 if of_base else 3


def unequal_threads(made: Iterable[Record]) -> tuple[str, ...]:
    """Say it where the seconds of edits cannot be compared."""
    threads = sorted(
        {str(record.environment["threads"]) for record in made if "threads" in record.environment}
    )
    return (
        (
            f"Seconds are of {' and '.join(threads)} threads, not of equal ones: compare evaluations.",
        )
        if len(threads) > 1
        else ()
    )


def differences(found: Sequence[Line], *, cards: Cards) -> Table:
    """Compare each line of edits with the first one, image by image. Methods with unequal budgets are refused."""
    made = [line for line in found if line.row == "edit"]
    if len(made) < 2:
        raise Refused("a comparison needs the edits of two methods, samplers or settings")
    first, *others = made
    check_budgets(edits(record for line in made for record in line.records))
    budget = check_budgets({line.label: line.records for line in made})
    metrics = list(first.scores)
    rows = []
    for line in others:
        cells = []
        for metric in metrics:
            if line.counts.get(metric) != first.counts[metric]:
                cells.append("-")
                continue
            ours, theirs = (by_image(one.records, metric) for one in (line, first))
            it = paired(
                ours,
                theirs,
                higher_is_better=higher_is_better(metric, cards),
                within=bounds(metric, (1, -1)),
            )
            cells.append(
                f"{it.difference}; p {it.sign_flip:.2g}, {it.wilcoxon:.2g}; wins {100 * it.wins.mean:.0f} %"
            )
        rows.append((line.label, *cells))
    notes = (
        f"Differences to {first.label} on the same images: mean [95 % interval, from {FEWEST} images on]; two-sided p of a sign-flip and of Wilcoxon's "
        "test, not corrected for their number; share of images where the method is the better one (a tie is half).",
        f"Equal budgets: {budget} each.",
    )
    return Table(("method", *(_arrow(name, cards) for name in metrics)), tuple(rows), notes)


def text(found: Sequence[Line], *, columns: int = 4) -> str:
    """Write lines for a terminal: they stand beside each other, a few at a time, with a row for each metric and cost."""
    notes = counting(record for line in found for record in line.records)
    return "\n\n".join(
        [
            *(
                side_by_side(found[k : k + columns], *_columns(found))
                for k in range(0, len(found), columns)
            ),
            *notes,
        ]
    )
