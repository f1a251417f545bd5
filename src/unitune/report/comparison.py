"""What a sweep ends with: one table over all of its runs, on the screen and in its folder."""

import time
from pathlib import Path

from unitune.report import page, source, tables
from unitune.storage.records import FILE
from unitune.types import Refused


def conclude(folder: Path, *, began: float | None = None) -> list[str]:
    """Write comparison.md, .tex, .csv and page.html over the runs of a folder; return what to print, nothing where no run left a record.

    `began` is the monotonic time of the sweep's start.
    """
    if not any(folder.rglob(FILE)):
        return []
    read = source.load(folder)
    found = tables.lines(read.records, settings=read.settings)
    main = tables.comparison(found, cards=read.cards)
    took = () if began is None else (f"The sweep took {time.monotonic() - began:.0f} s in all.",)
    main = tables.Table(main.head, main.rows, (*main.notes, *took, *read.provenance))
    try:
        paired = tables.markdown(tables.differences(found, cards=read.cards))
    except Refused as why:
        paired = f"No differences are shown: {why}.\n"
    (folder / "comparison.md").write_text(f"{tables.markdown(main)}\n{paired}", encoding="utf-8")
    (folder / "comparison.tex").write_text(tables.latex(main), encoding="utf-8")
    (folder / "comparison.csv").write_text(tables.as_csv(found), encoding="utf-8")
    return [
        tables.text(found),
        *took,
        f"comparison: {folder}/comparison.md",
        f"report: {page.write(read)}",
    ]
