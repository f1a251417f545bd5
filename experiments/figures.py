"""Draws every figure and table from experiments/records/*.jsonl alone, without a model.

Command:  make figures  (python experiments/figures.py)

Every record file gets a table (Markdown, LaTeX, CSV) and a figure in outputs/figures: the one that
its entry in claims/table.yaml names, else bars. What docs/ shows goes there too. The same records
give the same bytes. Claims without records are named in a line each.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from claims.areas import METHODS, METRICS
from claims.contrasts import traits
from claims.labels import SCORES
from claims.sweeps import RECORDS
from claims.table import ENTRIES

from unitune.metrics.statistics import Interval, applying, bounds, by_image, interval
from unitune.report import saved_runs, tables
from unitune.report.groups import Group, make_groups
from unitune.report.plots import Pairs, Points, bars, curves, tradeoff
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

SHOWN = {"tradeoff": "tradeoff.png", "baselines": "baselines.md"}  # what stands in docs/
BARS = ("both", "progress", "alignment", "stlpips")


def grouped(found: Sequence[Record], *names: str) -> dict[tuple[str, ...], list[Record]]:
    """Group edits by traits of their cell; edits that lack one of them are left out."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in found:
        has = traits(record)
        if record.row not in REFERENCES and all(name in has for name in names):
            groups.setdefault(tuple(has[name] for name in names), []).append(record)
    return groups


def scored(records: Sequence[Record], metric: str) -> Interval | None:
    """The mean with its interval over images, if any record has the score."""
    if not applying(records, metric):
        return None
    return interval(by_image(records, metric), within=bounds(metric))


def over(
    found: Sequence[Record],
    path: Path,
    *,
    x: str,
    metrics: Sequence[str],
    label: str,
    by: str = "",
    log_x: bool = False,
) -> list[Path]:
    """Draw scores against a trait that is a number.

    A panel for each metric, a curve for each value of the trait `by`.
    """
    panels: dict[str, dict[str, Points]] = {}
    for metric in metrics:
        lines: dict[str, list[tuple[float, Interval]]] = {}
        for (at, *of), members in grouped(found, x, *([by] if by else [])).items():
            if (mean := scored(members, metric)) is not None:
                name = f"{by.rpartition('.')[2]} {of[0]}" if of else ""
                lines.setdefault(name, []).append((float(at), mean))
        if lines:
            panels[SCORES[metric]] = {name: points for name, points in lines.items()}
    return curves(panels, x_label=label, path=path, log_x=log_x)


def fronts(found: Sequence[Record], path: Path) -> list[Path]:
    """Draw alignment, and direction of change, against fidelity while dials are turned."""
    names = {method: name for name, method in METHODS.items()}
    cells: dict[tuple[str, str], list[Record]] = {}
    references: dict[str, list[Record]] = {}
    for record in found:
        if record.row == "edit":
            name = names.get(record.method, record.method)
            cells.setdefault((name, record.run), []).append(record)
        elif record.row in REFERENCES:
            references.setdefault(REFERENCES[record.row], []).append(record)
    panels: dict[str, tuple[Mapping[str, Pairs], Mapping[str, Pairs]]] = {}
    for metric, label in METRICS.items():
        drawn: dict[str, list] = {}
        for (name, _), members in cells.items():
            drawn.setdefault(name, []).append((scored(members, "stlpips"), scored(members, metric)))
        marks = {
            name: [(scored(own, "stlpips"), scored(own, metric))]
            for name, own in references.items()
        }
        if any((whole := _whole(drawn)).values()):
            panels[label] = whole, _whole(marks)
    return tradeoff(panels, x_label=f"{SCORES['stlpips']} (lower is closer)", path=path)


def _whole(marks: Mapping[str, Sequence]) -> dict[str, Pairs]:
    """Empty what lacks a score; all names stay, so that looks do not shift."""
    return {
        name: points if all(None not in point for point in points) else ()
        for name, points in marks.items()
    }


def by_cell(found: Sequence[Group], path: Path) -> list[Path]:
    """Draw bars of the main scores, one for each cell of a sweep.

    References stand in the table, as 100 dB of the exact target would hide all else.
    """
    edits = [line for line in found if not line.is_reference]
    drawn = {
        SCORES[metric]: {line.label: line.scores[metric] for line in edits if metric in line.scores}
        for metric in BARS
    }
    return bars({label: group for label, group in drawn.items() if group}, path=path)


def is_record_file(file: Path) -> bool:
    """Whether a file holds records; benchmarks of speed and searches have a form of their own."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return {"run", "example", "scores", "row"} <= set(json.loads(first or "{}"))


def write(file: Path, out: Path) -> list[Path]:
    """Write the table and the figure of one record file."""
    read = saved_runs.load(file)
    entry = ENTRIES.get(file.stem)
    seen = entry.view(list(read.records)) if entry else list(read.records)
    found = make_groups(seen)
    table = tables.comparison(found, cards=read.cards).with_notes(read.provenance)
    texts = {
        "md": f"# {file.stem}\n\n{table.markdown()}",
        "tex": table.latex(),
        "csv": tables.as_csv(found),
    }
    out.mkdir(parents=True, exist_ok=True)
    written = [out / f"{file.stem}.{ending}" for ending in texts]
    for path, text in zip(written, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    path, figure = out / file.stem, entry and entry.figure
    if figure == "fronts":
        return written + fronts(seen, path)
    return written + (over(seen, path, **figure) if figure else by_cell(found, path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of record files")
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of what docs shows")
    options = parser.parse_args()
    for file in filter(is_record_file, sorted(options.records.glob("*.jsonl"))):
        try:
            written = write(file, options.out)
        except Refused as refused:
            raise SystemExit(f"figures: {refused}") from None
        for path in written:
            if path.name == SHOWN.get(file.stem):
                shutil.copyfile(path, options.docs / path.name)
        print(*written, sep="\n")
    for entry in ENTRIES.values():
        if not (options.records / f"{entry.name}.jsonl").is_file():
            file = f"{options.records.name}/{entry.name}.jsonl"
            print(f"missing: {file}; make it: {entry.recipe}")


if __name__ == "__main__":
    main()
