"""How a table is written: as Markdown, LaTeX, CSV and for a terminal."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from unitune.report.lines import COSTS, Line


@dataclass(frozen=True)
class Table:
    """Text by rows, and the sentences below it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def cell(line: Line, metric: str) -> str:
    """Write a mean with its interval, and over how many samples it goes where not over all; "-" where the metric does not apply."""
    if metric not in line.scores:
        return "-"
    return str(line.scores[metric]) + (
        f" ({line.counts[metric]})" if line.counts[metric] < len(line.records) else ""
    )


def markdown(table: Table) -> str:
    """Write a table as Markdown."""
    rows = [table.head, tuple("---" for _ in table.head), *table.rows]
    text = [
        "| " + " | ".join(said.replace("|", "\\|").replace("\n", " ") for said in row) + " |"
        for row in rows
    ]
    return "\n".join([*text, "", *(f"{note}\n" for note in table.notes)])


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}
LATEX |= {letter: "\\" + letter for letter in "&%$#_{}"}


def latex(table: Table) -> str:
    """Write a table as LaTeX with booktabs' rules; the notes stand above it as comments."""
    rows = [
        " & ".join("".join(LATEX.get(letter, letter) for letter in said) for said in row) + r" \\"
        for row in (table.head, *table.rows)
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}"
    return "\n".join(
        [
            *(f"% {note}" for note in table.notes),
            begin,
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def plain(table: Table) -> str:
    """Write a table for a terminal: names on the left, numbers under each other, the notes below."""
    rows = [table.head, *table.rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(table.head))]
    names = 1 + table.head.index("prompt") if "prompt" in table.head else 1
    text = [
        "  ".join(
            said.ljust(width) if k < names else said.rjust(width)
            for k, (said, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in text), *table.notes])


def side_by_side(some: Sequence[Line], metrics: Sequence[str], costs: Sequence[str]) -> str:
    """Write a few lines as columns, for a terminal that is too narrow for them as rows; costs that none of them has are left out."""
    rows = [
        ("", *(line.label for line in some)),
        ("images, samples", *(f"{line.images}, {len(line.records)}" for line in some)),
    ]
    rows += [(name, *(cell(line, name) for line in some)) for name in metrics]
    shown = [name for name in costs if any(name in line.costs for line in some)]
    rows += [
        (name, *(f"{line.costs[name]:.3g}" if name in line.costs else "-" for line in some))
        for name in shown
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(said.ljust(width) for said, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def as_csv(found: Sequence[Line]) -> str:
    """Write lines as CSV, every number in a column of its own: mean, ends of the interval and count of each metric, costs, runs.

    Ends are empty where there are too few images for an interval.
    """
    metrics = list(dict.fromkeys(name for line in found for name in line.scores))
    head = ["row", "method", "sampler", "saw_mask", "setting", "images", "samples"]
    head += [name + end for name in metrics for end in ("", "_low", "_high", "_n")] + [
        *COSTS,
        "runs",
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in found:
        scores: list[object] = []
        for name in metrics:
            known = line.scores.get(name, ())
            scores += (
                [*(value if value == value else "" for value in known), line.counts[name]]
                if known
                else ["", "", "", 0]
            )
        costs = [line.costs.get(name, "") for name in COSTS]
        about = [
            line.row,
            line.method,
            line.sampler,
            line.saw_mask,
            line.setting,
            line.images,
            len(line.records),
        ]
        writer.writerow([*about, *scores, *costs, " ".join(line.runs)])
    return text.getvalue()
