"""Tables of records: a line for what made the edits, means over images with intervals, and what an edit cost; as Markdown, LaTeX, CSV and for a terminal."""

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unitune.records import Record, merge, tuning
from unitune.statistics import ENOUGH, Interval, by_image, check_budgets, edits, interval, paired
from unitune.types import Refused

LOWER = ("mse", "lpips", "stlpips", "structure")  # metrics that are better when lower begin so; a card says it of any other
DIALS = ("steps", "weight", "start")  # of a record
COSTS: Mapping[str, Callable[[Sequence[Record]], float]] = {  # of tuning and of what is stored by image, the others by edit
    "tuning s": lambda found: tuning(found, "tuning_seconds"),
    "sampling s": lambda found: _mean(record.cost["seconds"] for record in found),
    "peak MiB": lambda found: _mean(max(record.cost["peak_mib"], record.cost.get("tuning_peak_mib", 0.0)) for record in found),
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
        """Name the line: method, sampler, setting, and the kind of row where it is not all of the edits."""
        made = " + ".join(part for part in (self.method, self.sampler) if part)
        said = ", ".join(part for part in (self.setting, "" if self.row == "edit" else self.row) if part)
        return f"{made} ({said})" if said else made

    @property
    def images(self) -> int:
        """Count the base images, the unit of every interval."""
        return len({record.example for record in self.records})

    @property
    def runs(self) -> tuple[str, ...]:
        """Name the runs that the numbers come from."""
        return tuple(dict.fromkeys(record.run for record in self.records))


@dataclass(frozen=True)
class Table:
    """Text by rows, and the sentences below it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def lines(records: Iterable[Record], *, settings: Mapping[str, str] | None = None) -> list[Line]:
    """Make a line of every method, sampler, mask and setting; references and selected samples have lines of their own.

    UniTune stands first, references last. No record at all is refused. `settings` says by run what was set in it; weight, start and steps are said
    where they vary, and the run where nothing else tells two samples apart.
    """
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in merge(records):
        groups.setdefault((record.row, record.method, record.sampler, record.saw_mask), []).append(record)
    if not groups:
        raise Refused("a table needs records, and there are none; name the records of a finished run")
    made, made_of = [], {(member.example, member.prompt) for (row, *_), members in groups.items() if row != "reference" for member in members}
    for (row, method, sampler, mask), members in groups.items():
        if row == "reference":  # the same in every run; of the edits that were made, where any were (plan=dials makes the first of an image)
            known = {(member.example, member.prompt): member for member in members}
            split = {"": [member for edit, member in known.items() if edit in made_of or not made_of]}
        else:
            split = _by_setting(members, settings or {})
        made += [_line(row, method, sampler, mask, setting, found) for setting, found in split.items() if found]
    return sorted(made, key=lambda line: (line.row == "reference", line.method != "unitune"))  # differences are to the first


def _line(row: str, method: str, sampler: str, mask: str, setting: str, members: Sequence[Record]) -> Line:
    names = dict.fromkeys(name for member in members for name in member.scores)
    counts = {name: sum((score := member.scores.get(name)) is not None and not math.isnan(score) for member in members) for name in names}
    scores = {name: interval(by_image(members, name)) for name in names if counts[name]}
    costs = {}
    for name, of in COSTS.items():
        try:
            costs[name] = of(members)
        except KeyError:  # references cost nothing, and old records lack some
            continue
    return Line(row, method, sampler, mask, setting, tuple(members), scores, counts, costs)


def _mean(numbers: Iterable[float]) -> float:
    return statistics.fmean(numbers)


def _by_setting(members: Sequence[Record], settings: Mapping[str, str]) -> dict[str, list[Record]]:
    parts: list[Callable[[Record], str]] = [lambda record: settings.get(record.run, "")]

    def split() -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for member in members:
            found.setdefault(", ".join(said for part in parts if (said := part(member))), []).append(member)
        return found

    for dial in DIALS:
        if any(len({getattr(member, dial) for member in found}) > 1 for found in split().values()):
            parts.append(lambda record, dial=dial: f"{dial} {getattr(record, dial):g}")
    if any(len({(member.example, member.prompt, member.seed) for member in found}) < len(found) for found in split().values()):
        runs = {member.run for member in members}
        short = len({run.rpartition("/")[2] for run in runs}) == len(runs)
        parts.append(lambda record: record.run.rpartition("/")[2] if short else record.run)
    return split()


def higher_is_better(metric: str, cards: Cards) -> bool:
    """Say which way a metric is better, from its card where there is one."""
    return cards[metric]["better"] == "higher" if metric in cards else not metric.startswith(LOWER)


def _arrow(metric: str, cards: Cards) -> str:
    return f"{metric} {'↑' if higher_is_better(metric, cards) else '↓'}"


def comparison(found: Sequence[Line], *, cards: Cards) -> Table:
    """Write one row per line: n, metrics with intervals, costs."""
    metrics = list(dict.fromkeys(name for line in found for name in line.scores))
    costs = [name for name in COSTS if any(name in line.costs for line in found)]
    head = ("method", "mask seen", "images", "samples", *(_arrow(name, cards) for name in metrics), *costs, "run")
    rows = []
    for line in found:
        runs = ", ".join(line.runs) if len(line.runs) < 3 else f"{line.runs[0]} ... {line.runs[-1]}"
        cells = [cell(line, name) for name in metrics] + [f"{line.costs[name]:.3g}" if name in line.costs else "-" for name in costs]
        rows.append((line.label, line.saw_mask or ("-" if line.row == "reference" else "no"), str(line.images), str(len(line.records)), *cells, runs))
    notes = ("Means [95 % bootstrap intervals over images; edits and seeds of an image averaged first]; (k): the mean goes over k samples only.",)
    notes += (
        ("Tuning and what is stored are of an image: of all its tunings, where each prompt needs its own; the other costs are of an edit.",) if costs else ()
    )
    notes += unequal_threads(record for line in found for record in line.records if line.costs)
    few = min(line.images for line in found)
    notes += (f"{few} image{'s' if few > 1 else ''}, fewer than {ENOUGH}: too few for a verdict.",) if few < ENOUGH else ()
    return Table(head, tuple(rows), notes)


def unequal_threads(made: Iterable[Record]) -> tuple[str, ...]:
    """Say it where the seconds of edits cannot be compared."""
    threads = sorted({str(record.environment["threads"]) for record in made if "threads" in record.environment})
    return (f"Seconds are of {' and '.join(threads)} threads, not of equal ones: compare evaluations.",) if len(threads) > 1 else ()


def cell(line: Line, metric: str) -> str:
    """Write a mean with its interval, and over how many samples it goes where not over all; "-" where the metric does not apply."""
    if metric not in line.scores:
        return "-"
    return str(line.scores[metric]) + (f" ({line.counts[metric]})" if line.counts[metric] < len(line.records) else "")


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
            it = paired(by_image(line.records, metric), by_image(first.records, metric), higher_is_better=higher_is_better(metric, cards))
            cells.append(f"{it.difference}; p {it.sign_flip:.2g}, {it.wilcoxon:.2g}; wins {100 * it.wins.mean:.0f} %")
        rows.append((line.label, *cells))
    notes = (
        f"Differences to {first.label} on the same images: mean [95 % interval]; two-sided p of a sign-flip and of Wilcoxon's test, not corrected for their "
        "number; share of images where the method is the better one (a tie is half).",
        f"Equal budgets: {budget} each.",
    )
    return Table(("method", *(_arrow(name, cards) for name in metrics)), tuple(rows), notes)


def markdown(table: Table) -> str:
    """Write a table as Markdown."""
    rows = [table.head, tuple("---" for _ in table.head), *table.rows]
    text = ["| " + " | ".join(said.replace("|", "\\|").replace("\n", " ") for said in row) + " |" for row in rows]
    return "\n".join([*text, "", *(f"{note}\n" for note in table.notes)])


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
LATEX |= {letter: "\\" + letter for letter in "&%$#_{}"}


def latex(table: Table) -> str:
    """Write a table as LaTeX with booktabs' rules; the notes stand above it as comments."""
    rows = [" & ".join("".join(LATEX.get(letter, letter) for letter in said) for said in row) + r" \\" for row in (table.head, *table.rows)]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}"
    return "\n".join([*(f"% {note}" for note in table.notes), begin, r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}", ""])


def as_csv(found: Sequence[Line]) -> str:
    """Write lines as CSV, every number in a column of its own: mean, ends of the interval and count of each metric, costs, runs."""
    metrics = list(dict.fromkeys(name for line in found for name in line.scores))
    head = ["row", "method", "sampler", "saw_mask", "setting", "images", "samples"]
    head += [name + end for name in metrics for end in ("", "_low", "_high", "_n")] + [*COSTS, "runs"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in found:
        scores: list[object] = []
        for name in metrics:
            scores += [*line.scores[name], line.counts[name]] if name in line.scores else ["", "", "", 0]
        costs = [line.costs.get(name, "") for name in COSTS]
        about = [line.row, line.method, line.sampler, line.saw_mask, line.setting, line.images, len(line.records)]
        writer.writerow([*about, *scores, *costs, " ".join(line.runs)])
    return text.getvalue()


def text(found: Sequence[Line], *, columns: int = 4) -> str:
    """Write lines for a terminal: they stand beside each other, a few at a time, with a row for each metric and cost."""
    metrics = list(dict.fromkeys(name for line in found for name in line.scores))
    blocks = []
    for some in (found[k : k + columns] for k in range(0, len(found), columns)):
        rows = [("", *(line.label for line in some)), ("images, samples", *(f"{line.images}, {len(line.records)}" for line in some))]
        rows += [(name, *(cell(line, name) for line in some)) for name in metrics]
        costs = [name for name in COSTS if any(name in line.costs for line in some)]
        rows += [(name, *(f"{line.costs[name]:.3g}" if name in line.costs else "-" for line in some)) for name in costs]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        blocks.append("\n".join("  ".join(said.ljust(width) for said, width in zip(row, widths, strict=True)).rstrip() for row in rows))
    return "\n\n".join(blocks)
