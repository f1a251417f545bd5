"""What a run and a sweep end with: tables on the screen, files and a page in their folder."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from unitune.metrics.statistics import BESIDE, group_by, score_of
from unitune.report import page, saved_runs, tables, tuning_notes
from unitune.report.differences import differences_or_why
from unitune.report.groups import make_groups
from unitune.report.table_formats import in_one_line
from unitune.storage.files import write_whole
from unitune.storage.records import FILE, Record


def of_run(folder: Path, done: Sequence[Record]) -> list[str]:
    """Write a run's page; say its table by prompt, its successes, its leaks and its grids."""
    return [
        tables.by_prompt(done).plain(),
        *successes(done),
        *tuning_notes.leaks(tuning_notes.read(folder)),
        *(f"grid: {grid}" for grid in sorted(folder.glob("grid*.png"))),
        f"report: {page.write(saved_runs.load(folder))}",
    ]


def of_sweep(folder: Path, *, began: float | None = None) -> list[str]:
    """Write comparison.md, .tex, .csv and report.html over the runs of a folder.

    Returns what to print, which is nothing where no run left a record. `began` is the monotonic
    time of the sweep's start.
    """
    if not any(folder.rglob(FILE)):
        return []
    read = saved_runs.load(folder)
    groups = make_groups(read.records, settings=read.settings)
    took = () if began is None else (f"The sweep took {time.monotonic() - began:.0f} s in all.",)
    main = tables.comparison(groups, cards=read.cards).with_notes(*took, read.provenance)
    differences, why = differences_or_why(groups, cards=read.cards)
    paired = differences.markdown() if differences else f"{why}\n"
    written = {
        "md": f"{main.markdown()}\n{paired}",
        "tex": main.latex(),
        "csv": tables.as_csv(groups),
    }
    for ending, text in written.items():
        write_whole(text, folder / f"comparison.{ending}")
    files = [f"comparison: {folder}/comparison.md", f"report: {page.write(read)}"]
    return [tables.text(groups), *took, *files]


def successes(done: Iterable[Record]) -> list[str]:
    """Say how many samples the judge accepts, by prompt; nothing where it can decide of none."""
    decided = [one for one in done if one.row == "edit" and score_of(one, BESIDE) is not None]
    if not decided:
        return []
    prompts = group_by(decided, lambda record: record.prompt)
    each = ", ".join(
        f"{in_one_line(prompt)}: {_accepted(some)}" for prompt, some in prompts.items()
    )
    return [f"samples that succeed by the judge: {_accepted(decided)} ({each})"]


def _accepted(records: Sequence[Record]) -> str:
    return f"{sum(record.scores[BESIDE] or 0 for record in records):.0f} of {len(records)}"
